"""kill -9 of workers and hub under load, and afterwards the books.

    python -m tests.faults.kill --seconds 60 --seed 7

Five dialects at once, a client's ledger on disk, a schedule of kills that follows from the seed:
workers, the hub, both, and now and then everything at once, started again on the same data folder.
Afterwards every acknowledged event is in `events`, none is there twice, the books close, and no
Gamooga user was given two visitors.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults.clients import APP, COMPANY, TOKEN, all_clients
from tests.faults.ledger import Ledger, violations
from tests.served import Served, children, command_of, descendants

ACCOUNTS = f"""
[accounts.acme.vaix]
tokens = ["sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"]
[accounts.acme.orbee]
trackers = ["1/1"]
[accounts.acme.nucleus]
apps = ["{APP}"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.gamooga]
companies = ["{COMPANY}"]
"""
#: What is killed, and how often in a hundred.
VICTIMS = {"worker": 50, "hub": 25, "worker and hub": 15, "everything": 10}
PAUSE_SECONDS = (0.3, 2.5)
SETTLE_SECONDS_MAX = 120.0
NAMES_PAGE = 200_000


class Kills:
    """A schedule that follows from its seed alone, and what became of it."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)
        self.done: dict[str, int] = dict.fromkeys(VICTIMS, 0)

    def next(self) -> tuple[float, str]:
        """Seconds to wait, then what to kill."""
        pause = self._choose.uniform(*PAUSE_SECONDS)
        (victim,) = self._choose.choices(list(VICTIMS), list(VICTIMS.values()))
        return pause, victim

    def pick(self, pids: list[int]) -> int:
        return self._choose.choice(pids)


def workers_and_hub(served: Served) -> tuple[list[int], list[int]]:
    """The supervisor's children by what they are."""
    workers, hub = [], []
    for pid in children(served.pid):
        words = command_of(pid)
        if "headwater.collector" in words:
            workers.append(pid)
        elif "headwater.hub" in words:
            hub.append(pid)
    return workers, hub


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


async def kill_until(served: Served, kills: Kills, until: float) -> None:
    """Follow the schedule until a monotonic time."""
    while True:
        pause, victim = kills.next()
        if time.monotonic() + pause >= until:
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            return
        await asyncio.sleep(pause)
        if victim == "everything":
            whole = [served.pid, *descendants(served.pid)]
            for pid in whole:
                kill(pid)
            kills.done[victim] += 1
            await asyncio.to_thread(served.kill)
            await asyncio.to_thread(served.start)
            continue
        workers, hub = workers_and_hub(served)
        chosen = []
        if "worker" in victim and workers:
            chosen.append(kills.pick(workers))
        if "hub" in victim:
            chosen += hub
        if [pid for pid in chosen if kill(pid)]:
            kills.done[victim] += 1


async def load_and_kill(
    served: Served, ledger: Ledger, *, seconds: float, kills: Kills | None
) -> None:
    """Load for `seconds`, with kills if any; returns once the clients have what they resend."""

    def address() -> tuple[str, int]:
        at = urlsplit(served.collect)
        assert at.hostname is not None
        assert at.port is not None
        return at.hostname, at.port

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in all_clients(ledger=ledger, address=address, stop=stop):
            group.create_task(client)
        until = time.monotonic() + seconds
        if kills is None:
            await asyncio.sleep(seconds)
        else:
            await kill_until(served, kills, until)
        stop.set()


def settled(served: Served) -> dict[tuple[str, str], dict[str, int]]:
    """The books once a hub answers and nothing is in flight."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while True:
        try:
            return served.wait_loaded(max(1.0, deadline - time.monotonic()))
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def stored(served: Served) -> list[tuple[str, str, int]]:
    """(dialect, name, how often) of every event, in pages that stay within a query's bounds."""
    found: list[tuple[str, str, int]] = []
    while True:
        rows = served.query(
            "SELECT dialect, toString(name) AS name, count() AS often FROM events "
            "GROUP BY dialect, name ORDER BY dialect, name "
            f"LIMIT {NAMES_PAGE} OFFSET {len(found)}"
        )
        found += [(row["dialect"], row["name"], int(row["often"])) for row in rows]
        if len(rows) < NAMES_PAGE:
            return found


def run(folder: Path, *, seconds: float, seed: int, workers: int = 2) -> list[str]:
    """One run; prints what was done, returns every broken promise."""
    ledger, kills = Ledger(folder / "ledger"), Kills(seed)
    try:
        with Served(folder, ACCOUNTS, workers=workers) as served:
            asyncio.run(load_and_kill(served, ledger, seconds=seconds, kills=kills))
            began = time.monotonic()
            books = settled(served)
            took = time.monotonic() - began
            acknowledged = ledger.acknowledged()
            wrong = violations(acknowledged, stored(served), books, ledger.visitors)
    finally:
        ledger.close()
    print("killed:", ", ".join(f"{count} x {victim}" for victim, count in kills.done.items()))
    for dialect, sent in sorted(ledger.sent.items()):
        row = books.get(("acme", dialect), {})
        print(f"{dialect}: {sent} sent, {len(acknowledged.get(dialect, ()))} acknowledged, {row}")
    print(f"settled {took:.1f} s after the last request")
    if not any(kills.done.values()):
        wrong.append("nothing was killed: the run says nothing")
    silent = {"vaix", "orbee", "nucleus", "vibetrace", "gamooga"} - acknowledged.keys()
    if silent:
        wrong.append(f"nothing was acknowledged: {sorted(silent)}")
    return wrong


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m tests.faults.kill", description=__doc__)
    said.add_argument("--seconds", type=float, default=60.0)
    said.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    given = said.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    print(
        f"seed {seed}; again: python -m tests.faults.kill --seconds {given.seconds:g} --seed {seed}"
    )
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(prefix="headwater-kill-"))
    wrong = run(folder, seconds=given.seconds, seed=seed)
    if wrong:
        print((folder / "headwater.log").read_text(errors="replace")[-4_000:])
        print(f"the data folder is kept: {folder}")
    else:
        shutil.rmtree(folder)
    for one in wrong:
        print(f"BROKEN: {one}")
    print("broken promises:", len(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
