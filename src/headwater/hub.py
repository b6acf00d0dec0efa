"""The hub process: the loader in a thread, the console on the event loop, one store between them.

Started by the supervisor as ``python -m headwater.hub DESCRIPTOR``, with the console's listening
socket inherited. It is the only process that opens the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import uvicorn

from headwater import console_parts, logs, metrics
from headwater.app import url_of
from headwater.children import Line, Report
from headwater.clock import Clock, system_clock
from headwater.config import Config, LogSettings
from headwater.errors import HeadwaterError
from headwater.folder import Folder, HubAddress
from headwater.loader import Loader
from headwater.parts import Parts
from headwater.view.access import Access
from headwater.view.console import Console
from headwater.view.formats import to_json
from headwater.view.live import Feed
from headwater.view.metrics_page import Hub as HubFigures
from headwater.view.metrics_page import render

log = logging.getLogger("headwater.hub")

#: Of a SIGTERM's 30 seconds, what is left for loading the rest once the collectors have ended.
_LAST_LOAD_SECONDS = 3.0


class _Loading:
    """The loader's thread. One that ends by itself ends the hub: the supervisor starts another."""

    def __init__(
        self, loader: Loader, prepare: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self._loader = loader
        self._prepare = prepare
        self._ended = ended
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._prepare()
            self._loader.run(self._stop)
        except Exception:
            log.exception("the loader failed")
        if not self._stop.is_set():
            self._ended()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> bool:
        """Load what the collectors left, within a bound; what is not loaded waits in the journal
        for the next start. Whether the thread has ended."""
        deadline = time.monotonic() + _LAST_LOAD_SECONDS
        self._stop.set()
        self._thread.join(_LAST_LOAD_SECONDS)
        with contextlib.suppress(HeadwaterError):
            while not self._thread.is_alive() and time.monotonic() < deadline:
                if self._loader.step() == 0:
                    break
        return not self._thread.is_alive()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the hub has its own order of ending."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Hub:
    """One run of the hub."""

    def __init__(self, line: Line, listening: socket.socket, clock: Clock) -> None:
        self._line = line
        self._listening = listening
        self._clock = clock
        self._config = line.config
        self._folder = Folder(self._config.data)
        self._failed = False

    async def run(self) -> int:
        """Serve until SIGTERM; the exit status. Raises HeadwaterError when it cannot start."""
        loop = asyncio.get_running_loop()
        feed = Feed(loop, encode=to_json)
        parts = Parts(self._config, self._folder, self._clock, on_rows=feed.publish)
        stopping = asyncio.Event()

        def ended() -> None:
            self._failed = True
            loop.call_soon_threadsafe(stopping.set)

        loading = _Loading(parts.loader, parts.enrichment.prepare, ended)

        def ready() -> str:
            return "" if loading.alive else "the loader stands still"

        access = Access(
            token=self._folder.token(),
            hosts=self._config.console.hosts,
            tokens=console_parts.tokens(self._config),
            clock=self._clock,
        )
        watched = console_parts.watching(
            parts, self._folder, self._config, feed, ready, self._clock
        )
        console = Console(
            access=access,
            endpoints=console_parts.endpoints(parts, self._folder, watched, parts.erase),
            replay=parts.replay,
            backup=lambda: msgspec.to_builtins(parts.stage_backup()),
            metrics=lambda: self._metrics(parts, feed),
            ready=ready,
            feed=feed,
            accounts=lambda: sorted(self._config.accounts),
        )
        server = _Server(
            uvicorn.Config(
                console.app(),
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        # After the store is open: chDB puts signal handlers of its own in place.
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loading.start()
        ending = threading.Event()
        threading.Thread(
            target=parts.erasing.run, args=(ending,), name="erasing", daemon=True
        ).start()
        threading.Thread(target=watched.run, args=(ending,), name="health", daemon=True).start()
        threading.Thread(target=_ask_first, args=(parts,), name="first", daemon=True).start()

        def reload(config: Config) -> None:
            self._config = config
            parts.reload(config)
            access.use(hosts=config.console.hosts, tokens=console_parts.tokens(config))

        parts.profiling.start()
        self._line.follow(reload)
        serving = loop.create_task(server.serve([self._listening]))
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.01)
        self._folder.put_hub(HubAddress(console=url_of(self._listening), pid=os.getpid()))
        self._line.report(Report(ready=True))
        await asyncio.wait(
            {serving, loop.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        self._folder.hub_json.unlink(missing_ok=True)
        ending.set()
        finished = await asyncio.to_thread(loading.finish)
        server.should_exit = True
        await serving
        if not parts.profiling.stop() or not finished or parts.erasing.busy:
            # It is inside the store and may stay there: what it does is safe to cut off anywhere.
            log.warning("the last load, or an erasure, took too long; the next start goes on")
            os._exit(0)
        parts.close()
        return 1 if self._failed else 0

    def _metrics(self, parts: Parts, feed: Feed) -> bytes:
        try:
            books = parts.books()
        except HeadwaterError as error:
            log.warning("the books do not answer: %s", error)
            books = None
        now = console_parts.gauges(parts, self._folder, self._config, feed)
        hub = HubFigures(
            lag_seconds=now.lag_seconds,
            journal_bytes=now.journal_bytes,
            journal_bytes_max=now.journal_bytes_max,
            disk_free_bytes=now.disk_free_bytes,
            watchers=now.watchers,
            miscounted=now.miscounted,
            damaged_stretches=now.damaged_stretches,
            store_errors=now.store_errors,
        )
        return render(workers=metrics.read(self._folder.metrics), books=books, hub=hub)


def _ask_first(parts: Parts) -> None:
    """ClickHouse sets up its session with the first question, which takes 0.2 s: no user's."""
    with contextlib.suppress(HeadwaterError):
        parts.books()


class _WithoutPandas:
    """Arrow imports pandas with its first array, if it is there: 0.3 s and 40 MB for nothing.
    (None in ``sys.modules`` would do for Python's import, but not for Cython's.)"""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def main(arguments: list[str]) -> int:
    """The process; its exit status."""
    sys.meta_path.insert(0, _WithoutPandas())
    logs.configure(LogSettings(), "hub")
    line = Line()
    logs.configure(line.config.log, "hub")
    listening = socket.socket(fileno=int(arguments[0]))
    try:
        return asyncio.run(Hub(line, listening, system_clock).run())
    except HeadwaterError as error:
        line.report(Report(failed=f"hub: {error.message}", remedy=error.remedy))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
