"""The metrics page: what a Prometheus server reads from it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from headwater import metrics
from headwater.accept.counters import LATENCY_BUCKETS_MICROSECONDS, Counters
from headwater.view.metrics_page import Hub, render

STATE = metrics.State(at=5_000_000, ready=False, journal_failures=2)
BOOKS = [
    {
        "account": "acme",
        "dialect": "vaix",
        "received": 10,
        "stored": 6,
        "duplicate": 1,
        "rejected": 2,
        "in_flight": 1,
    }
]


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def counted() -> Counters:
    counters = Counters(["vaix"])
    counters.statuses["vaix"][2] = 7
    counters.refused["journal"] = 3
    counters.connections_open = 4
    counters.acknowledged("vaix", 4, 800)
    counters.acknowledged("vaix", 5, 10_000_000)
    return counters


def test_counters_reach_the_page_through_the_folder(tmp_path: Path) -> None:
    snapshot = metrics.snapshot(
        counted(), latency_buckets=LATENCY_BUCKETS_MICROSECONDS, state=STATE
    )
    metrics.write(snapshot, tmp_path, 1)
    hub = Hub(lag_seconds=0.5, journal_bytes=42, journal_bytes_max=84, miscounted=3)
    page = render(workers=metrics.read(tmp_path), books=BOOKS, hub=hub)
    found = samples(page)
    worker = ("worker", "1")
    vaix = ("dialect", "vaix")
    assert found["headwater_requests_total", (vaix, ("status", "2xx"), worker)] == 7
    assert found["headwater_events_acknowledged_total", (vaix, worker)] == 9
    assert found["headwater_turned_away_total", (("reason", "journal"), worker)] == 3
    assert found["headwater_connections", (worker,)] == 4
    buckets = {
        labels[0][1]: value
        for (name, labels), value in found.items()
        if name == "headwater_acknowledge_seconds_bucket"
    }
    assert buckets["0.0005"] == 0
    assert buckets["0.001"] == 1
    assert buckets["+Inf"] == 2
    assert found["headwater_loader_lag_seconds", ()] == 0.5
    assert found["headwater_journal_bytes", ()] == 42
    assert found["headwater_journal_bytes_max", ()] == 84
    assert found["headwater_books_difference_total", ()] == 3
    assert found["headwater_collector_ready", (worker,)] == 0
    assert found["headwater_collector_seen_seconds", (worker,)] == 5
    assert found["headwater_journal_failures_total", (worker,)] == 2


def test_the_books_close_on_the_page_as_in_the_table() -> None:
    page = render(workers={}, books=BOOKS, hub=Hub())
    found = samples(page)
    key = (("account", "acme"), ("dialect", "vaix"))
    received = found["headwater_events_received_total", key]
    parts = [
        found["headwater_events_stored_total", key],
        found["headwater_events_duplicate_total", key],
        found["headwater_events_rejected_total", key],
        found["headwater_events_in_flight", key],
    ]
    assert received == sum(parts) == 10
    assert found["headwater_store_up", ()] == 1


def test_a_store_that_does_not_answer_is_a_zero_and_no_missing_page() -> None:
    page = render(workers={}, books=None, hub=Hub(lag_seconds=9))
    found = samples(page)
    assert found["headwater_store_up", ()] == 0
    assert not any(name.startswith("headwater_events_") for name, _ in found)


def test_a_torn_file_of_counters_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "w0.json").write_bytes(b'{"pid": 1, "even')
    (tmp_path / "wx.json").write_bytes(b"{}")
    assert metrics.read(tmp_path) == {}


def test_counters_of_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    metrics.write(metrics.Snapshot(connections_open=1), tmp_path, 3)
    metrics.clear(tmp_path)
    assert metrics.read(tmp_path) == {}
