"""From journal to SQL: `python -m bench.load`.

First how many events a second one core loads: a journal is filled, then the hub's own loader works
it off on one core, and each step's share is measured. Then a whole server under a steady rate: how
long after its acknowledgement an event is visible, and what memory that takes. bench/README.md is
the method.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.cores import SERVER_CORE, machine, pinned
from bench.loading import KINDS, MIX, MIX_CROWD, MIX_KNOWN, MIX_NEW, Loaded
from bench.steady import Steady, measure_steady

EVENTS_PER_SECOND_MIN = 60_000
#: 120 bytes each; 50 million, a year of a large site, take five minutes to put there.
REGISTRY_KEYS = 2_000_000
STEADY_EVENTS_PER_SECOND = 10_000
VISIBLE_P99_SECONDS_MAX = 1.0
COLLECTOR_BYTES_MAX = 150_000_000
HUB_BYTES_MAX = 1_000_000_000


def measure_loading(name: str, events: int, registry_keys: int) -> Loaded:
    """bench.loading on the server's core."""
    command = [sys.executable, "-m", "bench.loading", name, str(events), str(registry_keys)]
    done = subprocess.run(
        [*pinned(SERVER_CORE), *command], stdout=subprocess.PIPE, check=True, timeout=1_800
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Loaded)


def loading_table(found: dict[str, Loaded]) -> Table:
    table = Table(title=f"loading, one core: {machine()}", caption="steps in us an event")
    table.add_column("events")
    table.add_column("events/s", justify="right")
    table.add_column("CPU us", justify="right")
    steps = sorted({step for one in found.values() for step in one.steps})
    for step in steps:
        table.add_column(step, justify="right")
    for name, one in found.items():
        shares = [f"{one.steps.get(step, 0.0) / one.events * 1e6:.2f}" for step in steps]
        cpu = f"{one.cpu_seconds / one.events * 1e6:.1f}"
        table.add_row(name, f"{one.per_second:,.0f}", cpu, *shares)
    return table


def steady_table(found: Steady) -> Table:
    table = Table(title=f"steady {found.events_per_second:,.0f} events/s for {found.seconds:.0f} s")
    for head in ("", "p50", "p99", "max"):
        table.add_column(head, justify="right" if head else "left")
    for name, values in (
        ("acknowledged, ms", found.acknowledged_ms),
        ("visible after the acknowledgement, ms", found.visible_ms),
    ):
        table.add_row(name, *(f"{value:,.1f}" for value in values))
    table.add_row("collector, peak MB", "", "", f"{found.collector_bytes / 1e6:,.0f}")
    table.add_row("hub, peak MB", "", "", f"{found.hub_bytes / 1e6:,.0f}")
    table.add_row("not acknowledged", "", "", str(found.failed))
    return table


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    said.add_argument("--seconds", type=float, default=60.0, help="of the steady rate")
    said.add_argument("--events", type=int, default=300_000, help="in each journal")
    said.add_argument("--rate", type=int, default=STEADY_EVENTS_PER_SECOND, help="events a second")
    said.add_argument(
        "--registry-keys",
        type=int,
        default=REGISTRY_KEYS,
        help=f"known before, for {MIX_CROWD!r}",
    )
    said.add_argument("--smoke", action="store_true", help="five seconds: does it run at all?")
    given = said.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    events, seconds, registry_keys = given.events, given.seconds, given.registry_keys
    names = [*(kind.name for kind in KINDS), MIX, MIX_KNOWN, MIX_NEW, MIX_CROWD]
    if given.smoke:
        events, seconds, registry_keys, names = 5_000, 5.0, 10_000, [MIX, MIX_CROWD]
    found = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("loading", total=len(names))
        for name in names:
            progress.update(task, description=f"loading: {name}")
            found[name] = measure_loading(name, events, registry_keys)
            progress.advance(task)
    console.print(loading_table(found))
    steady = measure_steady(rate=given.rate, seconds=seconds)
    console.print(steady_table(steady))
    targets = (
        ("loading the mix, events/s", EVENTS_PER_SECOND_MIN, found[MIX].per_second, True),
        ("visible, p99 s", VISIBLE_P99_SECONDS_MAX, steady.visible_ms[1] / 1e3, False),
        ("collector, MB", COLLECTOR_BYTES_MAX / 1e6, steady.collector_bytes / 1e6, False),
        ("hub, MB", HUB_BYTES_MAX / 1e6, steady.hub_bytes / 1e6, False),
    )
    for what, asked, value, at_least in targets:
        met = value >= asked if at_least else value <= asked
        word = "at least" if at_least else "at most"
        console.print(f"{what}: {value:,.2f}, {word} {asked:g}: {'met' if met else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
