"""Store, journal, registry and loader of one data folder, wired by hand.

What the hub is made of, and what `query`, `replay` and the rest open by themselves when no hub
runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import msgspec

from headwater.accept.accounts import Accounts
from headwater.backup import Staged, stage
from headwater.backup import sweep as sweep_staged
from headwater.clock import Clock, system_clock
from headwater.config import Config
from headwater.decode.dialects import DIALECTS
from headwater.erasing import Erasing, sweep_temporary
from headwater.folder import Folder
from headwater.folder_version import open_version
from headwater.identifying import Identifying
from headwater.journal.sqlite import SqliteEraser, SqliteReader
from headwater.journal_end import LoadedSegments
from headwater.live_rows import LiveRows
from headwater.loader import Loader
from headwater.people import People
from headwater.person_export import PersonExport
from headwater.profiling import Profiling
from headwater.replay import ReplayResult, one_at_a_time, replay
from headwater.resolve.enrichment import Enrichment
from headwater.resolve.sessions import DerivedSessions
from headwater.resolve.sqlite import SqliteRegistry
from headwater.resolve.sqlite_erasures import SqliteErasures
from headwater.resolve.sqlite_people import SqlitePeople
from headwater.resolve.sqlite_sessions import SqliteSessions
from headwater.resolve.tracking_plan import Plans
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from headwater.store.property_types import PropertyTypes
from headwater.store.snapshot import freeze, release
from headwater.view.console import ReplayOrder

_BOOKS = "SELECT account, dialect, received, stored, duplicate, rejected, in_flight FROM accounting"


class Parts:
    """Store, journal, registry and loader of one data folder, wired; at most one at a time."""

    def __init__(
        self,
        config: Config,
        folder: Folder,
        clock: Clock,
        *,
        on_rows: Callable[[LiveRows], None] | None = None,
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
        self.plans = Plans()
        self.plans.use(config.accounts)
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
            plan_of=self.plans.of,
            on_marks=LoadedSegments(folder).note,
        )
        self._beside = self.store.beside()
        self.profiling = Profiling(
            types=PropertyTypes(self._beside),
            pending=lambda: bool(self.reader.pending(self.loader.marks())),
            lag_seconds=lambda: self.loader.lag_seconds,
            clock=clock,
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
        """Put other accounts in force, their tracking plans, and another country file."""
        self._config = config
        self._accounts = self._judge(config)
        self.plans.use(config.accounts)
        self.enrichment.use_country_file(config.enrich.country_file)

    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    def admitting(self) -> Accounts:
        """The accounts in force, as the collectors judge by them."""
        return self._accounts

    def accounts(self) -> list[str]:
        """The configured accounts."""
        return sorted(self._config.accounts)

    def query(self, sql: str, form: str, accounts: frozenset[str] | None = None) -> bytes:
        """A user's question, answered in one of the store's formats; with `accounts`, the tables
        hold nothing of others. Raises QueryRefused, StoreError."""
        if "accounting" in sql.lower():
            self.loader.refresh_in_flight()
        return self.store.query_bytes(sql, form, accounts)

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
        self._beside.close()
        self.store.close()
        self.reader.close()
        self.registry.close()
        self.erasures.close()
