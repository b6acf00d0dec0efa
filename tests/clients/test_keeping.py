"""Real Nucleus clients through refusals and restarts: they keep what was not reported back, send it
again, and nothing is doubled."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.kill import mounted
from tests.faults.schedule import fill, make_room
from tests.served import Served, descendants

PACKAGES = {
    "node309": "nucleus-nodejs",
    "node306": "nucleus-nodejs-3.0.6",
    "analytics403": "nucleus-analytics",
}
PYTHON = "python030"
APPS = (*PACKAGES, PYTHON)
ACCOUNTS = "\n".join(f'[accounts.{app}.nucleus]\napps = ["{app}"]' for app in APPS)
HERE = Path(__file__).parent
COUNT = 24


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@pytest.mark.timeout(300)
def test_nucleus_clients_keep_what_is_refused_and_send_it_again(
    node_modules: Path, nucleus_python: Path, tmp_path: Path
) -> None:
    served = Served(tmp_path, ACCOUNTS)
    text = served.config.read_text()
    served.config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}", 1))
    try:
        disk = mounted(served.data / "journal", 24)
        place = disk.__enter__()
    except subprocess.CalledProcessError:
        pytest.skip("mounting a file system needs root")
    clients = []
    try:
        served.start()
        endpoint = served.collect.replace("http", "ws", 1)
        script = str(HERE / "nucleus_python_keeping.py")
        commands = {
            app: ["node", "nucleus_keeping.js", endpoint, app, package]
            for app, package in PACKAGES.items()
        } | {PYTHON: [str(nucleus_python), script, endpoint, PYTHON]}
        for app, command in commands.items():
            home = tmp_path / app
            home.mkdir()
            clients.append(
                subprocess.Popen(
                    command,
                    cwd=node_modules,
                    env={
                        "PATH": os.environ["PATH"],
                        "HOME": str(home),
                        "XDG_CACHE_HOME": str(home / "cache"),
                    },
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
        time.sleep(1.5)
        fill(place)  # WebSockets are closed with 1013
        time.sleep(1.5)
        make_room(place)
        time.sleep(1.2)
        for pid in (served.pid, *descendants(served.pid)):  # and with 1006; then refused
            os.kill(pid, signal.SIGKILL)
        served.kill()
        time.sleep(0.5)
        served.start()
        for client in clients:
            said = client.communicate(timeout=60)[1]
            assert client.returncode == 0, said
        books = served.wait_loaded()
        rows = served.query(
            "SELECT account, toString(name) AS name, count() AS often FROM events"
            " WHERE startsWith(name, 'KEPT_') GROUP BY ALL"
        )
    finally:
        for client in clients:
            client.kill()
            client.wait()
            if client.stderr is not None:
                client.stderr.close()
        served.kill()
        disk.__exit__(None, None, None)
    expected = {(app, f"KEPT_{number}"): 1 for app in APPS for number in range(COUNT)}
    assert {(row["account"], row["name"]): int(row["often"]) for row in rows} == expected
    for app in APPS:
        row = books[app, "nucleus"]
        assert row["received"] == row["stored"] + row["duplicate"]
    assert "full" in served.log.read_text()
