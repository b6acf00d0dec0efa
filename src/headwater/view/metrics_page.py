"""What `/metrics` says, in Prometheus' text format.

Two sources: the collectors' own counters, one label value a worker (a worker that starts again
begins at zero, which Prometheus takes for what it is), and the books, which come from journal and
store and outlive every process. All names begin with ``headwater_``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import headwater
from headwater.metrics import Snapshot

#: Columns of the accounting table; all but the last only grow.
BOOKS = ("received", "stored", "duplicate", "rejected", "in_flight")

_GAUGES = (
    ("connections_open", "connections", "Open connections, WebSockets among them."),
    ("websockets_open", "websockets", "Open WebSockets."),
    ("inflight_bytes", "inflight_bytes", "Bytes of requests that wait for their fsync."),
    ("ready", "collector_ready", "Whether a write would be durable now."),
)
_COUNTERS = (
    ("connections_opened", "connections_opened", "Connections accepted."),
    ("websocket_messages", "websocket_messages", "WebSocket messages received."),
    ("bytes_in", "bytes_in", "Bytes received."),
    ("deadlines", "deadlines", "Connections ended by a deadline."),
    ("decoder_errors", "decoder_errors", "Requests on which a decoder failed (a bug)."),
    ("journal_failures", "journal_failures", "Writes or fsyncs of the journal that failed."),
    ("groups", "acknowledge_groups", "Groups of acknowledgements that left together."),
)


def _of_collectors(workers: Mapping[int, Snapshot]) -> Iterable[Metric]:
    for field, name, text in _GAUGES:
        gauge = GaugeMetricFamily(f"headwater_{name}", text, labels=["worker"])
        for number, counted in workers.items():
            gauge.add_metric([str(number)], getattr(counted, field))
        yield gauge
    for field, name, text in _COUNTERS:
        counter = CounterMetricFamily(f"headwater_{name}", text, labels=["worker"])
        for number, counted in workers.items():
            counter.add_metric([str(number)], getattr(counted, field))
        yield counter
    seen = GaugeMetricFamily(
        "headwater_collector_seen_seconds",
        "When it last said all this, in Unix time.",
        labels=["worker"],
    )
    for number, counted in workers.items():
        seen.add_metric([str(number)], counted.at / 1_000_000)
    yield seen
    answers = CounterMetricFamily(
        "headwater_requests", "HTTP requests by answer.", labels=["worker", "dialect", "status"]
    )
    events = CounterMetricFamily(
        "headwater_events_acknowledged", "Events acknowledged.", labels=["worker", "dialect"]
    )
    opted_out = CounterMetricFamily(
        "headwater_opted_out",
        "Requests not kept because they ask not to be tracked.",
        labels=["worker", "dialect"],
    )
    refused = CounterMetricFamily(
        "headwater_turned_away", "Refused for want of room.", labels=["worker", "reason"]
    )
    latency = HistogramMetricFamily(
        "headwater_acknowledge_seconds",
        "From a request's arrival until it is durable.",
        labels=["worker"],
    )
    for number, counted in workers.items():
        worker = str(number)
        for dialect, classes in counted.statuses.items():
            for first_digit, count in enumerate(classes):
                if count:
                    answers.add_metric([worker, dialect, f"{first_digit}xx"], count)
        for dialect, count in counted.events.items():
            events.add_metric([worker, dialect], count)
        for dialect, count in counted.opted_out.items():
            opted_out.add_metric([worker, dialect], count)
        for reason, count in counted.refused.items():
            refused.add_metric([worker, reason], count)
        if counted.latency:
            buckets, total = [], 0
            for bound, count in zip(counted.latency_buckets, counted.latency, strict=False):
                total += count
                buckets.append((str(bound / 1_000_000), float(total)))
            buckets.append(("+Inf", float(sum(counted.latency))))
            latency.add_metric([worker], buckets, counted.latency_sum_microseconds / 1_000_000)
    yield from (answers, events, opted_out, refused, latency)


def _of_books(books: Sequence[Mapping[str, Any]]) -> Iterable[Metric]:
    for column in BOOKS:
        text = f"Events {column.replace('_', ' ')}, as in the table accounting."
        kind = GaugeMetricFamily if column == "in_flight" else CounterMetricFamily
        family = kind(f"headwater_events_{column}", text, labels=["account", "dialect"])
        for row in books:
            family.add_metric([str(row["account"]), str(row["dialect"])], float(row[column]))
        yield family


class Hub(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows of itself and of the data folder. `lag_seconds` is the age of the oldest
    request that is not loaded; `miscounted` are events by which what was journaled and what was
    loaded differ, since the start, and `damaged_stretches` of the journal that were passed over."""

    lag_seconds: float = 0.0
    journal_bytes: int = 0
    journal_bytes_max: int = 0
    disk_free_bytes: int = 0
    watchers: int = 0
    miscounted: int = 0
    damaged_stretches: int = 0
    store_errors: int = 0


def _of_hub(hub: Hub) -> Iterable[Metric]:
    for name, text, value in (
        ("loader_lag_seconds", "Age of the oldest request that is not loaded.", hub.lag_seconds),
        ("journal_bytes", "Bytes of the journal on disk, all workers.", hub.journal_bytes),
        ("journal_bytes_max", "Its bound.", hub.journal_bytes_max),
        ("disk_free_bytes", "What the data folder's disk has left for us.", hub.disk_free_bytes),
        ("live_watchers", "Readers of the live feed.", hub.watchers),
    ):
        yield GaugeMetricFamily(f"headwater_{name}", text, value=float(value))
    for name, text, value in (
        ("books_difference", "Events that journal and load counted apart.", hub.miscounted),
        ("journal_damaged", "Damaged stretches passed over.", hub.damaged_stretches),
        ("loader_errors", "Loads that failed and were tried again.", hub.store_errors),
    ):
        yield CounterMetricFamily(f"headwater_{name}", text, value=float(value))


class _Now(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def render(
    *, workers: Mapping[int, Snapshot], books: Sequence[Mapping[str, Any]] | None, hub: Hub
) -> bytes:
    """The page. `books` are rows of the accounting table, None when the store does not answer."""
    metrics = list(_of_collectors(workers))
    if books is not None:
        metrics += _of_books(books)
    metrics += _of_hub(hub)
    up = float(books is not None)
    metrics.append(
        GaugeMetricFamily("headwater_store_up", "Whether the store answered just now.", value=up)
    )
    build = GaugeMetricFamily("headwater_build_info", "The version.", labels=["version"])
    build.add_metric([headwater.__version__], 1.0)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Now([*metrics, build]))
    return generate_latest(registry)
