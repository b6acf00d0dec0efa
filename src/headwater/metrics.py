"""A collector process's counters on their way to the hub, which shows them.

The hot path adds to plain integers (``accept/counters.py``): prometheus-client's own multi-process
values cost microseconds each, a good part of a request. Once a second a worker writes what it has
counted into a small file of the data folder, whole or not at all; the hub reads those files when
it is asked for `/metrics`. A worker that is killed loses at most the last second of these figures,
never an event: the books (received, stored …) come from journal and store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec


class Snapshot(msgspec.Struct, kw_only=True):
    """What one collector process had counted; the names are those of accept's Counters."""

    pid: int = 0
    at: int = 0
    ready: bool = True
    journal_failures: int = 0
    latency_buckets: list[int] = []
    statuses: dict[str, list[int]] = {}
    events: dict[str, int] = {}
    opted_out: dict[str, int] = {}
    refused: dict[str, int] = {}
    connections_opened: int = 0
    connections_open: int = 0
    websockets_open: int = 0
    websocket_messages: int = 0
    bytes_in: int = 0
    inflight_bytes: int = 0
    deadlines: int = 0
    decoder_errors: int = 0
    groups: int = 0
    latency: list[int] = []
    latency_sum_microseconds: int = 0


class State(msgspec.Struct, frozen=True):
    """A worker now, `at` in microseconds: whether a write would be durable, and how many of its
    journal's writes and fsyncs have failed."""

    at: int = 0
    ready: bool = True
    journal_failures: int = 0


def snapshot(counters: object, *, latency_buckets: Sequence[int], state: State) -> Snapshot:
    """Copy what a Counters object holds. `latency_buckets` are upper ends in microseconds."""
    now = msgspec.structs.asdict(state)
    counted: dict[str, Any] = {
        name: getattr(counters, name)
        for name in Snapshot.__struct_fields__
        if name not in now and name not in ("pid", "latency_buckets")
    }
    return Snapshot(pid=os.getpid(), latency_buckets=list(latency_buckets), **now, **counted)


def write(counted: Snapshot, folder: Path, worker: int) -> None:
    """Put a worker's counters where the hub finds them, atomically. Raises OSError."""
    target = folder / f"w{worker}.json"
    fresh = target.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(counted))
    os.replace(fresh, target)


def read(folder: Path) -> dict[int, Snapshot]:
    """All workers' counters by worker number; what cannot be read is left out."""
    found: dict[int, Snapshot] = {}
    for path in sorted(folder.glob("w*.json")):
        try:
            found[int(path.stem[1:])] = msgspec.json.decode(path.read_bytes(), type=Snapshot)
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            continue
    return found


def clear(folder: Path) -> None:
    """Forget the counters of an earlier run, which may have had more workers."""
    for path in folder.glob("w*.json"):
        path.unlink(missing_ok=True)
