"""How it is doing: figures of the last hour, and what is wrong in words with what to do.

A thread of the hub takes a sample every few seconds and keeps an hour of them; the console asks for
the rest when somebody looks. The thresholds are those of the alerts in docs/operating.md.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import threading
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

import headwater
from headwater import limits
from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.metrics import Snapshot
from headwater.view.health import Figures, Finding, Health, Point

log = logging.getLogger("headwater.health")

OK, WARN, BAD = "ok", "warn", "bad"
#: As the alerts have them.
LAG_SECONDS_WARN, LAG_SECONDS_BAD = 10.0, 60.0
ACK_SECONDS_WARN = 0.1
SHARE_WARN, SHARE_BAD = 0.8, 0.95
#: A worker writes its counters once a second.
SILENT_SECONDS_BAD = 10.0
_LIBRARIES = ("chdb", "clickhouse-connect", "apsw", "uvloop", "httptools", "msgspec", "starlette")


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows of itself at one moment. Sizes in bytes."""

    lag_seconds: float
    journal_bytes: int
    journal_bytes_max: int
    disk_free_bytes: int
    disk_bytes: int
    loaded: int
    miscounted: int
    damaged_stretches: int
    store_errors: int
    watchers: int


class _Sample(msgspec.Struct, frozen=True):
    at: int
    acknowledged: int
    loaded: int
    lag_seconds: float
    latency: tuple[int, ...]
    turned_away: int


class Watching:
    """Samples, and judges. `gauges`, `workers` and `books` are asked from any thread; `books`
    raises HeadwaterError when the store does not answer."""

    def __init__(
        self,
        *,
        gauges: Callable[[], Gauges],
        workers: Callable[[], Mapping[int, Snapshot]],
        books: Callable[[], list[dict[str, Any]]],
        ready: Callable[[], str],
        engine: str,
        clock: Clock,
    ) -> None:
        self._gauges = gauges
        self._workers = workers
        self._books = books
        self._ready = ready
        self._clock = clock
        self._started = clock()
        self._samples: deque[_Sample] = deque(maxlen=limits.health_samples_max)
        self._versions = {
            "headwater": headwater.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            "clickhouse": engine,
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        }

    def run(self, stop: threading.Event) -> None:
        """Sample until told to stop; for a thread of its own."""
        while True:
            try:
                self._samples.append(self._sample(self._gauges(), self._workers()))
            except OSError as error:
                log.warning("no sample of the figures: %s", error)
            if stop.wait(limits.health_sample_seconds):
                return

    def _sample(self, gauges: Gauges, workers: Mapping[int, Snapshot]) -> _Sample:
        return _Sample(
            at=self._clock(),
            acknowledged=sum(sum(one.events.values()) for one in workers.values()),
            loaded=gauges.loaded,
            lag_seconds=gauges.lag_seconds,
            latency=tuple(
                sum(column)
                for column in zip(*(one.latency for one in workers.values()), strict=False)
            ),
            turned_away=sum(sum(one.refused.values()) for one in workers.values()),
        )

    def health(self) -> Health:
        """All of it, now."""
        gauges, workers = self._gauges(), self._workers()
        now = self._clock()
        bounds = next((one.latency_buckets for one in workers.values()), [])
        samples = [*self._samples, self._sample(gauges, workers)]
        points = [
            Point(
                at=now_.at,
                acknowledged=_rate(before.acknowledged, now_.acknowledged, before, now_),
                loaded=_rate(before.loaded, now_.loaded, before, now_),
                lag_seconds=now_.lag_seconds,
                acknowledge_p99_seconds=_quantile(before.latency, now_.latency, bounds, 0.99),
            )
            for before, now_ in pairwise(samples)
            if now_.at > before.at
        ]
        try:
            books: list[dict[str, Any]] | None = self._books()
        except HeadwaterError as error:
            log.warning("the books do not answer: %s", error)
            books = None
        recent = [one for one in points if now - one.at <= 60_000_000]
        last = samples[-1]
        early = next((one for one in samples if last.at - one.at <= 60_000_000), last)
        return Health(
            at=now,
            findings=sorted(
                self._findings(
                    gauges, workers, books, recent, last.turned_away - early.turned_away
                ),
                key=lambda one: (BAD, WARN, OK).index(one.state),
            ),
            figures=Figures(
                up_seconds=(now - self._started) / 1e6,
                acknowledged_a_second=_mean([one.acknowledged for one in recent]),
                loaded_a_second=_mean([one.loaded for one in recent]),
                lag_seconds=gauges.lag_seconds,
                acknowledge_p50_seconds=_quantile(early.latency, last.latency, bounds, 0.5),
                acknowledge_p99_seconds=_quantile(early.latency, last.latency, bounds, 0.99),
                journal_bytes=gauges.journal_bytes,
                journal_bytes_max=gauges.journal_bytes_max,
                disk_free_bytes=gauges.disk_free_bytes,
                disk_bytes=gauges.disk_bytes,
                connections=sum(one.connections_open for one in workers.values()),
                websockets=sum(one.websockets_open for one in workers.values()),
                workers=len(workers),
                watchers=gauges.watchers,
            ),
            points=points,
            versions=self._versions,
        )

    def _findings(
        self,
        gauges: Gauges,
        workers: Mapping[int, Snapshot],
        books: list[dict[str, Any]] | None,
        recent: list[Point],
        turned_away: int,
    ) -> list[Finding]:
        return [
            self._readiness(),
            *(self._worker(number, one) for number, one in sorted(workers.items())),
            _lag(gauges),
            _latency(recent),
            _room(
                "journal",
                gauges.journal_bytes,
                gauges.journal_bytes_max,
                "raise journal.max_bytes, or see why the store is behind",
            ),
            _room(
                "disk",
                gauges.disk_bytes - gauges.disk_free_bytes,
                gauges.disk_bytes,
                "make room: without it the journal stops and requests are answered 503",
            ),
            _books_close(books),
            _losses(gauges),
            Finding("store", OK, "no insert has failed since the start")
            if not gauges.store_errors
            else Finding(
                "store",
                WARN,
                f"{gauges.store_errors} inserts have failed and were tried again",
                "look in the log for what the store said",
            ),
            Finding("room", OK, "no request was refused for want of room in the last minute")
            if turned_away <= 0
            else Finding(
                "room",
                BAD,
                f"{turned_away:,} requests were refused for want of room in the last minute",
                "see docs/operating.md, what a full or failing collector answers",
            ),
        ]

    def _readiness(self) -> Finding:
        reason = self._ready()
        if reason:
            return Finding("loader", BAD, reason, "look in the log for why; it is started again")
        return Finding("loader", OK, "the loader runs")

    def _worker(self, number: int, counted: Snapshot) -> Finding:
        silent = (self._clock() - counted.at) / 1e6
        name = f"collector {number}"
        if silent > SILENT_SECONDS_BAD:
            return Finding(
                name, BAD, f"has said nothing for {silent:.0f} s", "look in the log for its end"
            )
        if not counted.ready:
            return Finding(
                name,
                BAD,
                "is not ready: what it writes would not be durable",
                "see the disk and the journal below; it goes on by itself",
            )
        if counted.journal_failures:
            return Finding(
                name,
                WARN,
                f"{counted.journal_failures} writes of its journal have failed since its start",
                "run headwater doctor; look at the disk",
            )
        return Finding(name, OK, "writes durably")


def _rate(before: int, after: int, first: _Sample, last: _Sample) -> float:
    # A process that starts again counts from zero.
    grown = after - before if after >= before else after
    return max(0.0, grown / ((last.at - first.at) / 1e6))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _quantile(
    before: tuple[int, ...], after: tuple[int, ...], bounds: list[int], share: float
) -> float | None:
    """In seconds, the upper end of the bucket; None when there was no request."""
    if len(before) != len(after) or any(a < b for a, b in zip(after, before, strict=True)):
        before = (0,) * len(after)
    grown = [a - b for a, b in zip(after, before, strict=True)]
    wanted, seen = share * sum(grown), 0
    if not sum(grown):
        return None
    for place, count in enumerate(grown):
        seen += count
        if seen >= wanted:
            return (bounds[place] if place < len(bounds) else 2 * bounds[-1]) / 1e6
    return None


def _lag(gauges: Gauges) -> Finding:
    lag = gauges.lag_seconds
    if lag < LAG_SECONDS_WARN:
        return Finding("lag", OK, f"the oldest event that is not loaded is {lag:.1f} s old")
    return Finding(
        "lag",
        BAD if lag >= LAG_SECONDS_BAD else WARN,
        f"the oldest event that is not loaded is {lag:.0f} s old",
        "nothing is lost: it waits in the journal. A heavy query, a replay or an erasure may be "
        "running; if it grows for long, the store is too slow for what comes in",
    )


def _latency(recent: list[Point]) -> Finding:
    seen = [
        one.acknowledge_p99_seconds for one in recent if one.acknowledge_p99_seconds is not None
    ]
    if not seen:
        return Finding("acknowledgement", OK, "no request in the last minute")
    worst = max(seen)
    said = f"99 of 100 requests were durable within {worst * 1e3:.0f} ms"
    if worst < ACK_SECONDS_WARN:
        return Finding("acknowledgement", OK, said)
    return Finding(
        "acknowledgement",
        WARN,
        said,
        "the disk is slow to sync, or the machine is short of time: run headwater doctor",
    )


def _room(name: str, used: int, most: int, remedy: str) -> Finding:
    share = used / most if most else 0.0
    said = f"{share:.0%} of {most / 2**30:.1f} GiB is used"
    if share < SHARE_WARN:
        return Finding(name, OK, said)
    return Finding(name, BAD if share >= SHARE_BAD else WARN, said, remedy)


def _books_close(books: list[dict[str, Any]] | None) -> Finding:
    if books is None:
        return Finding("books", BAD, "the store does not answer", "look in the log for why")
    for row in books:
        told = row["stored"] + row["duplicate"] + row["rejected"] + row["in_flight"]
        if told != row["received"]:
            return Finding(
                "books",
                BAD,
                f"{row['account']}, {row['dialect']}: {row['received']} received, {told} told of",
                "this is a bug: keep the data folder and report it",
            )
    return Finding("books", OK, "received = stored + duplicate + rejected + in flight, everywhere")


def _losses(gauges: Gauges) -> Finding:
    if gauges.damaged_stretches:
        return Finding(
            "losses",
            BAD,
            f"{gauges.damaged_stretches} damaged stretches of the journal were skipped",
            "see docs/operating.md, when the journal is damaged",
        )
    if gauges.miscounted:
        return Finding(
            "losses",
            BAD,
            f"journal and load differ by {gauges.miscounted} events since the start",
            "this is a bug: keep the data folder and report it",
        )
    return Finding(
        "losses",
        OK,
        "every load since the start found as many events as the journal had counted",
    )
