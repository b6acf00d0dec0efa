"""How it is doing, for the page and for whoever watches from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from headwater.view.api import Asked, Endpoint


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `state` is ok, warn or bad; `remedy` says what to do."""

    what: str
    state: str
    says: str
    remedy: str = ""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the last hour: `at` in microseconds since 1970, events a second, seconds."""

    at: int
    acknowledged: float
    loaded: float
    lag_seconds: float
    acknowledge_p99_seconds: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Now, or over the last minute. Sizes in bytes."""

    up_seconds: float
    acknowledged_a_second: float
    loaded_a_second: float
    lag_seconds: float
    acknowledge_p50_seconds: float | None
    acknowledge_p99_seconds: float | None
    journal_bytes: int
    journal_bytes_max: int
    disk_free_bytes: int
    disk_bytes: int
    connections: int
    websockets: int
    workers: int
    watchers: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; what is worst comes first. `at` is in microseconds since 1970."""

    at: int
    findings: list[Finding]
    figures: Figures
    points: list[Point]
    versions: Mapping[str, str]


def endpoints(health: Callable[[], Health]) -> list[Endpoint]:
    """For the console's API."""

    def show(asked: Asked) -> Health:
        return health()

    return [
        Endpoint(
            method="GET",
            path="/api/health",
            summary="What is wrong in words with the remedy, and the figures of the last hour.",
            answer=Health,
            handle=show,
        )
    ]
