"""The hub process: the loader in a thread, the console on the event loop, one store between them.

Started by the supervisor as ``python -m headwater.hub DESCRIPTOR``, with the console's listening
socket inherited. It is the only process that opens the store; :class:`Parts` is what it is made of,
and what `query` and `replay` use by themselves when no hub runs.
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pyarrow
import uvicorn

from headwater import logs, metrics
from headwater.accept.accounts import Accounts
from headwater.app import url_of
from headwater.backup import Staged, stage
from headwater.backup import sweep as sweep_staged
from headwater.children import Line, Report
from headwater.clock import Clock, system_clock
from headwater.config import Config, LogSettings
from headwater.decode.dialects import DIALECTS
from headwater.erasing import Erasing, sweep_temporary
from headwater.errors import HeadwaterError
from headwater.folder import Folder, HubAddress, free_bytes
from headwater.folder_version import open_version
from headwater.identifying import Identifying
from headwater.journal.sqlite import SqliteEraser, SqliteReader
from headwater.live_rows import LiveRow
from headwater.loader import Loader
from headwater.people import People
from headwater.person_export import PersonExport
from headwater.replay import ReplayResult, one_at_a_time, replay
from headwater.resolve.enrichment import Enrichment
from headwater.resolve.sessions import DerivedSessions
from headwater.resolve.sqlite import SqliteRegistry
from headwater.resolve.sqlite_erasures import SqliteErasures
from headwater.resolve.sqlite_people import SqlitePeople
from headwater.resolve.sqlite_sessions import SqliteSessions
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from headwater.store.snapshot import freeze, release
from headwater.view.access import Access
from headwater.view.console import Console, ReplayOrder
from headwater.view.formats import to_json
from headwater.view.live import Feed
from headwater.view.metrics_page import Hub as HubFigures
from headwater.view.metrics_page import render

log = logging.getLogger("headwater.hub")

#: Of a SIGTERM's 30 seconds, what is left for loading the rest once the collectors have ended.
_LAST_LOAD_SECONDS = 3.0
_BOOKS = "SELECT account, dialect, received, stored, duplicate, rejected, in_flight FROM accounting"


class Parts:
    """Store, journal, registry and loader of one data folder, wired; at most one at a time."""

    def __init__(
        self,
        config: Config,
        folder: Folder,
        clock: Clock,
        *,
        on_rows: Callable[[Sequence[LiveRow]], None] | None = None,
    ) -> None:
        self._clock = clock
        self._config = config
        self._folder = folder
        self._accounts = self._judge(config)
        sweep_temporary(folder.tmp)
        sweep_staged(folder)
        release(folder.store)
        self.store = Store(f"chdb://{folder.store}", tmp=folder.tmp)
        self.reader = SqliteReader(folder.journal)
        self.registry = SqliteRegistry(folder.registry, clock)
        self.enrichment = Enrichment(folder.tmp)
        self.enrichment.use_country_file(config.enrich.country_file)
        people = SqlitePeople(folder.registry)
        stored = PeopleStore(self.store.writing())
        sessions = DerivedSessions(
            SqliteSessions(folder.registry), stored, idle_minutes=config.sessions.idle_minutes
        )
        self.identifying = Identifying(people, stored, sessions, self._shared)
        self.loader = Loader(
            reader=self.reader,
            dialects=DIALECTS,
            accounts=lambda: self._accounts,
            enrich=self.enrichment.enrich,
            seen=self.registry,
            identifying=self.identifying,
            store=self.store,
            clock=clock,
            retain_days=config.journal.retain_days,
            on_rows=on_rows,
        )

        self.erasures = SqliteErasures(folder.registry)
        self.erasing = Erasing(
            loader=self.loader,
            visitors=self.registry,
            erasures=self.erasures,
            eraser=SqliteEraser(folder.journal),
        )
        # Before anything is loaded: what has been received since is somebody new's.
        self.erasing.bury_begun()
        self.people = People(
            ask=self.store.ask,
            export=PersonExport(lambda: SqliteReader(folder.journal), self.loader.judge),
            withdraw=self._withdraw,
            allow=self._allow,
        )

    @classmethod
    @contextlib.contextmanager
    def alone(cls, config: Config, doing: str) -> Iterator[Parts]:
        """The parts without a hub: opened for one question, the folder locked meanwhile.

        Raises FolderInUse when a hub runs that does not answer, DataError.
        """
        folder = Folder(config.data)
        folder.make()
        lock = folder.lock("lock", doing)
        try:
            open_version(folder, held=("lock",))
            parts = cls(config, folder, system_clock)
            try:
                yield parts
            finally:
                parts.close()
        finally:
            os.close(lock)

    def _shared(self, account: str) -> frozenset[str]:
        found = self._config.accounts.get(account)
        return frozenset(found.shared_user_ids if found is not None else ())

    def _judge(self, config: Config) -> Accounts:
        return Accounts(config.accounts, public_host=config.collect.public_host, clock=self._clock)

    def reload(self, config: Config) -> None:
        """Put other accounts in force, and another country file."""
        self._config = config
        self._accounts = self._judge(config)
        self.enrichment.use_country_file(config.enrich.country_file)

    def query(self, sql: str, form: str) -> bytes:
        """A user's question, answered in one of the store's formats. Raises QueryRefused,
        StoreError."""
        if "accounting" in sql.lower():
            self.loader.refresh_in_flight()
        return self.store.query_bytes(sql, form)

    def books(self) -> list[dict[str, Any]]:
        """The accounting table, fresh. Raises StoreError."""
        self.loader.refresh_in_flight()
        found = self.store.query(_BOOKS)
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def replay(
        self, order: ReplayOrder, progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Decode journaled requests again. Raises StoreError, RegistryFailed."""

        def told(result: ReplayResult) -> None:
            progress(msgspec.structs.asdict(result))

        result = replay(
            self.loader,
            since=order.since,
            until=order.until,
            request_id=order.request_id.bytes if order.request_id else None,
            progress=told,
        )
        return msgspec.structs.asdict(result)

    def stage_backup(self) -> Staged:
        """Copy what only this process can copy. Raises StoreError, DataError."""
        writing = self.store.writing()
        ((engine,),) = writing.rows("SELECT version()")
        return stage(
            self._folder,
            alone=one_at_a_time,
            paused=self.loader.paused,
            freeze=lambda target: freeze(writing, self._folder.store, target),
            loaded=self.store.watermarks,
            engine=str(engine),
            clock=self._clock,
        )

    def erase(
        self, person: str, account: str, progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Erase a person; the receipt. Raises NotFound, StoreError, RegistryFailed, JournalFailed:
        what has begun is finished by itself."""
        return self.erasing.erase(UUID(person).bytes, account, progress)

    def _withdraw(self, account: str, first: bytes, second: bytes) -> None:
        with self.loader.paused():
            self.identifying.withdraw(first, second, at=self._clock())

    def _allow(self, account: str, first: bytes, second: bytes) -> None:
        with self.loader.paused():
            self.identifying.allow(first, second)

    def close(self) -> None:
        """Let go of store, journal and registry."""
        self.store.close()
        self.reader.close()
        self.registry.close()
        self.erasures.close()


class _Loading:
    """The loader's thread. One that ends by itself ends the hub: the supervisor starts another."""

    def __init__(self, loader: Loader, ended: Callable[[], None]) -> None:
        self._loader = loader
        self._ended = ended
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
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

        loading = _Loading(parts.loader, ended)
        console = Console(
            access=Access(
                token=self._folder.token(), hosts=self._config.console.hosts, clock=self._clock
            ),
            query=parts.query,
            replay=parts.replay,
            backup=lambda: msgspec.to_builtins(parts.stage_backup()),
            people=parts.people,
            erase=parts.erase,
            metrics=lambda: self._metrics(parts, feed),
            ready=lambda: "" if loading.alive else "the loader stands still",
            feed=feed,
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
        # What comes first costs a second that no event and no user should wait for: Arrow imports
        # pandas with its first array, ClickHouse sets up its session with the first question.
        pyarrow.array(["first"])
        parts.enrichment.prepare()
        parts.books()
        # After the store is open: chDB puts signal handlers of its own in place.
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loading.start()
        ending = threading.Event()
        threading.Thread(
            target=parts.erasing.run, args=(ending,), name="erasing", daemon=True
        ).start()
        self._line.follow(parts.reload)
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
        if not finished or parts.erasing.busy:
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
        counted = parts.loader.counters
        hub = HubFigures(
            lag_seconds=parts.loader.lag_seconds,
            journal_bytes=parts.reader.bytes_used(),
            journal_bytes_max=self._config.journal.max_bytes,
            disk_free_bytes=free_bytes(self._folder.root),
            watchers=feed.watchers,
            miscounted=counted.miscounted,
            damaged_stretches=counted.damaged_stretches,
            store_errors=counted.store_errors,
        )
        return render(workers=metrics.read(self._folder.metrics), books=books, hub=hub)


def main(arguments: list[str]) -> int:
    """The process; its exit status."""
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
