"""What the collector counts: plain integers that the metrics page reads.

Counting costs an integer addition; nothing here allocates per request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

#: Upper ends of the acknowledgement-latency buckets, in microseconds; one more holds the rest.
LATENCY_BUCKETS_MICROSECONDS = (
    500,
    1_000,
    2_000,
    3_000,
    5_000,
    7_500,
    10_000,
    15_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
)


class Counters:
    """One collector process's counts since its start.

    `statuses[dialect][n]` are HTTP answers of the class n00; "" is the dialect of what never
    reached one. `events` counts events of kept requests once they are durable, by dialect.
    `opted_out` counts requests that were answered and not kept, because they ask not to be tracked.
    `refused` counts what was turned away for want of room, by reason; `groups` the groups of
    acknowledgements that went out together. `latency` has a count for each of
    LATENCY_BUCKETS_MICROSECONDS and one for the rest: from a request's last byte to its fsync.
    """

    def __init__(self, dialects: Sequence[str] = ()) -> None:
        self.statuses: dict[str, list[int]] = {name: [0] * 6 for name in ("", *dialects)}
        self.events: dict[str, int] = dict.fromkeys(dialects, 0)
        self.opted_out: dict[str, int] = dict.fromkeys(dialects, 0)
        self.refused: dict[str, int] = {
            "connections": 0,
            "inflight_bytes": 0,
            "journal": 0,
            "rate_limit": 0,
            "registry": 0,
        }
        self.connections_opened = 0
        self.connections_open = 0
        self.websockets_open = 0
        self.websocket_messages = 0
        self.bytes_in = 0
        self.inflight_bytes = 0
        self.deadlines = 0
        self.decoder_errors = 0
        self.groups = 0
        self.latency = [0] * (len(LATENCY_BUCKETS_MICROSECONDS) + 1)
        self.latency_sum_microseconds = 0

    def acknowledged(self, dialect: str, events: int, microseconds: int) -> None:
        """Count one request that became durable so long after its arrival."""
        self.events[dialect] += events
        self.latency[bisect_left(LATENCY_BUCKETS_MICROSECONDS, microseconds)] += 1
        self.latency_sum_microseconds += microseconds
