"""How many requests a second one collector core acknowledges: `python -m bench.ingest`.

Server on one core, client on the other, in one run: nginx (ceiling), a plain uvicorn application
that does the same durable work, and Headwater with each dialect. bench/README.md is the method.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import traffic
from bench.cores import cpu_seconds, machine, resident_bytes, warning
from bench.scratch import scratch
from bench.servers import Server, headwater, nginx, uvicorn
from bench.traffic import Wire, variants
from bench.wrk import CONNECTIONS, Measured, run_websocket, run_wrk

WARM_SECONDS = 2.0
NGINX_MIN = 0.45  # targets: single VAIX POST against nginx and against the uvicorn application
UVICORN_MIN = 2.0
BATCH_EVENTS_MIN = 200_000


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: requests over HTTP, or (websocket) messages, of `events` events each."""

    name: str
    events: int = 1
    make: Callable[[int], Wire] | None = None

    def measure(self, server: Server, folder: Path, *, seconds: float) -> Measured:
        if self.make is None:
            return run_websocket(
                server.host, server.port, size=self.events, seconds=seconds, connections=CONNECTIONS
            )
        requests = variants(self.make)
        return run_wrk(server.url, requests, folder, seconds=seconds, connections=CONNECTIONS)


VAIX = Load(name="VAIX POST", make=traffic.vaix)
OTHERS = (
    Load(name="Orbee POST", make=traffic.orbee),
    Load(name="Vibetrace GET", make=traffic.vibetrace),
    Load(name="Gamooga GET /evwid/", make=traffic.gamooga_get),
    Load(name="Gamooga POST /evwidj/", make=traffic.gamooga_post),
    Load(name="Nucleus HTTP, 1 event", make=traffic.nucleus(1)),
    Load(name="Nucleus HTTP, 10 events", make=traffic.nucleus(10), events=10),
    Load(name="Nucleus HTTP, 100 events", make=traffic.nucleus(100), events=100),
    Load(name="Nucleus WebSocket, 1 event"),
    Load(name="Nucleus WebSocket, 100 events", events=100),
)
SERVERS = {"nginx return 204": nginx, "uvicorn ASGI": uvicorn, "headwater": headwater}


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    server: str
    load: Load
    found: Measured
    resident: int
    cpu_us: float  # of the server, a request: what is left of a figure on a machine that others use

    @property
    def events_per_second(self) -> float:
        return self.found.requests_per_second * self.load.events


def measure_one(server_name: str, load: Load, *, seconds: float, rounds: int) -> Row:
    """One server, one load: a warm-up where more than one round is asked for, then the median."""
    with scratch() as folder, SERVERS[server_name](folder) as server:
        if rounds > 1:
            load.measure(server, folder, seconds=min(WARM_SECONDS, seconds))
        runs = []
        used, requests = cpu_seconds(server.pids), 0.0
        for _ in range(rounds):
            runs.append(load.measure(server, folder, seconds=seconds))
            requests += runs[-1].requests
        cpu_us = (cpu_seconds(server.pids) - used) / max(1.0, requests) * 1e6
        resident = resident_bytes(server.pids)
    middle = sorted(runs, key=lambda run: run.requests_per_second)[len(runs) // 2]
    found = msgspec.structs.replace(
        middle,
        p99_ms=statistics.median(run.p99_ms for run in runs),
        failed=sum(run.failed for run in runs),
    )
    return Row(server_name, load, found, resident, cpu_us)


def plan() -> list[tuple[str, Load]]:
    """In the order in which they run: what is compared directly runs back to back."""
    return [
        *((name, VAIX) for name in SERVERS),
        *(("headwater", load) for load in OTHERS),
    ]


def table_of(rows: list[Row]) -> Table:
    """All rows, with what each is of nginx and of the uvicorn application."""
    rate = {row.server: row.found.requests_per_second for row in rows if row.load is VAIX}
    table = Table(title=f"ingest, one server core, {CONNECTIONS} connections: {machine()}")
    table.add_column("server")
    table.add_column("what")
    heads = (
        "requests/s",
        "events/s",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "RSS MB",
        "x nginx",
        "x uvicorn",
    )
    for head in (*heads, "failed"):
        table.add_column(head, justify="right")
    for row in rows:
        each = row.found.requests_per_second
        table.add_row(
            row.server,
            row.load.name,
            f"{each:,.0f}",
            f"{row.events_per_second:,.0f}",
            f"{row.found.p50_ms:.1f}",
            f"{row.found.p99_ms:.1f}",
            f"{row.cpu_us:.1f}",
            f"{row.resident / 1e6:.0f}",
            f"{each / rate['nginx return 204']:.2f}",
            f"{each / rate['uvicorn ASGI']:.2f}",
            str(row.found.failed),
        )
    return table


def verdicts(rows: list[Row]) -> list[tuple[str, float, float]]:
    """Target, what was asked, what was found."""
    rate = {row.server: row.found.requests_per_second for row in rows if row.load is VAIX}
    batch = max(row.events_per_second for row in rows if row.load.name == OTHERS[6].name)
    return [
        ("VAIX POST against nginx", NGINX_MIN, rate["headwater"] / rate["nginx return 204"]),
        ("VAIX POST against uvicorn", UVICORN_MIN, rate["headwater"] / rate["uvicorn ASGI"]),
        ("Nucleus HTTP batches of 100, events/s", BATCH_EVENTS_MIN, batch),
    ]


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    said.add_argument("--seconds", type=float, default=10.0, help="of each measured round")
    said.add_argument("--rounds", type=int, default=3, help="the median counts")
    said.add_argument("--smoke", action="store_true", help="a second each: does it run at all?")
    given = said.parse_args()
    seconds, rounds = (1.0, 1) if given.smoke else (given.seconds, given.rounds)
    console = Console(width=None if sys.stdout.isatty() else 140)
    missing = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if missing:
        console.print(f"missing: {', '.join(missing)} (Debian: apt-get install nginx-light wrk)")
        return 2
    if warning():
        console.print(warning())
    rows = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=len(plan()))
        for server, load in plan():
            progress.update(task, description=f"{server}: {load.name}")
            rows.append(measure_one(server, load, seconds=seconds, rounds=rounds))
            progress.advance(task)
    console.print(table_of(rows))
    for name, asked, found in verdicts(rows):
        word = "met" if found >= asked else "missed"
        console.print(f"{name}: {found:,.2f}, target {asked:,g}: {word}")
    used = {row.server: row.cpu_us for row in rows if row.load is VAIX}
    for other in ("nginx return 204", "uvicorn ASGI"):
        ratio = used[other] / used["headwater"]
        console.print(f"VAIX POST against {other}, by processor time alone: {ratio:.2f}")
    broken = [row for row in rows if row.found.failed or not row.found.requests_per_second]
    for row in broken:
        console.print(f"FAILED: {row.server}, {row.load.name}: {row.found.failed} errors")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
