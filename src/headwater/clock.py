"""Time, as an argument: what needs the time takes a Clock, so that a test can turn it."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Microseconds since 1970, UTC.
Clock = Callable[[], int]


def system_clock() -> int:
    """The machine's clock, in microseconds since 1970, UTC."""
    return time.time_ns() // 1_000
