"""The full size of the fault tests: ``python -m tests.faults.soak --seconds 3600``.

Rounds of kills and other faults (``kill.py``), each with a seed of its own and a fresh data folder,
until there were a thousand kills or the time is up; then every fault test and the fuzzing in their
full size. What each round did goes into a file of lines, so that a soak that was broken off goes on
where it was (``--file``). A table at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.kill import MORE, run

KILLS_MIN = 1_000
ROUND_SECONDS = 60.0
#: Every fourth round has more than kills.
STORM_EVERY = 4
TESTS = (
    "tests/faults",
    "tests/fuzz",
    "tests/journal/test_faults.py",
    "tests/journal/test_corrupt.py",
)


class Round(msgspec.Struct):
    """One round, as a line of the file."""

    seed: int
    seconds: float
    done: dict[str, int]
    kills: int
    acknowledged: int
    ready_seconds_max: float
    wrong: list[str]
    more: list[str] = []


def rounds_of(file: Path) -> list[Round]:
    """What an earlier soak has done."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=Round) for line in file.read_bytes().splitlines()]


def one_round(seed: int, seconds: float, more: list[str]) -> Round:
    folder = Path(tempfile.mkdtemp(prefix="headwater-soak-"))
    ran = run(folder, seconds=seconds, seed=seed, more=more)
    if ran.wrong:
        print(f"the folder is kept: {folder}")
    else:
        shutil.rmtree(folder)
    worst = max(ran.ready_seconds, default=0.0)
    return Round(seed, seconds, ran.done, ran.kills, ran.acknowledged, worst, ran.wrong, more)


def kill_rounds(file: Path, *, until: float, kills_min: int, root: bool) -> list[Round]:
    """Rounds until there were so many kills, or it is late (monotonic)."""
    rounds = rounds_of(file)
    choose = random.SystemRandom()
    while (kills := sum(one.kills for one in rounds)) < kills_min:
        left = until - time.monotonic()
        if left < 20:
            break
        storm = root and len(rounds) % STORM_EVERY == STORM_EVERY - 1
        more = sorted(MORE) if storm else []
        seed = choose.randrange(10**6)
        seconds = min(ROUND_SECONDS, left - 10)
        again = " ".join(f"--with {one}" for one in more)
        print(
            f"round {len(rounds) + 1}, {kills} kills so far, {left:.0f} s left; "
            f"again: python -m tests.faults.kill --seconds {seconds:.0f} --seed {seed} {again}",
            flush=True,
        )
        done = one_round(seed, seconds, more)
        rounds.append(done)
        with file.open("ab") as lines:
            lines.write(msgspec.json.encode(done) + b"\n")
        for wrong in done.wrong:
            print(f"BROKEN (seed {seed}): {wrong}", flush=True)
    return rounds


def table(rows: list[tuple[Any, ...]]) -> None:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    said.add_argument("--seconds", type=float, default=3600.0, help="for the rounds of kills")
    said.add_argument("--kills", type=int, default=KILLS_MIN, help="enough of them")
    said.add_argument("--file", type=Path, default=Path("soak.jsonl"), help="goes on where it was")
    said.add_argument("--kills-only", action="store_true")
    given = said.parse_args()
    root = os.geteuid() == 0
    rounds = kill_rounds(
        given.file,
        until=time.monotonic() + given.seconds,
        kills_min=given.kills,
        root=root,
    )
    failed = 0
    if not given.kills_only:
        command = [sys.executable, "-m", "pytest", "-rs", "--durations=0", *TESTS]
        failed = subprocess.run(command, env={**os.environ, "HEADWATER_FULL": "1"}).returncode
    print()
    done: Counter[str] = Counter()
    for one in rounds:
        done.update(one.done)
    wrong = sum(len(one.wrong) for one in rounds)
    table(
        [
            ("what", "how often"),
            *sorted(done.items()),
            ("rounds", len(rounds)),
            ("kills in all", sum(one.kills for one in rounds)),
            ("events acknowledged", sum(one.acknowledged for one in rounds)),
            (
                "ready again, worst",
                f"{max((one.ready_seconds_max for one in rounds), default=0):.1f} s",
            ),
            ("seeds", " ".join(str(one.seed) for one in rounds)),
            ("broken promises", wrong),
            *([] if given.kills_only else [("full-size tests", "failed" if failed else "passed")]),
        ]
    )
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
