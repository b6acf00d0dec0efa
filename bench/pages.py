"""How long the console's pages wait for the store: `python -m bench.pages`.

A store of ten million events is made (some five minutes), and each page's questions are asked as
the pages ask them: by the wall clock and by the processor, what they read, and what the process
grew by meanwhile. bench/README.md is the method.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.cores import machine
from bench.pages_store import BEGAN, DAYS, fill
from bench.scratch import scratch
from headwater.people import People
from headwater.store.clickhouse import Store
from headwater.store.questions import errors, explore, funnel, quality, retention
from headwater.store.questions import people as of_people
from headwater.store.questions.filters import Filter, Period

EVENTS = 10_000_000
SECONDS_MAX = 1.0
_QUIET_SECONDS_MAX = 600.0

_SINCE = datetime.fromtimestamp(BEGAN, UTC)
_ALL = Period(_SINCE, _SINCE + timedelta(days=DAYS))
_DAY = Period(_ALL.until - timedelta(days=1), _ALL.until)
_WEEK = Period(_ALL.until - timedelta(days=7), _ALL.until)
_STEPS = tuple(funnel.Step(name) for name in ("pageview", "product", "addtocart"))

Ask = Callable[[], object]


class Measured(msgspec.Struct, frozen=True):
    """One question: medians of its rounds, and the fastest of them."""

    wall_seconds: float
    best_seconds: float
    cpu_seconds: float
    rows_read: int
    grown_bytes: int


def of_pages(store: Store, person: str, event: str) -> dict[str, Ask]:
    """What each page asks: title to question."""
    people, sessions = explore.Measure("people"), explore.Measure("sessions")

    def sql(text: str) -> Ask:
        return lambda: store.query_bytes(text, "JSONCompactEachRowWithNamesAndTypes")

    def over(period: Period, **given: Any) -> Ask:
        return sql(explore.over_time(msgspec.structs.replace(_explore(period), **given)))

    def top(period: Period, by: str, **given: Any) -> Ask:
        return sql(explore.top(explore.Top(period=period, by=by, **given)))

    known = People(
        ask=store.ask,
        export=lambda *_: iter(()),
        withdraw=lambda *_: None,
        allow=lambda *_: None,
    )
    named = (Filter("name", "is", ("pageview",)),)
    about = of_people.about(person)
    return {
        "explore: events by day": over(_ALL),
        "explore: events by day and dialect": over(_ALL, by="dialect"),
        "explore: events by day and name, the 8 largest": over(_ALL, by="name"),
        "explore: people by day": over(_ALL, measure=people),
        "explore: people, in all": sql(explore.total(_explore(_ALL, "people"))),
        "explore: sessions by day": over(_ALL, measure=sessions),
        "explore: people by hour, the last day": over(_DAY, measure=people),
        "explore: one name by a property": over(_ALL, filters=named, by="properties.product"),
        "explore: people with one name by day": over(_ALL, filters=named, measure=people),
        "explore: top names": top(_ALL, "name"),
        "explore: top pages, 7 days": top(_WEEK, "page", set_only=True),
        "explore: top pages": top(_ALL, "page", set_only=True),
        "explore: top countries, 7 days": top(_WEEK, "country", set_only=True),
        "explore: top countries": top(_ALL, "country", set_only=True),
        "funnel of 3 names": sql(funnel.funnel(funnel.Funnel(period=_ALL, steps=_STEPS))),
        "retention by week": sql(retention.retention(retention.Retention(period=_ALL))),
        "errors: groups": sql(errors.errors(errors.Errors(period=_ALL))),
        "quality: names, first, last": sql(quality.names("", 0)),
        "quality: rejected by reason": sql(quality.reasons("", 0)),
        "quality: rejected over time": sql(quality.rejected_over_time("", 0)),
        "quality: the books": sql(quality.books("")),
        "live: the newest 100": sql("SELECT * FROM events ORDER BY received_at DESC LIMIT 100"),
        "event: by its id": sql(f"SELECT * FROM events WHERE event_id = '{event}'"),
        "people: who acted last": known.newest,
        "people: find": lambda: known.find("u1234"),
        "people: find an event's id": lambda: known.find(event),
        "people: merges": known.merges,
        "person: all of one": lambda: known.show(person),
        "person: with history": lambda: known.show(person, history=True),
        "person: a page of the timeline": lambda: known.timeline(person),
        "SQL of it: people, the newest 50": sql(of_people.newest()),
        "SQL of it: one person": sql(about["person"]),
        "SQL of it: its timeline": sql(of_people.timeline(person)),
        "SQL of it: its identities": sql(about["identities"]),
        "SQL of it: its sessions": sql(about["sessions"]),
        "SQL: sessions by day and dialect, all": sql(
            "SELECT toDate(started_at) AS day, dialect, count() FROM sessions GROUP BY ALL"
        ),
        "SQL: one session": sql(
            "SELECT * FROM sessions "
            "WHERE session_id = (SELECT session_id FROM events WHERE event_id "
            f"= '{event}')"
        ),
    }


def _explore(period: Period, measure: str = "events") -> explore.Explore:
    return explore.Explore(period=period, measure=explore.Measure(measure))


def measure(store: Store, ask: Ask, rounds: int) -> Measured:
    """The median of some rounds, after one that is not counted. Raises QueryRefused."""
    ask()
    walls, cpus, grown = [], [], 0
    before = _rows_read(store)
    for _ in range(rounds):
        held = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        began, used = time.perf_counter(), time.process_time()
        ask()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - used)
        grown = max(grown, _resident("VmHWM") - held)
    return Measured(
        statistics.median(walls),
        min(walls),
        statistics.median(cpus),
        (_rows_read(store) - before) // rounds,
        grown,
    )


def _rows_read(store: Store) -> int:
    sql = "SELECT sum(value) FROM system.events WHERE event = 'SelectedRows'"
    return int(store.writing().rows(sql)[0][0])


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1_024


@contextmanager
def _opened(folder: Path, events: int, console: Console) -> Iterator[Store]:
    """The store in `folder`, made if it is not there."""
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
    try:
        rows = store.writing().rows("SELECT count() FROM headwater_store.events_rows")[0][0]
        if not rows:
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task(f"making {events:,} events", total=events)
                fill(store.writing(), events, lambda done: progress.update(task, completed=done))
        _until_quiet(store)
        yield store
    finally:
        store.close()


def _until_quiet(store: Store) -> None:
    """Until nothing is merged or mutated any more."""
    busy = (
        "SELECT (SELECT count() FROM system.merges) + "
        "(SELECT count() FROM system.mutations WHERE NOT is_done)"
    )
    until = time.monotonic() + _QUIET_SECONDS_MAX
    while store.writing().rows(busy)[0][0] and time.monotonic() < until:
        time.sleep(0.2)


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    said.add_argument("--events", type=int, default=EVENTS)
    said.add_argument("--rounds", type=int, default=5, help="of each question")
    said.add_argument("--only", default="", help="questions whose title has this text")
    said.add_argument("--folder", type=Path, help="keep the store there, or take it from there")
    said.add_argument("--smoke", action="store_true", help="few events: does it run at all?")
    given = said.parse_args()
    events, rounds = (20_000, 1) if given.smoke else (given.events, given.rounds)
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"questions of the pages to {events:,} events: {machine()}")
    for head in ("question", "p50 ms", "best ms", "CPU ms", "rows read", "grown MB"):
        table.add_column(head, justify="left" if head == "question" else "right")
    slow = []
    place = nullcontext(given.folder) if given.folder else scratch()
    with place as folder, _opened(folder, events, console) as store:
        ((person, event),) = store.writing().rows(
            "SELECT person, event_id FROM headwater_store.events_rows "
            f"WHERE event_id = reinterpretAsUUID(MD5('e{events // 2}'))"
        )
        for title, ask in of_pages(store, str(person), str(event)).items():
            if given.only not in title:
                continue
            try:
                found = measure(store, ask, rounds)
            except Exception as error:
                table.add_row(title, "refused", "", "", "", str(error)[:40])
                slow.append(title)
                continue
            table.add_row(
                title,
                f"{found.wall_seconds * 1e3:,.0f}",
                f"{found.best_seconds * 1e3:,.0f}",
                f"{found.cpu_seconds * 1e3:,.0f}",
                f"{found.rows_read:,}",
                f"{found.grown_bytes / 1e6:,.0f}",
            )
            if found.wall_seconds > SECONDS_MAX:
                slow.append(title)
    console.print(table)
    load = os.getloadavg()[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    console.print(f"the process at its largest: {peak:,.0f} MB; load of the machine: {load:.1f}")
    console.print(f"over {SECONDS_MAX:g} s: {', '.join(slow) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
