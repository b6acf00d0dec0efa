"""What the console shows, wired by hand: each feature's endpoints with what they ask.

``view`` knows nothing of what stands behind; the hub asks here once, at its start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headwater import metrics
from headwater.clock import Clock, system_clock
from headwater.config import Config
from headwater.decode.dialects import DIALECTS
from headwater.folder import Folder, free_bytes
from headwater.health import Gauges, Watching
from headwater.inspecting import Inspecting
from headwater.journal.sqlite import SqliteReader
from headwater.parts import Parts
from headwater.try_sending import reachable
from headwater.trying import Trying
from headwater.view import health, inspect
from headwater.view import trying as view_trying
from headwater.view.access import ConsoleToken, Who
from headwater.view.api import Answer, Ask, Endpoint
from headwater.view.explore import Explore
from headwater.view.formats import FORMATS
from headwater.view.live import Feed
from headwater.view.people import Erase, PeopleRoutes
from headwater.view.quality import Quality
from headwater.view.sql import SqlRoutes


def tokens(config: Config) -> list[ConsoleToken]:
    """The console's tokens from the configuration."""
    return [
        ConsoleToken(
            bytes.fromhex(one.hash.removeprefix("sha256:")),
            Who(
                name,
                admin=one.scope == "admin",
                accounts=None if one.accounts is None else frozenset(one.accounts),
            ),
        )
        for name, one in config.console.tokens.items()
    ]


def asking(parts: Parts) -> Ask:
    """Questions to the store on somebody's behalf, by pages."""
    form = FORMATS["json"]

    def ask(sql: str, who: Who) -> Answer:
        text = form.render(parts.query(sql, form.form, who.accounts))
        found = msgspec.json.decode(text, type=dict[str, list[Any]])
        return Answer(columns=found["columns"], types=found["types"], rows=found["rows"], sql=sql)

    return ask


def gauges(parts: Parts, folder: Folder, config: Config, feed: Feed) -> Gauges:
    """What the hub knows of itself now."""
    counted = parts.loader.counters
    disk = os.statvfs(folder.root)
    return Gauges(
        lag_seconds=parts.loader.lag_seconds,
        journal_bytes=parts.reader.bytes_used(),
        journal_bytes_max=config.journal.max_bytes,
        disk_free_bytes=free_bytes(folder.root),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        loaded=counted.events,
        miscounted=counted.miscounted,
        damaged_stretches=counted.damaged_stretches,
        store_errors=counted.store_errors,
        watchers=feed.watchers,
    )


def watching(
    parts: Parts, folder: Folder, config: Config, feed: Feed, ready: Callable[[], str], clock: Clock
) -> Watching:
    """Who watches the figures."""

    def workers() -> Mapping[int, metrics.Snapshot]:
        return metrics.read(folder.metrics)

    return Watching(
        gauges=lambda: gauges(parts, folder, config, feed),
        workers=workers,
        books=parts.books,
        ready=ready,
        engine=parts.store.engine(),
        clock=clock,
    )


def endpoints(parts: Parts, folder: Folder, watched: Watching, erase: Erase) -> list[Endpoint]:
    """Of every feature."""
    sql = SqlRoutes(
        query=lambda text, form, who: parts.query(text, form, who.accounts),
        tables=parts.store.tables,
        folder=folder.queries,
    )
    people = PeopleRoutes(parts.people, erase)
    quality = Quality(
        asking(parts),
        plan_of=parts.plans.text,
        accounts=parts.accounts,
        difference=lambda: parts.loader.counters.miscounted,
    )
    explore = Explore(asking(parts), clock=system_clock)
    inspecting = Inspecting(
        open_reader=lambda: SqliteReader(folder.journal),
        dialects=DIALECTS,
        judge=parts.loader.judge,
        ask=parts.store.ask,
        marks=parts.loader.marks,
    )
    trying = Trying(
        config=parts.config,
        accounts=parts.admitting,
        dialects=DIALECTS,
        inspecting=inspecting,
        judge=parts.loader.judge,
        ask=parts.store.ask,
        find=parts.people.find,
        open_reader=lambda: SqliteReader(folder.journal),
        marks=parts.loader.marks,
        collector=lambda: reachable(folder.collector()),
        clock=system_clock,
    )
    return [
        *sql.endpoints(),
        *people.endpoints(),
        *inspect.endpoints(inspecting),
        *view_trying.endpoints(trying),
        *health.endpoints(watched.health),
        *quality.endpoints(),
        *explore.endpoints(),
    ]
