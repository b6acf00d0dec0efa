"""Kills and other faults under load, and afterwards the books.

    python -m tests.faults.kill --seconds 60 --seed 7
    python -m tests.faults.kill --seconds 60 --with stops --with disk --with clock

Five dialects and two accounts at once, a client's ledger on disk, a schedule that follows from the
seed (``schedule.py``): kill -9 of workers, of the hub, of both, of everything, and of the loader
right after each of its steps; with more, processes that stop and go on, a disk that is full, a
clock that steps by a day. Afterwards every acknowledged event is in `events` as it was sent, once,
in the account it was sent to; what was refused is not; the books equal the ledger's sets; no user
of Gamooga was given two visitors, and no user of VAIX became two people.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.faults.clients import CONFIG, all_clients
from tests.faults.ledger import ACCOUNTS, DIALECTS, Ledger, Stored, user_of, violations
from tests.faults.schedule import CLOCK, DISK, KILLS, STOPS, Faults, turn_clock
from tests.served import Served

MORE = {"stops": STOPS, "disk": DISK, "clock": CLOCK}
SETTLE_SECONDS_MAX = 120.0
PAGE_ROWS = 100_000
#: The store alone takes some tens of MiB; the rest is journal, and room to be filled.
DISK_MIB = 768
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/libfaketime"))


def changed(change: str) -> list[str]:
    """The program that serves with a part changed (``serving_process``)."""
    return [sys.executable, "-m", "tests.faults.serving_process", change]


def faked(clock: Path) -> list[str]:
    """A prefix for programs whose clock `turn_clock` turns; the monotonic one stays true."""
    turn_clock(clock, 0)
    return [
        *("env", f"LD_PRELOAD={FAKETIME}", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1"),
        *(f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_CACHE_DURATION=1"),
    ]


@contextmanager
def mounted(place: Path, mib: int) -> Iterator[Path]:
    """A file system of its own, so large. Raises CalledProcessError without root."""
    place.mkdir(parents=True, exist_ok=True)
    size = f"size={mib}m,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", size, "headwater-test", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def address_of(served: Served) -> tuple[str, int]:
    at = urlsplit(served.collect)
    assert at.hostname is not None
    assert at.port is not None
    return at.hostname, at.port


async def under_load(
    served: Served, ledger: Ledger, work: Coroutine[None, None, None], *, patient: bool = True
) -> None:
    """Do `work` under the load of all clients; returns once they have what they send again, unless
    they are not `patient`."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        clients = [
            group.create_task(client)
            for client in all_clients(ledger=ledger, address=lambda: address_of(served), stop=stop)
        ]
        await work
        stop.set()
        if not patient:
            _, waiting = await asyncio.wait(clients, timeout=1.0)
            for client in waiting:
                client.cancel()


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


def stored(served: Served) -> list[Stored]:
    """Every event, in pages that stay within a query's bounds."""
    found: list[Stored] = []
    while True:
        rows = served.query(
            "SELECT account, dialect, toString(name) AS called,"
            " coalesce(properties.content::Nullable(String), '') AS content, count() AS often"
            " FROM events GROUP BY ALL ORDER BY ALL"
            f" LIMIT {PAGE_ROWS} OFFSET {len(found)}"
        )
        found += [
            Stored(row["account"], row["dialect"], row["called"], row["content"], int(row["often"]))
            for row in rows
        ]
        if len(rows) < PAGE_ROWS:
            return found


def wrong_people(served: Served) -> list[str]:
    """VAIX says who did it: each user of an account is one person, and nobody else is."""
    rows = served.query(
        "SELECT account,"
        " arrayFilter(one -> one.namespace = 'vaix:user', identities)[1].value AS who,"
        " groupUniqArray(3)(toString(person_id)) AS persons, countIf(person_id IS NULL) AS nobody"
        " FROM events WHERE dialect = 'vaix' GROUP BY ALL"
    )
    wrong = [
        f"{row['account']}/{row['who']}: {len(row['persons'])} people, {row['nobody']} by nobody"
        for row in rows
        if len(row["persons"]) != 1 or int(row["nobody"])
    ]
    persons = [person for row in rows for person in row["persons"]]
    if len(persons) != len(set(persons)):
        wrong.append("two users of VAIX are one person")
    expected = {user_of(f"m{number}") for number in range(100)}
    strange = sorted({row["who"] for row in rows} - expected)
    return wrong + ([f"users that nobody sent: {strange[:5]}"] if strange else [])


def check(served: Served, ledger: Ledger) -> list[str]:
    """Wait until all is loaded; every broken promise."""
    books = settled(served)
    rejected = {
        (row["account"], row["dialect"]): int(row["often"])
        for row in served.query(
            "SELECT account, dialect, count() AS often FROM rejected GROUP BY ALL"
        )
    }
    return [
        *violations(ledger.promised(), stored(served), books, ledger.visitors, rejected),
        *wrong_people(served),
    ]


class Ran(NamedTuple):
    """What a run did, and every promise that it found broken."""

    wrong: list[str]
    done: dict[str, int]
    kills: int
    acknowledged: int
    ready_seconds: list[float]


def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    workers: int = 2,
    more: Sequence[str] = (),
    change: str = "whole",
    weights: Mapping[str, int] | None = None,
) -> Ran:
    """One run; prints what was done. `weights` stands in for the plan of kills."""
    plan = dict(weights or KILLS)
    for name in more:
        plan |= MORE[name]
    clock = folder / "clock" if "clock" in more else None
    faults = Faults(seed, plan, clock=clock)
    ledger = Ledger(folder / "ledger")
    served = Served(
        folder,
        CONFIG,
        workers=workers,
        program=changed(change),
        prefix=faked(clock) if clock else (),
    )
    try:
        with mounted(served.data, DISK_MIB) if "disk" in more else nullcontext():
            with served:
                until = time.monotonic() + seconds
                asyncio.run(under_load(served, ledger, faults.follow(served, until)))
                began = time.monotonic()
                wrong = check(served, ledger)
                took = time.monotonic() - began
            if wrong and "disk" in more:
                # What is mounted is gone after this.
                shutil.copytree(served.data, folder / "kept", symlinks=True)
    finally:
        ledger.close()
    promised = ledger.promised()
    print("done:", ", ".join(f"{count} x {fault}" for fault, count in faults.done.items()))
    print(
        f"sent {len(promised.dialects)}, acknowledged {len(promised.acknowledged)}, rejected "
        f"{len(promised.rejected)}, refused {len(promised.refused)}, without an answer "
        f"{len(promised.doubtful)}; settled and compared in {took:.1f} s"
    )
    if faults.ready_seconds:
        print(f"ready again after at most {max(faults.ready_seconds):.1f} s")
    if not any(faults.done.values()):
        wrong.append("nothing was done: the run says nothing")
    kept = {(promised.dialects[mark]) for mark in promised.acknowledged}
    if silent := set(DIALECTS) - kept:
        wrong.append(f"nothing was acknowledged: {sorted(silent)}")
    assert len(ACCOUNTS) == 2
    return Ran(wrong, faults.done, faults.kills, len(promised.acknowledged), faults.ready_seconds)


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m tests.faults.kill", description=__doc__)
    said.add_argument("--seconds", type=float, default=60.0)
    said.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    said.add_argument("--with", dest="more", action="append", choices=sorted(MORE), default=[])
    given = said.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    words = [f"--seconds {given.seconds:g} --seed {seed}", *(f"--with {one}" for one in given.more)]
    print(f"seed {seed}; again: python -m tests.faults.kill {' '.join(words)}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="headwater-kill-"))
    ran = run(folder, seconds=given.seconds, seed=seed, more=given.more)
    if ran.wrong:
        print((folder / "headwater.log").read_text(errors="replace")[-4_000:])
        print(f"the folder is kept: {folder}")
    else:
        shutil.rmtree(folder)
    for one in ran.wrong:
        print(f"BROKEN: {one}")
    print("broken promises:", len(ran.wrong))
    return 1 if ran.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
