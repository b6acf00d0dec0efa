"""How long questions take: `python -m bench.query`.

A journal of the mix is filled, a whole server loads it, and usual questions go to
`POST /api/query`, as the command line asks them.
"""

from __future__ import annotations

import argparse
import sys
import time

import uvloop
from rich.console import Console
from rich.table import Table

from bench.cores import machine
from bench.loading import MIX, fill
from bench.scratch import scratch
from bench.traffic import accounts
from tests.served import Served

LOAD_SECONDS_MAX = 900.0
QUESTIONS = {
    "all events": "SELECT count() FROM events",
    "events by dialect and name": (
        "SELECT dialect, name, count() AS events FROM events GROUP BY ALL ORDER BY events DESC"
    ),
    "events a minute": (
        "SELECT toStartOfMinute(received_at) AS minute, count() FROM events GROUP BY ALL"
    ),
    "one name of one dialect": (
        "SELECT count() FROM events"
        " WHERE account = 'bench' AND dialect = 'vaix' AND name = 'clicks:event'"
    ),
    "a property's sum": (
        "SELECT sum(properties.generic.total.:Float64) FROM events WHERE dialect = 'vibetrace'"
    ),
    "by a property": (
        "SELECT properties.position.:Int64 AS position, count() FROM events"
        " WHERE dialect = 'vaix' GROUP BY ALL ORDER BY position"
    ),
    "distinct users": (
        "SELECT uniq(one.value) FROM events ARRAY JOIN identities AS one"
        " WHERE one.namespace = 'vaix:user'"
    ),
    "one user's last events": (
        "SELECT occurred_at, name FROM events WHERE has(identities.value, '17')"
        " ORDER BY occurred_at DESC LIMIT 100"
    ),
    "the newest 100 in full": "SELECT * FROM events ORDER BY received_at DESC LIMIT 100",
    "the books": "SELECT * FROM accounting",
}


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m bench.query", description=__doc__)
    said.add_argument("--events", type=int, default=1_000_000)
    said.add_argument("--rounds", type=int, default=20, help="of each question")
    said.add_argument("--smoke", action="store_true", help="few events: does it run at all?")
    given = said.parse_args()
    events, rounds = (5_000, 2) if given.smoke else (given.events, given.rounds)
    table = Table(title=f"questions to {events:,} events: {machine()}")
    for head in ("question", "rows", "p50 ms", "max ms"):
        table.add_column(head, justify="left" if head == "question" else "right")
    console = Console(width=None if sys.stdout.isatty() else 140)
    with scratch() as folder, console.status("filling a journal"):
        (folder / "data").mkdir()
        uvloop.run(fill(folder / "data" / "journal", MIX, events))
        with Served(folder, accounts()) as served:
            served.wait_loaded(LOAD_SECONDS_MAX)
            for question, sql in QUESTIONS.items():
                waits = []
                rows = 0
                for _ in range(rounds):
                    began = time.perf_counter()
                    rows = len(served.query(sql))
                    waits.append((time.perf_counter() - began) * 1e3)
                waits.sort()
                middle, longest = waits[len(waits) // 2], waits[-1]
                table.add_row(question, f"{rows:,}", f"{middle:.1f}", f"{longest:.1f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
