"""The servers that are compared, each on the server's core and on a free port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.cores import SERVER_CORE, pinned
from bench.traffic import accounts
from tests.served import Served, descendants


class Server(msgspec.Struct, frozen=True):
    """A running server: its address and its processes."""

    host: str
    port: int
    pids: list[int]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens. Raises RuntimeError when the process ends, or after 20 s."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen")


@contextlib.contextmanager
def _running(
    command: list[str], port: int, log: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*pinned(SERVER_CORE), *command],
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
        )
    try:
        wait_for(port, process)
        yield Server("127.0.0.1", port, [process.pid, *descendants(process.pid)])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """`return 204` with an access log: the ceiling; it parses nothing and keeps nothing."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log {folder}/access.log;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with _running(command, port, folder / "nginx.log") as server:
        yield server


@contextlib.contextmanager
def uvicorn(folder: Path) -> Iterator[Server]:
    """bench/baseline_asgi.py: the same durable work on a general server."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", "bench.baseline_asgi:app", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--backlog", "2048"),
    ]
    environment = {"BASELINE_FILE": str(folder / "events.jsonl")}
    with _running(command, port, folder / "uvicorn.log", environment) as server:
        yield server


@contextlib.contextmanager
def headwater(folder: Path) -> Iterator[Server]:
    """`headwater collect` with one worker: everything between a socket and an fsynced journal."""
    served = Served(folder, accounts(), prefix=pinned(SERVER_CORE), command="collect")
    with served:
        yield Server("127.0.0.1", served.collect_port, [served.pid, *descendants(served.pid)])
