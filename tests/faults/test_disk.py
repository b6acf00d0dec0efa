"""R5, R6, R8: disks that are full, that fail, and a journal at its bound; each under the load of
all clients, and afterwards the books."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.clients import CONFIG, vaix
from tests.faults.kill import check, mounted, under_load
from tests.faults.ledger import Ledger
from tests.faults.schedule import fill, make_room, workers_and_hub
from tests.faults.watching import metric, post, ready, shares, successes, until
from tests.served import Served
from tests.trust.serving import FULL

#: How long a fault lasts; what is due within 30 s is waited for so long.
SECONDS = 8.0 if FULL else 2.0
RECOVERY_SECONDS_MAX = 30.0
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian package strace)"
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    kept = Ledger(tmp_path / "ledger")
    yield kept
    kept.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Puts a part of the data folder on a file system of its own."""
    opened = []

    def mount(part: str, mib: int) -> Path:
        mounting = mounted(tmp_path / "data" / part, mib)
        try:
            place = mounting.__enter__()
        except subprocess.CalledProcessError:
            pytest.skip("mounting a file system needs root")
        opened.append(mounting)
        return place

    yield mount
    for mounting in opened:
        mounting.__exit__(None, None, None)


@pytest.mark.timeout(240)
def test_a_full_disk_under_the_journal(
    tmp_path: Path, ledger: Ledger, small_disk: Callable[[str, int], Path]
) -> None:
    place = small_disk("journal", 24)

    async def work() -> None:
        await until(lambda: successes(ledger) > 100)
        fill(place)
        await until(lambda: any(status == 503 for _, status, _ in ledger.answers))
        # What was under way may still have found room.
        await asyncio.sleep(0.5)
        assert not await ready(served)
        since = time.monotonic()
        await asyncio.sleep(SECONDS)
        assert successes(ledger, since) == 0, "no success while full"
        assert any(at > since and status == 503 for at, status, _ in ledger.answers)
        make_room(place)
        since = time.monotonic()
        await until(lambda: successes(ledger, since) > 50, RECOVERY_SECONDS_MAX)
        assert await ready(served)

    with Served(tmp_path, CONFIG) as served:
        asyncio.run(under_load(served, ledger, work()))
        assert check(served, ledger) == []
    assert "full" in served.tail_of_log()


@pytest.mark.timeout(240)
def test_a_full_disk_under_the_store(
    tmp_path: Path, ledger: Ledger, small_disk: Callable[[str, int], Path]
) -> None:
    """R5 and R7: collecting goes on, no slower; the lag says for how long nothing was loaded."""
    place = small_disk("store", 256)

    async def work() -> None:
        await until(lambda: successes(ledger) > 300)
        before = shares(ledger, 0.0)
        fill(place)
        since = time.monotonic()
        seconds = max(SECONDS, 3.0)
        await asyncio.sleep(seconds)
        lag = await metric(served, "headwater_loader_lag_seconds")
        assert seconds - 2.0 < lag < time.monotonic() - since + 1.0
        during = shares(ledger, since)
        assert during.refused == 0
        assert during.successes > 100
        # A store that does not work leaves the machine to the collectors; noise is allowed for.
        assert during.p99 < 3 * before.p99 + 0.1
        make_room(place)

        async def caught_up() -> bool:
            return await metric(served, "headwater_loader_lag_seconds") < 2.0

        await until(caught_up, RECOVERY_SECONDS_MAX)

    with Served(tmp_path, CONFIG) as served:
        asyncio.run(under_load(served, ledger, work()))
        assert check(served, ledger) == []
    assert "loading stands still" in served.log.read_text()


@needs_strace
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("call", "error"),
    [("fdatasync", "EIO"), *((("pwrite64", "EIO"), ("pwrite64", "ENOSPC")) if FULL else ())],
)
def test_a_disk_that_fails(tmp_path: Path, ledger: Ledger, call: str, error: str) -> None:
    """The kernel's answer is replaced (strace): nothing is acknowledged while it is, and what a
    failed fsync was for is never taken for written."""
    out = tmp_path / "trace"

    async def work() -> None:
        await until(lambda: successes(ledger) > 100)
        (worker,), _ = workers_and_hub(served)
        strace = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-y", "-o", str(out), "-p", str(worker)),
            *("-e", "trace=fdatasync,pwrite64", "-e", f"inject={call}:error={error}"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: any(status == 503 for _, status, _ in ledger.answers))
            await asyncio.sleep(0.3)
            since = time.monotonic()
            assert not await ready(served)
            await asyncio.sleep(SECONDS / 2)
            assert successes(ledger, since) == 0
        finally:
            strace.send_signal(signal.SIGINT)
            await strace.wait()
        since = time.monotonic()
        await until(lambda: successes(ledger, since) > 50, RECOVERY_SECONDS_MAX)
        assert await ready(served)

    with Served(tmp_path, CONFIG) as served:
        asyncio.run(under_load(served, ledger, work()))
        assert check(served, ledger) == []
    assert re.search(r"a write to .* failed: (IOError|FullError|.*disk)", served.log.read_text())
    assert "INJECTED" in out.read_text()
    assert synced_again(out) == []


def synced_again(trace: Path) -> list[str]:
    """Files synced after a failed fsync without what it was for being written again: the kernel
    would say yes to pages that it has let go of. The journal's are not even written again."""
    wrong = []
    lost: dict[str, int] = {}  # from where on a file must be written again
    pending: dict[str, int] = {}  # from where on it was written since its last good sync
    for line in trace.read_text().splitlines():
        found = re.search(r"(pwrite64|fdatasync)\(\d+<([^>]+)>(?:.*, (\d+)\))?", line)
        if found is None:
            continue
        call, path, offset = found.groups()
        if call == "pwrite64":
            pending[path] = min(pending.get(path, int(offset or 0)), int(offset or 0))
        else:
            again = pending.pop(path, None)
            since = lost.pop(path, None)
            if since is not None and ("/journal/" in path or again is None or again > since):
                wrong.append(path)
            if "INJECTED" in line:
                lost[path] = again or 0
    return wrong


@pytest.mark.timeout(240)
def a_journal_at_its_bound(tmp_path: Path, ledger: Ledger) -> None:
    """R8: 503, and what it has it keeps."""

    async def work() -> None:
        await until(lambda: successes(ledger) > 100)
        for _ in range(12):  # of 6 MB each
            mark = ledger.mark("vaix")
            status = await asyncio.to_thread(post, served, vaix(mark, pad="x" * 6_000_000))
            (ledger.acknowledge if status == 204 else ledger.refuse)([mark])
        assert any(status == 503 for _, status, _ in ledger.answers)
        await asyncio.sleep(0.3)
        since = time.monotonic()
        await asyncio.sleep(SECONDS / 2)
        assert successes(ledger, since) == 0
        refused = sorted(t for at, status, t in ledger.answers if at > since and status == 503)
        print(
            f"503 within {1e3 * refused[len(refused) // 2]:.1f} ms (p50), {refused[-1]:.3f} s (all)"
        )
        assert refused[len(refused) // 2] < 0.1
        assert not await ready(served)

    tables = "[journal]\nmax_bytes = 67_108_864"
    with Served(tmp_path, CONFIG, command="collect", tables=tables) as served:
        asyncio.run(under_load(served, ledger, work(), patient=False))
    with Served(tmp_path, CONFIG) as served:
        assert check(served, ledger) == []


if FULL:  # the journal's own bound is no less than 64 MiB; small ones: tests/journal/contract.py
    test_a_journal_at_its_bound = a_journal_at_its_bound
