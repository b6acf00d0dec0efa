"""Kills, full disks and failing fsyncs: what was acknowledged is there, what was not is no harm."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater import limits
from headwater.clock import system_clock
from headwater.errors import JournalFailed
from headwater.journal import sqlite_writer
from headwater.journal.sqlite import SqliteReader, SqliteWriter
from headwater.journal.sqlite_segment import Row, Segment
from tests.journal.requests import append, ids, read_all, request

ROOT = Path(__file__).parents[2]
SEED = 20_261_121
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian package strace)"
)


def command(folder: Path, first: int, count: int, pause: float, *more: str) -> list[str]:
    module = "tests.journal.writing_process"
    return [sys.executable, "-m", module, str(folder), str(first), str(count), str(pause), *more]


def numbers(folder: Path) -> list[int]:
    reader = SqliteReader(folder)
    try:
        return [int.from_bytes(each[6:], "big") for each in ids(read_all(reader))]
    finally:
        reader.close()


def test_kill_9_loses_and_doubles_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    acknowledged: set[int] = set()
    for turn in range(5):
        process = subprocess.Popen(
            command(tmp_path, turn * 10_000_000, 10_000_000, -1),
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        timer = threading.Timer(0.1 + chance.random() * 0.5, process.kill)
        timer.start()
        told = process.stdout.read().decode()
        process.wait(30)
        process.stdout.close()
        timer.join()
        # The last line may have been cut off in the pipe.
        acknowledged |= {int(n) for n in re.findall(r"^ack (\d+)$", told, re.MULTILINE)}
        assert "refused" not in told
        # The hub reads after a kill, before any writer comes back.
        found = numbers(tmp_path)
        assert len(found) == len(set(found)), f"doubled (seed {SEED})"
        assert acknowledged <= set(found), f"lost (seed {SEED})"
    assert len(acknowledged) > 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system of a few MiB needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))

    async def write() -> set[int]:
        writer = SqliteWriter(
            small_disk / "journal",
            1,
            loop=asyncio.get_running_loop(),
            clock=system_clock,
            bytes_max=1 << 30,
            segment_bytes_max=512 << 10,
        )
        acknowledged = set()
        outcome: Exception | None = None
        number = 0
        while outcome is None:
            number += 1
            (outcome,) = await append(writer, [request(number, body=bytes(20_000))])
            if outcome is None:
                acknowledged.add(number)
        assert isinstance(outcome, JournalFailed)
        assert "full" in str(outcome)
        # Small requests may find room for a while; then nothing is taken and nothing hangs.
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            number += 1
            if await append(writer, [request(number, body=bytes(20_000))]) == [None]:
                acknowledged.add(number)
            await asyncio.sleep(0.02)
        ballast.unlink()
        for _ in range(50):
            if writer.healthy:
                break
            await asyncio.sleep(0.1)
        assert writer.healthy, "it recovers within seconds"
        assert writer.failures >= 1
        for number in range(100_000, 100_020):
            assert await append(writer, [request(number)]) == [None]
            acknowledged.add(number)
        await writer.close()
        return acknowledged

    acknowledged = asyncio.run(write())
    found = numbers(small_disk / "journal")
    assert sorted(found) == sorted(acknowledged), "refused ones are not there"
    assert len(list((small_disk / "journal" / "w1").glob("*.sqlite"))) < 15


def traced(
    folder: Path, *strace: str, more: tuple[str, ...] = (), count: int = 20, pause: float = 0.0
) -> list[str]:
    """Run a writing process under strace; its system calls in order."""
    out = folder / "trace"
    subprocess.run(
        ["strace", "-f", "-o", str(out), *strace, *command(folder / "j", 0, count, pause, *more)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return out.read_text().splitlines()


def acknowledged_without_sync(calls: list[str]) -> list[str]:
    """Acknowledgements that no successful fdatasync precedes since the one before."""
    wrong = []
    synced = False
    for call in calls:
        if re.search(r"f(data)?sync\(\d+\)\s+= 0|f(data)?sync resumed>\)\s+= 0", call):
            synced = True
        elif match := re.search(r'write\(1, "(ack \d+)', call):
            if not synced:
                wrong.append(match[1])
            synced = False
    return wrong


@needs_strace
def test_the_kernel_has_synced_before_done_is_called(tmp_path: Path) -> None:
    calls = traced(tmp_path, "-e", "trace=write,fsync,fdatasync")
    assert sum('write(1, "ack' in call for call in calls) == 20
    assert acknowledged_without_sync(calls) == []


@needs_strace
def test_the_test_for_syncing_fails_when_syncing_is_off(tmp_path: Path) -> None:
    calls = traced(tmp_path, "-e", "trace=write,fsync,fdatasync", more=("unsynced",))
    assert len(acknowledged_without_sync(calls)) > 10


@needs_strace
def test_a_failed_fsync_is_never_followed_by_success_for_those_pages(tmp_path: Path) -> None:
    """Every fdatasync from some point on fails: nothing more is acknowledged, and the log file that
    failed is never synced again. (strace counts for each thread; starting takes some twenty, and
    then each commit is one of the committing thread.)"""
    out = tmp_path / "said"
    with out.open("wb") as said:
        process = subprocess.run(
            [
                *("strace", "-f", "-y", "-o", str(tmp_path / "trace")),
                *("-e", "trace=fdatasync,fsync"),
                *("-e", "inject=fdatasync:error=EIO:when=25+"),
                *command(tmp_path / "j", 0, 40, 0.05),
            ],
            cwd=ROOT,
            stdout=said,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert process.returncode == 0, process.stderr.decode()
    told = out.read_text()
    acknowledged = {int(n) for n in re.findall(r"^ack (\d+)$", told, re.MULTILINE)}
    refused = [int(n) for n in re.findall(r"^refused (\d+) ", told, re.MULTILINE)]
    assert acknowledged
    assert refused
    assert refused == list(range(refused[0], 40)), "no success after the failure"
    assert "disk I/O error" in told
    failed = re.findall(r"fdatasync\(\d+<([^>]+-wal)>.*INJECTED", (tmp_path / "trace").read_text())
    assert len(failed) == len(set(failed)), "a log whose fsync failed was synced again"
    assert acknowledged <= set(numbers(tmp_path / "j"))


@needs_strace
def test_one_failed_fsync_costs_one_segment(tmp_path: Path) -> None:
    calls = traced(
        tmp_path,
        *("-e", "trace=write,fdatasync", "-e", "inject=fdatasync:error=EIO:when=25"),
        count=80,
        pause=0.02,
    )
    said = [match[1] for call in calls if (match := re.search(r'write\(1, "(\w+ \d+)', call))]
    acknowledged = [int(each.split()[1]) for each in said if each.startswith("ack")]
    refused = [int(each.split()[1]) for each in said if each.startswith("refused")]
    assert refused
    assert max(acknowledged) > max(refused), "it goes on in a new segment"
    found = numbers(tmp_path / "j")
    assert found == acknowledged, "what was refused does not come back with the old log"


def test_a_commit_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    """A stalled disk: the load balancer must look elsewhere, though nothing has failed yet."""

    async def stall() -> None:
        writer = SqliteWriter(
            tmp_path, 1, loop=asyncio.get_running_loop(), clock=system_clock, bytes_max=1 << 30
        )
        assert writer.healthy
        lock = writer._segment.connection
        with lock:  # the writer's thread waits for this transaction as for a disk
            writer._committing_since = time.monotonic()
            writer._committing = writer._group
            assert writer.healthy
            writer._committing_since -= 60
            assert not writer.healthy
            writer._committing = None
        await writer.close()

    asyncio.run(stall())


def test_a_disk_that_does_not_answer_refuses_what_comes_and_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits behind a commit that hangs; what is in it is acknowledged once it is done."""
    hanging = threading.Event()

    class Hanging(Segment):
        def insert(self, row: Row) -> None:
            super().insert(row)
            while hanging.is_set():
                time.sleep(0.01)

    monkeypatch.setattr(sqlite_writer, "Segment", Hanging)
    monkeypatch.setattr(limits, "journal_commit_seconds_max", 0.2)

    async def hang() -> None:
        writer = SqliteWriter(
            tmp_path, 1, loop=asyncio.get_running_loop(), clock=system_clock, bytes_max=1 << 30
        )
        assert await append(writer, [request(1)]) == [None]
        hanging.set()
        waiting = asyncio.ensure_future(append(writer, [request(2)]))
        await asyncio.sleep(0.1)
        also = asyncio.ensure_future(append(writer, [request(3)]))
        await asyncio.sleep(limits.journal_probe_seconds + 0.3)
        began = time.monotonic()
        (refused,) = await append(writer, [request(4)])
        assert isinstance(refused, JournalFailed)
        assert time.monotonic() - began < 0.1
        assert not writer.healthy
        assert not waiting.done()
        assert not also.done()
        hanging.clear()
        assert await waiting == [None]
        assert await also == [None]
        assert writer.healthy
        assert await append(writer, [request(5)]) == [None]
        assert writer.failures == 0
        await writer.close()

    asyncio.run(hang())
    assert numbers(tmp_path) == [1, 2, 3, 5]


def test_the_writing_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, 0, 10_000_000, 0.01), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait(10)
    process.stdout.close()

    async def take_over() -> None:
        writer = SqliteWriter(
            tmp_path, 1, loop=asyncio.get_running_loop(), clock=system_clock, bytes_max=1 << 30
        )
        assert await append(writer, [request(99_999)]) == [None]
        await writer.close()

    asyncio.run(take_over())
    assert numbers(tmp_path)[-1] == 99_999
    assert os.path.exists(tmp_path / "w1" / "lock")
