"""The load generators on the client core: wrk for HTTP, for WebSocket a client of our own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.cores import CLIENT_CORE, pinned

CONNECTIONS = 256
SCRIPT = Path(__file__).with_name("requests.lua")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a load generator."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: int = 0  # transport errors and answers that are not 2xx


def run_wrk(
    url: str, requests: Iterable[bytes], folder: Path, *, seconds: float, connections: int
) -> Measured:
    """wrk, one thread, keep-alive, closed loop."""
    listed = folder / "requests"
    listed.write_bytes(b"".join(b"%d\n%b" % (len(one), one) for one in requests))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    said = subprocess.run(
        [*pinned(CLIENT_CORE), *command, "-s", str(SCRIPT), url, "--", str(listed)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("RESULT ")]
    count, micros, errors, status, p50, p99 = (int(word) for word in line.split()[1:])
    return Measured(
        requests=count,
        requests_per_second=count / (micros / 1e6),
        p50_ms=p50 / 1e3,
        p99_ms=p99 / 1e3,
        failed=errors + status,
    )


def run_websocket(host: str, port: int, *, size: int, seconds: float, connections: int) -> Measured:
    """bench.websocket_client in a process of its own, one message outstanding per connection."""
    said = subprocess.run(
        [
            *pinned(CLIENT_CORE),
            *(sys.executable, "-m", "bench.websocket_client", host, str(port)),
            *(str(size), str(seconds), str(connections)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    return msgspec.json.decode(said, type=Measured)
