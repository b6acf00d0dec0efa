"""Headwater as a user runs it: `headwater serve` as a process of its own, on free ports.

Tests and benchmarks start it on a folder of their own, talk to it over sockets, and ask its query
API what has landed. Nothing here reaches into it.
"""

from __future__ import annotations

import http.client
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

HEADWATER = Path(sys.executable).with_name("headwater")
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 35.0


class NotReady(RuntimeError):
    """The server did not become ready; the text ends with what it said."""


class Served:
    """A running `headwater serve`; a context manager that ends it with SIGTERM.

    `config` is TOML; ``data``, the listen addresses and workers are written in front of it, so it
    holds accounts and whatever other tables a test needs. `prefix` goes before the command
    (``["taskset", "-c", "0"]``); `command` may be a part that has a `ready` line (``collect``).
    `program` may be another that starts Headwater and takes the same arguments. With `anew` it
    makes a store of its own, also where :attr:`first_start` has one.
    """

    #: The data folder of a server that was started once and stopped, where tests set it: a new
    #: server is given a copy of its store, which is empty. Making one takes a third of a start.
    first_start: ClassVar[Callable[[], Path] | None] = None

    def __init__(
        self,
        folder: Path,
        accounts: str,
        *,
        workers: int = 1,
        collect: str = "",
        tables: str = "",
        prefix: Sequence[str] = (),
        command: str = "serve",
        program: Sequence[str] = (str(HEADWATER),),
        anew: bool = False,
    ) -> None:
        self._anew = anew
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "headwater.toml"
        self.log = folder / "headwater.log"
        self._prefix = [*prefix, *program]
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.collect = ""
        self.console = ""
        self.config.write_text(
            f"""data = "{self.data}"
[collect]
listen = "127.0.0.1:0"
workers = {workers}
{collect}
[console]
listen = "127.0.0.1:0"
{tables}
{accounts}
"""
        )

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def collect_port(self) -> int:
        port = urlsplit(self.collect).port
        assert port is not None
        return port

    def start(self) -> None:
        """Start it and wait for its `ready` line. Raises NotReady."""
        self._begin_with_a_store()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, self._command, "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        said = b""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            for line in said.decode(errors="replace").splitlines():
                if line.startswith("ready "):
                    words = dict(word.split("=", 1) for word in line.split()[1:])
                    self.collect = words.get("collect", "")
                    self.console = words.get("console", "")
                    return
            left = deadline - time.monotonic()
            ended = self._process.poll() is not None
            if left <= 0 or ended:
                self.kill()
                raise NotReady(f"{said.decode(errors='replace')}\n{self.tail_of_log()}")
            if select.select([pipe], [], [], min(left, 0.2))[0]:
                said += os.read(pipe, 65_536)

    def _begin_with_a_store(self) -> None:
        first = type(self).first_start
        if first is None or self._anew or self._command == "collect" or self.data.exists():
            return
        self.data.mkdir(mode=0o700, parents=True)
        shutil.copy(first() / "version", self.data)
        shutil.copytree(first() / "store", self.data / "store", symlinks=True)

    def tail_of_log(self) -> str:
        """The last lines of what it wrote to standard error."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def stop(self) -> int:
        """SIGTERM, then wait; its exit status. Raises TimeoutExpired after 35 s."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS_MAX)
        finally:
            self.kill()

    def kill(self) -> None:
        """Whatever is left of it, at once."""
        if self._process is None:
            return
        for pid in descendants(self._process.pid):
            _kill(pid)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def reload(self) -> None:
        """SIGHUP: read accounts and tokens again."""
        os.kill(self.pid, signal.SIGHUP)

    def token(self) -> str:
        """The console's bearer token."""
        return (self.data / "console-token").read_text().strip()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a question to `POST /api/query`, as dictionaries."""
        at = urlsplit(self.console)
        assert at.hostname is not None
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        try:
            connection.request(
                "POST",
                "/api/query",
                body=msgspec.json.encode({"sql": sql}),
                headers={
                    "Authorization": f"Bearer {self.token()}",
                    "Content-Type": "application/json",
                },
            )
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body.decode(errors='replace')}: {sql}")
        found = msgspec.json.decode(body)
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    def accounting(self) -> dict[tuple[str, str], dict[str, int]]:
        """The books: (account, dialect) to its counts."""
        return {
            (row["account"], row["dialect"]): {
                name: int(row[name])
                for name in ("received", "stored", "duplicate", "rejected", "in_flight")
            }
            for row in self.query("SELECT * FROM accounting")
        }

    def wait_loaded(self, seconds: float = 30.0) -> dict[tuple[str, str], dict[str, int]]:
        """The books once nothing is in flight. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            books = self.accounting()
            if all(row["in_flight"] == 0 for row in books.values()):
                return books
            if time.monotonic() > deadline:
                raise TimeoutError(f"still in flight after {seconds} s: {books}")
            time.sleep(0.1)

    def run(self, *arguments: str, seconds: float = 120.0) -> str:
        """A command of the same installation, with this server's configuration; its output."""
        done = subprocess.run(
            [str(HEADWATER), *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def children(pid: int) -> list[int]:
    """The direct children of a process (Linux), oldest first."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def command_of(pid: int) -> str:
    """A process's command line, empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
