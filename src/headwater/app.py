"""The supervisor: binds the ports, starts collectors and hub, keeps them running, ends them.

    supervisor ──► collector 0 … N-1   share one inherited listening socket, write the journal
               └─► hub                 loader and console, the only process that opens the store

It stays light (no store, no parser) and does no work of its own, so that nothing but a kill of
itself takes the whole down. A child that ends is started again at once, with a growing pause when
it keeps ending. The listening sockets are the supervisor's: while a worker is away, connections
wait in the socket's queue instead of being refused.

Stopping (SIGTERM, SIGINT): the collectors first (they stop accepting, answer what was accepted and
flush), then the hub, which loads what is left; all within 30 seconds, after which the rest is
killed, which loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headwater import limits, logs, metrics
from headwater.children import Order, decode_report, encode
from headwater.config import Config, LogSettings, join_address, split_address
from headwater.config_reader import load
from headwater.errors import ConfigError, DataError, HeadwaterError
from headwater.folder import CollectAddress, Folder
from headwater.folder_version import LOCKS, open_version
from headwater.journal_end import check_journal

log = logging.getLogger("headwater.app")

BACKLOG = 4_096
_PAUSE_SECONDS_MAX = 5.0
_STEADY_SECONDS = 10.0  # a child that ran so long was well: the next restart is at once again
_HUB_SECONDS = 4.5  # of the 30 that stopping may take; the collectors have the rest
_START_SECONDS_MAX = 60.0


def bind(listen: str, key: str) -> socket.socket:
    """A listening socket for ``HOST:PORT``. Raises DataError that names the configuration key."""
    host, port = split_address(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        raise DataError(
            f"{key}: cannot listen on {listen}: {error.strerror}",
            remedy="stop what uses that port, or give another one (port 0 picks a free one)",
        ) from error
    bound.setblocking(False)
    return bound


def url_of(bound: socket.socket) -> str:
    """The http URL of a listening socket, without a path."""
    host, port = bound.getsockname()[:2]
    return f"http://{join_address(host, port)}"


class _Child:
    """One child process: started, heard, restarted."""

    def __init__(self, name: str, arguments: list[str], sockets: list[int], locks: list[int]):
        self.name = name
        self._arguments = arguments
        self._descriptors = [*sockets, *locks]
        self.process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        self.failure: HeadwaterError | None = None
        self._pause = 0.0

    async def start(self, config: Config) -> None:
        """Start the process and send it its configuration."""
        self.ready.clear()
        self.failure = None
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=self._descriptors,
            process_group=0,  # Ctrl-C reaches the supervisor alone, which ends them in order
        )
        await self.send(config)

    async def send(self, config: Config) -> None:
        """Send a configuration, the first or a new one; a child that has ended takes none."""
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(encode(Order(config)))
            await self.process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return

    async def run(self) -> int:
        """Listen to the process until it ends; its exit status."""
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            report = decode_report(line)
            if report is not None and report.ready:
                self.ready.set()
            elif report is not None and report.failed:
                self.failure = HeadwaterError(report.failed, remedy=report.remedy)
        return await self.process.wait()

    def pause(self, ran_seconds: float) -> float:
        """How long to wait before the next start: nothing at first, then twice as long each."""
        if ran_seconds >= _STEADY_SECONDS:
            self._pause = 0.0
        waiting = self._pause
        self._pause = min(_PAUSE_SECONDS_MAX, max(0.1, self._pause * 2))
        return waiting

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.process is not None and self.process.returncode is None:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                return


async def _all(children: list[_Child]) -> None:
    for child in children:
        await child.ready.wait()


def _lasting(config: Config, table: str) -> object:
    """What of a table of the configuration is in force until the next start."""
    return config.console.listen if table == "console" else getattr(config, table)


class Supervisor:
    """One run of `serve` (collectors and hub), `collect` or `load` (one of the two)."""

    def __init__(self, path: Path, *, collectors: bool = True, hub: bool = True) -> None:
        self._path = path
        self._config = load(path)
        logs.configure(self._config.log, "supervisor")
        self._folder = Folder(self._config.data)
        self._with_collectors = collectors
        self._with_hub = hub
        self._collect: socket.socket | None = None
        self._console: socket.socket | None = None
        self._workers: list[_Child] = []
        self._hub: _Child | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._started = False
        self._failed: asyncio.Future[None] | None = None

    async def run(self, say: Callable[[str], None]) -> int:
        """Start, say the `ready` line, keep running until a signal ends it; the exit status.

        Raises HeadwaterError when it cannot start: folder in use, port taken, a child's own reason.
        """
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self._prepare(say)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(self.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        children = [*self._workers, *([self._hub] if self._hub else [])]
        self._tasks = [loop.create_task(self._keep(child)) for child in children]
        try:
            if await self._all_ready(children):
                self._started = True
                say(self._ready_line())
                await self._stopping.wait()
        finally:
            await self._stop()
        return 0

    def _prepare(self, say: Callable[[str], None]) -> None:
        config, folder = self._config, self._folder
        folder.make()
        locks: list[int] = []
        hub_locks: list[int] = []
        if self._with_collectors:
            locks = [folder.lock("lock-collect", "starting another collector")]
        if self._with_hub:
            hub_locks = [folder.lock("lock", "starting another hub")]
        held = [name for name, have in zip(LOCKS, (locks, hub_locks), strict=True) if have]
        open_version(folder, held=tuple(held))
        check_journal(folder)
        if self._with_collectors:
            metrics.clear(folder.metrics)
            self._collect = bind(config.collect.listen, "collect.listen")
            folder.put_collector(CollectAddress(collect=url_of(self._collect), pid=os.getpid()))
            listening = self._collect.fileno()
            self._workers = [
                _Child(
                    f"collector {number}",
                    ["-m", "headwater.collector", str(number), str(listening)],
                    [listening],
                    locks,
                )
                for number in range(config.collect.workers)
            ]
        if self._with_hub:
            self._console = bind(config.console.listen, "console.listen")
            listening = self._console.fileno()
            token, made = folder.make_token()
            if made:
                say(f"{url_of(self._console)}/?token={token}")
            self._hub = _Child(
                "hub", ["-m", "headwater.hub", str(listening)], [listening], hub_locks
            )

    def _ready_line(self) -> str:
        words = ["ready"]
        if self._collect is not None:
            words.append(f"collect={url_of(self._collect)}")
        if self._console is not None:
            words.append(f"console={url_of(self._console)}")
        return " ".join(words)

    async def _all_ready(self, children: list[_Child]) -> bool:
        """Wait for every child's first `ready`; False when asked to stop before."""
        assert self._failed is not None
        loop = asyncio.get_running_loop()
        ready = loop.create_task(_all(children))
        stopping = loop.create_task(self._stopping.wait())
        waited: list[asyncio.Future[Any]] = [ready, stopping, self._failed]
        done, _ = await asyncio.wait(
            waited,
            timeout=_START_SECONDS_MAX,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        if self._failed in done:
            ready.cancel()
            self._failed.result()
        if not done:
            ready.cancel()
            late = ", ".join(child.name for child in children if not child.ready.is_set())
            raise HeadwaterError(
                f"not ready after {_START_SECONDS_MAX:.0f} s: {late}",
                remedy="see what it wrote above this line",
            )
        return not self._stopping.is_set()

    async def _keep(self, child: _Child) -> None:
        """Start a child, and again whenever it ends, until the whole is stopping."""
        assert self._failed is not None
        while not self._stopping.is_set():
            began = time.monotonic()
            await child.start(self._config)
            status = await child.run()
            if self._stopping.is_set():
                return
            reason = child.failure or HeadwaterError(
                f"{child.name} ended with status {status}",
                remedy="see what it wrote above this line",
            )
            if not self._started:
                if not self._failed.done():
                    self._failed.set_exception(reason)
                return
            pause = child.pause(time.monotonic() - began)
            log.error("%s; started again in %.1f s", reason, pause)
            await asyncio.sleep(pause)

    async def reload(self) -> None:
        """Read the file again. Accounts, tokens (the console's too, and its names) and the country
        file are in force within moments, the rest at the next start. A file that is wrong changes
        nothing and is reported."""
        try:
            fresh = load(self._path)
        except ConfigError as error:
            log.error("not reloaded, the old accounts stay in force:\n%s", error)
            return
        old = self._config
        later = [
            table
            for table in (
                "data",
                "collect",
                "browser",
                "console",
                "journal",
                "registry",
                "store",
                "log",
            )
            if _lasting(fresh, table) != _lasting(old, table)
        ]
        if later:
            log.warning("changed, but in force only after a restart: %s", ", ".join(later))
        self._config = msgspec.structs.replace(
            old,
            accounts=fresh.accounts,
            enrich=fresh.enrich,
            console=msgspec.structs.replace(fresh.console, listen=old.console.listen),
        )
        children = (*self._workers, *([self._hub] if self._hub else []))
        await asyncio.gather(
            *(
                child.send(self._config)
                for child in children
                if child.process is not None and child.process.returncode is None
            )
        )
        log.info("reloaded: %d accounts", len(fresh.accounts))

    async def _stop(self) -> None:
        self._stopping.set()
        began = time.monotonic()
        if self._collect is not None:
            self._collect.close()
            self._folder.collect_json.unlink(missing_ok=True)
        await self._end(self._workers, began + limits.drain_seconds_max)
        hub = [self._hub] if self._hub else []
        await self._end(hub, time.monotonic() + _HUB_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._console is not None:
            self._console.close()

    async def _end(self, children: list[_Child], deadline: float) -> None:
        """SIGTERM, then SIGKILL at the deadline."""
        running = [child for child in children if child.process is not None]
        for child in running:
            child.signal(signal.SIGTERM)
        waits = [asyncio.create_task(child.process.wait()) for child in running if child.process]
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=max(0.0, deadline - time.monotonic()))
        if late:
            log.error("killed after the deadline: %d process(es)", len(late))
            for child in running:
                child.signal(signal.SIGKILL)
            await asyncio.wait(late, timeout=2.0)


def run(path: Path, *, collectors: bool = True, hub: bool = True) -> int:
    """Run the supervisor until it is told to stop; the exit status.

    Raises HeadwaterError when it cannot start.
    """
    logs.configure(LogSettings(), "supervisor")

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    async def main() -> int:
        return await Supervisor(path, collectors=collectors, hub=hub).run(say)

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return asyncio.run(main())
