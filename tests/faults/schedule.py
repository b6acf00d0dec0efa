"""What is done to a running server, in an order that follows from a seed.

A plan says how often each thing is done, in a hundred. Kills are by process id; a stopped process
goes on after a moment; a full disk is a file that takes all the room there is; the clock is
libfaketime's, turned a day forth or back.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests.served import NotReady, Served, children, command_of, descendants

#: The names that a loader's step has reached once each thing is durable.
STEPS = ("claimed", "rejected", "events", "settled", "loads")
AFTER = "loader after "
KILLS = {
    **{"worker": 45, "hub": 17, "worker and hub": 10, "everything": 8},
    **{f"{AFTER}{step}": 4 for step in STEPS},
}
#: What also happens to a server, among kills.
STOPS = {"worker stopped": 8, "hub stopped": 8}
DISK = {"disk full": 12}
CLOCK = {"clock": 12}
PAUSE_SECONDS = (0.1, 1.2)
STOPPED_SECONDS = (0.2, 2.0)
FULL_SECONDS = (1.0, 3.0)
STEP_SECONDS_MAX = 8.0
#: A disk is full for three seconds.
START_TRIES_MAX = 10
DAY = 86_400

BALLAST = "ballast"
#: The loader ends itself once it has reached what this file names (``changed_hub.py``).
DIE_AT = "die-at"


class Faults:
    """A schedule that follows from its seed alone, and what became of it."""

    def __init__(self, seed: int, plan: Mapping[str, int], *, clock: Path | None = None) -> None:
        self._choose = random.Random(seed)
        self._plan = dict(plan)
        self._clock = clock
        self._turned = 0
        self._later: set[asyncio.Task[None]] = set()
        self.done: dict[str, int] = dict.fromkeys(plan, 0)
        #: How long each start of the whole took until its `ready` line.
        self.ready_seconds: list[float] = []

    @property
    def kills(self) -> int:
        """How often a process, or all, were killed."""
        return sum(self.done.get(name, 0) for name in KILLS)

    def next(self) -> tuple[float, str]:
        """Seconds to wait, then what to do."""
        pause = self._choose.uniform(*PAUSE_SECONDS)
        (fault,) = self._choose.choices(list(self._plan), list(self._plan.values()))
        return pause, fault

    async def follow(self, served: Served, until: float) -> None:
        """Follow the schedule until a monotonic time; then everything is let go again."""
        while True:
            pause, fault = self.next()
            if time.monotonic() + pause >= until:
                await asyncio.sleep(max(0.0, until - time.monotonic()))
                break
            await asyncio.sleep(pause)
            await self._do(served, fault)
        await asyncio.gather(*self._later)

    async def _do(self, served: Served, fault: str) -> None:
        workers, hubs = workers_and_hub(served)
        one = [self._choose.choice(workers)] if workers else []
        if fault == "everything":
            for pid in (served.pid, *descendants(served.pid)):
                send(pid, signal.SIGKILL)
            began = time.monotonic()
            await asyncio.to_thread(served.kill)
            if await start_again(served):
                self.ready_seconds.append(time.monotonic() - began)
            self.done[fault] += 1
        elif fault.startswith(AFTER):
            await self._die_after(served, fault.removeprefix(AFTER))
        elif fault == "disk full":
            self._begin(fault, self._fill(served.data, self._choose.uniform(*FULL_SECONDS)))
        elif fault == "clock":
            assert self._clock is not None
            # There, and back again, or the other way round: never further than a day.
            self._turned = self._choose.choice(
                [turn for turn in (-DAY, 0, DAY) if turn != self._turned]
            )
            turn_clock(self._clock, self._turned)
            self.done[fault] += 1
        elif fault.endswith("stopped"):
            pids = one if "worker" in fault else hubs
            seconds = self._choose.uniform(*STOPPED_SECONDS)
            if [pid for pid in pids if send(pid, signal.SIGSTOP)]:
                self._begin(fault, go_on(pids, seconds))
        else:
            chosen = [*(one if "worker" in fault else ()), *(hubs if "hub" in fault else ())]
            if [pid for pid in chosen if send(pid, signal.SIGKILL)]:
                self.done[fault] += 1

    async def _die_after(self, served: Served, step: str) -> None:
        """Let the loader end itself after a step; workers are killed while that is waited for, as a
        hub takes a second or two to come back."""
        aim = served.folder / DIE_AT
        aim.write_text(step)
        until = time.monotonic() + STEP_SECONDS_MAX
        while aim.exists() and time.monotonic() < until:
            await asyncio.sleep(self._choose.uniform(*PAUSE_SECONDS))
            if "worker" in self._plan:
                await self._do(served, "worker")
        if aim.exists():
            aim.unlink()
        else:
            self.done[f"{AFTER}{step}"] += 1

    def _begin(self, fault: str, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        self.done[fault] += 1

    async def _fill(self, folder: Path, seconds: float) -> None:
        fill(folder)
        await asyncio.sleep(seconds)
        make_room(folder)


async def start_again(served: Served) -> bool:
    """Start it as its unit does (``Restart=always``, a second later): a start that finds no room to
    write may be refused, with that reason. Whether the first one was good. Raises NotReady."""
    for tried in range(START_TRIES_MAX):
        try:
            await asyncio.to_thread(served.start)
        except NotReady as refused:
            full = any(said in str(refused) for said in ("disk is full", "No space left"))
            if not full or tried + 1 == START_TRIES_MAX:
                raise
            await asyncio.sleep(1.0)
        else:
            return tried == 0
    raise AssertionError("unreachable")


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


def send(pid: int, number: int) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def go_on(pids: list[int], seconds: float) -> None:
    """Let stopped processes run again after a time; those that were killed meanwhile stay so."""
    await asyncio.sleep(seconds)
    for pid in pids:
        send(pid, signal.SIGCONT)


def fill(folder: Path) -> None:
    """Take all the room of the file system that `folder` is on."""
    with (folder / BALLAST).open("ab") as ballast:
        while True:
            found = os.statvfs(folder)
            size = os.fstat(ballast.fileno()).st_size
            step = max(found.f_bavail * found.f_frsize, 4096)
            try:
                os.posix_fallocate(ballast.fileno(), size, step)
            except OSError:
                if step <= 4096 or not found.f_bavail:
                    return


def make_room(folder: Path) -> None:
    (folder / BALLAST).unlink(missing_ok=True)


def turn_clock(file: Path, seconds: int) -> None:
    """Turn the clock of processes that libfaketime watches `file` for."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+d}\n")
    fresh.rename(file)
