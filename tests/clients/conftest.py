"""What the clients' tests share: the npm packages, installed once."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: The client's own requirements: later releases of both broke it.
PYTHON_CLIENT = ("nucleus-python==0.3.0", "websocket-client<0.58", "pickledb==0.9.2")
INSTALL_SECONDS_MAX = 180


@pytest.fixture(scope="session")
def nucleus_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nucleus-python, apart from the tests' own."""
    own = tmp_path_factory.mktemp("python-client")
    python = own / "bin" / "python"
    try:
        venv.create(own, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PYTHON_CLIENT],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS_MAX,
        )
    except subprocess.SubprocessError as failed:
        pytest.skip(f"pip could not install nucleus-python: {failed}")
    return python


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `require` finds the Nucleus packages of package-lock.json."""
    needed = [name for name in ("node", "npm") if shutil.which(name) is None]
    if needed:
        pytest.skip(f"missing: {', '.join(needed)} (Debian: apt-get install nodejs npm)")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    for script in HERE.glob("*.js"):
        shutil.copy(script, folder)
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    if installed.returncode != 0:
        pytest.skip(f"npm could not install nucleus-nodejs: {installed.stderr[-300:]}")
    return folder
