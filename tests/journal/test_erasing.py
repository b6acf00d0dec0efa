"""Erasing from the journal: a stub in its place, no byte beside it, and all else untouched."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from headwater import limits
from headwater.accept.request import Erased, Request
from headwater.clock import system_clock
from headwater.errors import JournalFailed
from headwater.journal.journal import Batch, Position
from headwater.journal.sqlite import SqliteEraser, SqliteReader, SqliteWriter
from headwater.journal.sqlite_erasing import stub
from tests.journal.requests import append, ids, read_all, request, segments

CANARY = b"canary-of-jane"
WAS = Erased(stored=1)


def of_jane(number: int, size: int = 300) -> Request:
    """A request full of canaries, in every field that a client fills."""
    made = request(number, body=CANARY * (size // len(CANARY)))
    made.target = f"/api/tracker/events?who={CANARY.decode()}"
    made.headers = {"user-agent": CANARY.decode(), "referer": CANARY.decode()}
    made.params = {"aid": CANARY.decode()}
    made.state = made.peer = CANARY.decode()
    return made


def found_in(folder: Path) -> list[str]:
    """The files in which a canary still sings."""
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CANARY in path.read_bytes()
    ]


def places(batches: Iterable[Batch], numbers: Iterable[int]) -> dict[Position, dict[int, Erased]]:
    """Where the requests with some numbers are, as `erase` takes them."""
    wanted = {request(number).request_id for number in numbers}
    found: dict[Position, dict[int, Erased]] = {}
    for batch in batches:
        for index, one in enumerate(batch.requests):
            if one.request_id in wanted:
                found.setdefault(batch.position, {})[index] = WAS
    return found


async def write(folder: Path, requests: Iterable[Request], *, together: int = 3) -> None:
    """Write in segments of 200 KB, some requests a batch."""
    writer = open_writer(folder)
    group: list[Request] = []
    for one in [*requests, None]:
        if one is not None:
            group.append(one)
        if group and (one is None or len(group) == together):
            assert set(await append(writer, group)) == {None}
            await asyncio.sleep(0.005)
            group = []
    await writer.close()


def open_writer(folder: Path) -> SqliteWriter:
    return SqliteWriter(
        folder,
        1,
        loop=asyncio.get_running_loop(),
        clock=system_clock,
        bytes_max=1 << 30,
        segment_bytes_max=200_000,
    )


def read(folder: Path) -> list[Batch]:
    reader = SqliteReader(folder)
    try:
        return read_all(reader)
    finally:
        reader.close()


def test_a_stub_keeps_its_place_and_nothing_of_the_client(tmp_path: Path) -> None:
    made = of_jane(7)
    made.refused = made.created = True
    left = stub(made, WAS)
    assert (left.request_id, left.account, left.dialect, left.received_at, left.erased) == (
        made.request_id,
        made.account,
        made.dialect,
        made.received_at,
        WAS,
    )
    assert left == Request(
        dialect="vaix",
        method="",
        target="",
        account="acme",
        received_at=made.received_at,
        request_id=made.request_id,
        erased=WAS,
    )
    assert stub(left, Erased()) is left


def test_what_is_erased_is_gone_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    numbers = range(0, 240, 7)
    everything = [
        of_jane(n) if n in numbers else request(n, body=b"%d" % n * 900) for n in range(240)
    ]
    asyncio.run(write(tmp_path, everything))
    assert len(segments(tmp_path / "w1")) >= 3
    before = read(tmp_path)
    assert found_in(tmp_path)
    told: list[int] = []
    done = SqliteEraser(tmp_path).erase(places(before, numbers), progress=told.append)
    assert (done.requests, done.left) == (len(numbers), [])
    assert told[-1] == len(numbers)
    assert found_in(tmp_path) == []
    after = read(tmp_path)
    assert [(one.position, one.committed_at, one.counts) for one in after] == [
        (one.position, one.committed_at, one.counts) for one in before
    ]
    assert ids(after) == ids(before)
    for one, other in zip(before, after, strict=True):
        for was, now in zip(one.requests, other.requests, strict=True):
            assert now == (stub(was, WAS) if CANARY in was.body else was)
    again = SqliteEraser(tmp_path).erase(places(before, numbers))
    assert (again.requests, again.left) == (len(numbers), [])
    assert read(tmp_path) == after


@pytest.mark.parametrize("size", [20, 300, 9_000, 150_000])
def test_whatever_the_size_no_page_keeps_anything(tmp_path: Path, size: int) -> None:
    asyncio.run(write(tmp_path, [of_jane(n, size) for n in range(60)], together=1))
    batches = read(tmp_path)
    SqliteEraser(tmp_path).erase(places(batches, range(60)))
    assert found_in(tmp_path) == []
    assert ids(read(tmp_path)) == ids(batches)


def test_a_writer_at_work_goes_on_in_another_file(tmp_path: Path) -> None:
    async def both() -> None:
        loop = asyncio.get_running_loop()
        writer = open_writer(tmp_path)
        assert await append(writer, [of_jane(1), request(2)]) == [None, None]
        stop = asyncio.Event()

        async def more() -> int:
            number = 100
            while not stop.is_set():
                assert await append(writer, [request(number)]) == [None]
                number += 1
                await asyncio.sleep(0.01)
            return number

        writing = asyncio.create_task(more())
        reader = SqliteReader(tmp_path)
        batches = read_all(reader)
        eraser = SqliteEraser(tmp_path)
        done = await loop.run_in_executor(None, eraser.erase, places(batches, [1]))
        assert (done.requests, done.left) == (1, [])
        assert found_in(tmp_path) == [], "while the writer lives, in its logs too"
        assert len(segments(tmp_path / "w1")) >= 2
        stop.set()
        last = await writing
        await writer.close()
        numbers = [int.from_bytes(one[6:], "big") for one in ids(read_all(reader))]
        assert numbers == [1, 2, *range(100, last)]
        reader.close()

    asyncio.run(asyncio.wait_for(both(), 60))
    assert found_in(tmp_path) == []


def test_a_writer_that_has_nothing_to_write_lets_go_too(tmp_path: Path) -> None:
    async def both() -> None:
        writer = open_writer(tmp_path)
        assert await append(writer, [of_jane(1)]) == [None]
        reader = SqliteReader(tmp_path)
        batches = read_all(reader)
        loop = asyncio.get_running_loop()
        eraser = SqliteEraser(tmp_path)
        await loop.run_in_executor(None, eraser.erase, places(batches, [1]))
        assert found_in(tmp_path) == []
        assert not (tmp_path / "w1" / "leave").exists()
        assert await append(writer, [request(2)]) == [None]
        assert ids(read_all(reader)) == [request(1).request_id, request(2).request_id]
        reader.close()
        await writer.close()

    asyncio.run(asyncio.wait_for(both(), 60))


def test_a_writer_that_does_not_let_go_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "journal_leave_seconds_max", 0.3)

    async def both() -> None:
        writer = open_writer(tmp_path)
        assert await append(writer, [of_jane(1)]) == [None]
        batches = read(tmp_path)
        # The loop does not turn meanwhile: the writer is alive and cannot answer.
        with pytest.raises(JournalFailed, match="does not let go"):
            SqliteEraser(tmp_path).erase(places(batches, [1]))
        assert await append(writer, [request(2)]) == [None]
        await writer.close()
        assert ids(read(tmp_path)) == [request(1).request_id, request(2).request_id]

    asyncio.run(asyncio.wait_for(both(), 60))


def test_a_reader_at_the_same_time_sees_each_request_once(tmp_path: Path) -> None:
    numbers = range(0, 120, 2)
    everything = [
        of_jane(n) if n in numbers else request(n, body=b"%d" % n * 900) for n in range(120)
    ]
    asyncio.run(write(tmp_path, everything))
    batches = read(tmp_path)
    stop = threading.Event()
    seen: list[list[bytes]] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(ids(read(tmp_path)))

    looking = threading.Thread(target=look)
    looking.start()
    for number in numbers:
        SqliteEraser(tmp_path).erase(places(batches, [number]))
    stop.set()
    looking.join()
    assert all(one == ids(batches) for one in seen)
    assert found_in(tmp_path) == []


def test_a_killed_writers_journal_is_erased_from_its_log(tmp_path: Path) -> None:
    with writing_process(tmp_path, 0, 40) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"ack 30\n":
            pass
        process.send_signal(signal.SIGKILL)
    batches = read(tmp_path)
    log = next((tmp_path / "w1").glob("*-wal"))
    assert log.stat().st_size
    SqliteEraser(tmp_path).erase(places(batches, range(31)))
    assert all(one.erased for batch in read(tmp_path) for one in batch.requests[:31])
    asyncio.run(write(tmp_path, [request(100)]))
    assert ids(read(tmp_path)) == [*ids(batches), request(100).request_id]


def test_kill_9_at_any_time_leaves_it_as_it_was_or_done(tmp_path: Path) -> None:
    numbers = range(0, 150, 3)
    everything = [
        of_jane(n) if n in numbers else request(n, body=b"%d" % n * 900) for n in range(150)
    ]
    asyncio.run(write(tmp_path, everything))
    before = read(tmp_path)
    chance = random.Random(5)
    for _ in range(4):
        code = (
            "import sys; from pathlib import Path; from tests.journal import test_erasing as t\n"
            "folder = Path(sys.argv[1]); found = t.places(t.read(folder), range(0, 150, 3))\n"
            "print('go', flush=True); t.SqliteEraser(folder).erase(found)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(chance.random() * 0.08)
        process.kill()
        process.wait()
        process.stdout.close()
        for was, now in zip(before, read(tmp_path), strict=True):
            for one, other in zip(was.requests, now.requests, strict=True):
                assert other in (one, stub(one, WAS))
                assert CANARY in one.body or other == one
    SqliteEraser(tmp_path).erase(places(before, numbers))
    assert found_in(tmp_path) == []
    assert ids(read(tmp_path)) == ids(before)


def test_what_was_never_acknowledged_goes_too(tmp_path: Path) -> None:
    """A batch behind the good end, as a recovery after a failed write may bring it back."""
    asyncio.run(write(tmp_path, [of_jane(1)]))
    asyncio.run(write(tmp_path, [request(2)]))
    batches = read(tmp_path)
    connection = apsw.Connection(str(tmp_path / "w1" / "00000001.sqlite"))
    connection.execute(
        "INSERT INTO batches SELECT 2, committed_at, first_at, last_at, requests, counts, crc32, "
        "data FROM batches WHERE n = 1"
    )
    connection.close()
    SqliteEraser(tmp_path).erase(places(batches, [1]))
    assert found_in(tmp_path) == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [of_jane(n) for n in range(9)]))
    batches = read(tmp_path)
    path = tmp_path / "w1" / "00000001.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE batches SET crc32 = crc32 + 1 WHERE n = 2")
    connection.close()
    (tmp_path / "w1" / "00000001.sqlite-wal.damaged").write_bytes(b"?")
    done = SqliteEraser(tmp_path).erase(places(batches, range(9)))
    assert done.requests == 6
    assert ["batch 2" in done.left[0], "-wal.damaged" in done.left[1]] == [True, True]


def test_a_segment_that_has_expired_is_nothing_to_do(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [request(1)]))
    wanted: Mapping[Position, Mapping[int, Erased]] = {Position(1, 99_000_000_001): {0: WAS}}
    assert SqliteEraser(tmp_path).erase(wanted).requests == 0


@contextmanager
def writing_process(folder: Path, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A writer of its own, one request after the other; ended with the block."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.journal.writing_process",
            *(str(folder), str(first), str(count), "0.0"),
        ],
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
