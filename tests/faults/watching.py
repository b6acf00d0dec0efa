"""What a server under load looks like from outside."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from tests.faults.ledger import Ledger
from tests.served import Served


class Shares(NamedTuple):
    """Answers since a time: how many of which kind, and how long those of success took."""

    successes: int
    refused: int
    lost: int
    p50: float
    p99: float


def shares(ledger: Ledger, since: float) -> Shares:
    """The answers that came after a monotonic time."""
    answers = [(status, took) for at, status, took in ledger.answers if at > since]
    times = sorted(took for status, took in answers if 200 <= status < 300)
    return Shares(
        len(times),
        sum(status >= 500 for status, _ in answers),
        sum(status == 0 for status, _ in answers),
        times[len(times) // 2] if times else math.inf,
        times[len(times) * 99 // 100] if times else math.inf,
    )


def successes(ledger: Ledger, since: float = 0.0) -> int:
    """How many answers of success came after a monotonic time."""
    return sum(at > since and 200 <= status < 300 for at, status, _ in ledger.answers)


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def post(served: Served, request: bytes) -> int:
    """Send one request over a connection of its own; the status of its answer."""
    with socket.create_connection(("127.0.0.1", served.collect_port), 30) as wire:
        wire.sendall(request)
        return int(wire.recv(65_536).split(b" ", 2)[1])


async def ready(served: Served) -> bool:
    """What the collector's /readyz says."""
    status, _ = await asyncio.to_thread(_get, f"{served.collect}/readyz")
    return status == 200


async def date(served: Served) -> datetime:
    """What time it is for the collector."""

    def ask() -> str:
        with urllib.request.urlopen(f"{served.collect}/healthz", timeout=5) as answer:
            return str(answer.headers["date"])

    return parsedate_to_datetime(await asyncio.to_thread(ask))


async def metric(served: Served, name: str) -> float:
    """A metric without labels."""
    _, text = await asyncio.to_thread(_get, f"{served.console}/metrics")
    found = re.search(rf"^{name} ([0-9.e+-]+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait for something to become true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.05)
