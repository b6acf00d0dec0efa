"""What the clients' tests share: the npm and PyPI packages, installed once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: The client's own requirements: later releases of both broke it.
PYTHON_CLIENT = ("nucleus-python==0.3.0", "websocket-client<0.58", "pickledb==0.9.2")
INSTALL_SECONDS_MAX = 180


@pytest.fixture(scope="session")
def nucleus_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nucleus-python, apart from the tests' own."""

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        subprocess.run(
            [*pip, "install", "--quiet", *PYTHON_CLIENT],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS_MAX,
        )

    try:
        return once(tmp_path_factory, "python-client", install) / "bin" / "python"
    except subprocess.SubprocessError as failed:
        pytest.skip(f"pip could not install nucleus-python: {failed}")


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `require` finds the Nucleus packages of package-lock.json."""
    needed = [name for name in ("node", "npm") if shutil.which(name) is None]
    if needed:
        pytest.skip(f"missing: {', '.join(needed)} (Debian: apt-get install nodejs npm)")

    def install(folder: Path) -> None:
        folder.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        for script in HERE.glob("*.js"):
            shutil.copy(script, folder)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
        )

    try:
        return once(tmp_path_factory, "node", install)
    except subprocess.CalledProcessError as failed:
        pytest.skip(f"npm could not install nucleus-nodejs: {failed.stderr[-300:]}")


def once(
    tmp_path_factory: pytest.TempPathFactory, name: str, install: Callable[[Path], None]
) -> Path:
    """A folder that `install` makes, whichever of the run's processes asks for it first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = shared / f"{name}.new"
            shutil.rmtree(made, ignore_errors=True)
            install(made)
            made.rename(folder)
    return folder
