"""Rate limit per client address: a token bucket each, counted in events.

A bucket holds two seconds' worth. A request is let in while its client's bucket is not empty and
is charged afterwards, when its number of events is known; a large batch therefore passes and
leaves a debt that the client waits for. (Refusing it would make a client that re-sends its whole
queue, as Nucleus' clients do, send it for ever.)

Memory is bounded: of more clients than `buckets_max` the one seen longest ago is forgotten, which
can only be to its advantage.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from math import ceil

from headwater import limits


@lru_cache(maxsize=4_096)
def client_key(peer: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64 (one subscriber's network)."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return peer


class RateLimiter:
    """Buckets of `events_per_second`; times are in seconds of any steady clock."""

    def __init__(
        self,
        events_per_second: int,
        *,
        burst_seconds: float = limits.rate_burst_seconds,
        buckets_max: int = limits.rate_buckets_max,
    ) -> None:
        self._rate = float(events_per_second)
        self._burst = max(1.0, events_per_second * burst_seconds)
        self._buckets_max = buckets_max
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> (events left, as of)

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, key: str, now: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)

    def wait_seconds(self, peer: str, now: float) -> int:
        """0 when a request from `peer` may pass, else whole seconds until one may."""
        level = self._level(client_key(peer), now)
        return 0 if level >= 1.0 else max(1, ceil((1.0 - level) / self._rate))

    def charge(self, peer: str, events: int, now: float) -> None:
        """Take `events` (at least one) from the bucket of `peer`."""
        key = client_key(peer)
        level = self._level(key, now) - max(1, events)
        self._buckets.pop(key, None)  # to the end: the first one is the one unused for longest
        self._buckets[key] = (level, now)
        if len(self._buckets) > self._buckets_max:
            del self._buckets[next(iter(self._buckets))]
