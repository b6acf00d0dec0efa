"""Damaged journal files: each is found, named with what is lost and a remedy, and the rest read."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from headwater.clock import system_clock
from headwater.errors import DataError, JournalDamaged
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader, SqliteWriter
from headwater.journal.sqlite_log import commits_behind
from headwater.journal.sqlite_segment import segment_path
from tests.journal import corrupt
from tests.journal.requests import append, ids, read_all, request

DISASTERS = sorted(module.name for module in pkgutil.iter_modules(corrupt.__path__))
#: Which of five batches cannot be read afterwards.
LOST = {
    "cut_short": {3, 4, 5},
    "empty_file": {1, 2, 3, 4, 5},
    "flipped_bit": {3},
    "flipped_bit_in_header": {1, 2, 3, 4, 5},
    "flipped_bit_in_page": {1, 2, 3, 4, 5},
    "flipped_bit_in_pointer": {3},
    "foreign_database": {1, 2, 3, 4, 5},
    "foreign_file": {1, 2, 3, 4, 5},
    "zeros_at_the_end": {3, 4, 5},
}


async def write(folder: Path, numbers: range, *, close: bool = True) -> SqliteWriter:
    """One batch a request; the bodies say which and fill some pages."""
    writer = SqliteWriter(
        folder,
        1,
        loop=asyncio.get_running_loop(),
        clock=system_clock,
        bytes_max=1 << 30,
        segment_bytes_max=4 << 20,
    )
    for number in numbers:
        body = b"body of batch %d " % number * 2000
        assert await append(writer, [request(number, body=body)]) == [None]
    if close:
        await writer.close()
    return writer


def damage_of(disaster: str) -> Callable[[Path], None]:
    damage: Callable[[Path], None] = importlib.import_module(
        f"tests.journal.corrupt.{disaster}"
    ).damage
    return damage


def read_on(reader: SqliteReader) -> tuple[list[bytes], list[JournalDamaged]]:
    """What the loader does: read, and behind damage go on."""
    found: list[bytes] = []
    told: list[JournalDamaged] = []
    after = Position(1, 0)
    while len(told) < 10:
        try:
            batches = reader.read(after, batches_max=10, bytes_max=1 << 30)
        except JournalDamaged as error:
            told.append(error)
            behind = reader.skip_damaged(after)
            assert behind > after
            after = behind
            continue
        if not batches:
            break
        found += ids(batches)
        after = batches[-1].position
    return found, told


def test_every_disaster_has_its_expectation() -> None:
    assert set(DISASTERS) == set(LOST)


@pytest.mark.parametrize("disaster", DISASTERS)
@pytest.mark.parametrize("newest", [False, True], ids=["followed", "newest"])
def test_damage_is_reported_and_the_rest_is_read(
    tmp_path: Path, disaster: str, newest: bool
) -> None:
    asyncio.run(write(tmp_path, range(1, 6)))
    path = segment_path(tmp_path / "w1", 1)
    if not newest:
        asyncio.run(write(tmp_path, range(6, 8)))
    damage_of(disaster)(path)
    reader = SqliteReader(tmp_path)
    found, told = read_on(reader)
    expected = set(range(1, 6 if newest else 8)) - LOST[disaster]
    assert found == [request(number).request_id for number in sorted(expected)]
    (error,) = told
    assert str(path) in error.message
    assert "headwater replay" in error.remedy
    pending = reader.pending({}).get(("acme", "vaix"), 0)
    assert len(expected) <= pending or disaster == "flipped_bit_in_page"
    list(reader.find())
    reader.close()


@pytest.mark.parametrize("disaster", DISASTERS)
def test_a_writer_goes_on_behind_a_damaged_file(tmp_path: Path, disaster: str) -> None:
    asyncio.run(write(tmp_path, range(1, 6)))
    damage_of(disaster)(segment_path(tmp_path / "w1", 1))
    asyncio.run(write(tmp_path, range(6, 8)))
    reader = SqliteReader(tmp_path)
    found, told = read_on(reader)
    expected = set(range(1, 8)) - LOST[disaster]
    assert found == [request(number).request_id for number in sorted(expected)]
    assert len(told) == 1
    reader.close()


def test_what_is_lost_is_said_in_numbers_and_times(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, range(1, 6)))
    damage_of("flipped_bit")(segment_path(tmp_path / "w1", 1))
    reader = SqliteReader(tmp_path)
    after = reader.read(Position(1, 0), batches_max=10, bytes_max=1 << 30)[-1].position
    with pytest.raises(JournalDamaged, match=r"batch 3 cannot be read.*received after 2026-11-21"):
        reader.read(after, batches_max=10, bytes_max=1 << 30)
    reader.close()


def test_a_bit_in_any_place_never_goes_unnoticed(tmp_path: Path) -> None:
    """Every byte that belongs to something is tried in steps: what is read is what was written,
    and what is missing was reported."""
    asyncio.run(write(tmp_path / "whole", range(1, 6)))
    whole = segment_path(tmp_path / "whole" / "w1", 1).read_bytes()
    sent = [request(number).request_id for number in range(1, 6)]
    for place in [*range(0, 200, 7), *range(200, len(whole), 1999)]:
        folder = tmp_path / f"at-{place}"
        (folder / "w1").mkdir(parents=True)
        content = bytearray(whole)
        content[place] ^= 0x04
        segment_path(folder / "w1", 1).write_bytes(content)
        reader = SqliteReader(folder)
        try:
            found, told = read_on(reader)
        except DataError as error:
            if "run the newer Headwater" in str(error):  # the format number itself was hit
                continue
            raise
        finally:
            reader.close()
            shutil.rmtree(folder)
        assert [each for each in sent if each in found] == found
        assert found == sent or told, place


def test_a_log_damaged_in_its_middle_is_told_from_one_that_was_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A killed writer's log, one bit flipped: SQLite would take the bit for the end."""
    folder = tmp_path / "w1"

    async def die() -> None:
        writer = await write(tmp_path, range(1, 6), close=False)
        shutil.copytree(folder, tmp_path / "copy")  # what a kill would leave
        await writer.close()

    asyncio.run(die())
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    (folder / "00000001.sqlite-shm").unlink()
    log = folder / "00000001.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[content.index(b"body of batch 3") + 3] ^= 0x10
    log.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        asyncio.run(write(tmp_path, range(6, 8)))
    assert "00000001.sqlite-wal is damaged" in caplog.text
    assert (folder / "00000001.sqlite-wal.damaged").exists()
    reader = SqliteReader(tmp_path)
    found, told = read_on(reader)
    assert found == [request(number).request_id for number in (1, 2, 6, 7)]
    assert "batches 3 to 5 cannot be read" in told[0].message
    reader.close()


def test_a_torn_last_transaction_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE t (x)")
    for number in range(3):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
    log = tmp_path / "log.sqlite-wal"
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    assert commits_behind(log, frames) == 0
    assert commits_behind(log, frames - 1) == 1
    assert commits_behind(log, frames - 2) == 2
    connection.close()
    assert commits_behind(log, 0) == 0, "no log, nothing behind"


def test_a_newer_headwaters_file_is_refused_with_a_message(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, range(1, 3)))
    path = segment_path(tmp_path / "w1", 1)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE segment SET format = 99")
    connection.close()
    reader = SqliteReader(tmp_path)
    with pytest.raises(DataError, match=r"format is 99.*run the newer Headwater"):
        read_all(reader)
    with pytest.raises(DataError, match=r"run the newer Headwater"):
        asyncio.run(write(tmp_path, range(3, 4)))
    reader.close()


def test_an_unreadable_newest_file_is_not_judged_while_its_writer_lives(tmp_path: Path) -> None:
    """It may be a spare, made but not used; loading goes on with the current one."""

    async def look() -> None:
        writer = await write(tmp_path, range(1, 3), close=False)
        spare = segment_path(tmp_path / "w1", 2)
        spare.write_bytes(b"")
        reader = SqliteReader(tmp_path)
        batches = read_all(reader)
        assert len(ids(batches)) == 2
        await append(writer, [request(3)])
        assert len(ids(read_all(reader))) == 3
        await writer.close()
        with pytest.raises(JournalDamaged, match="00000002"):
            read_all(reader)
        reader.close()

    asyncio.run(look())
