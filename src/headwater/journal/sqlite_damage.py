"""Telling damage to a segment from trouble that passes, and saying what is lost."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import apsw

from headwater.errors import DataError, JournalDamaged, JournalFailed
from headwater.journal.sqlite_segment import NewerFormat

#: What SQLite says of a file whose content makes no sense; a missing table is one that is not ours.
_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.FormatError, ValueError)
#: Reads that fail for the sector's sake, not for want of memory or descriptors.
_BAD_SECTOR = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)


class Damage(Exception):
    """A stretch that cannot be read: it begins behind batch `floor` of segment `number`; with
    `whole`, nothing of the file can be read at all. `end`: the last batch that was in it."""

    def __init__(
        self,
        path: Path,
        number: int,
        floor: int,
        why: str,
        *,
        whole: bool = False,
        end: int | None = None,
    ) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.number = number
        self.floor = floor
        self.why = why
        self.whole = whole
        self.end = end


@contextmanager
def reading(path: Path, number: int, floor: int, *, whole: bool = False) -> Iterator[None]:
    """Turns SQLite's errors into Damage, JournalFailed (it passes) or DataError (newer format)."""
    try:
        yield
    except NewerFormat as error:
        raise DataError(f"{path}: {error}", remedy="run the newer Headwater") from error
    except _DAMAGE as error:
        raise Damage(path, number, floor, str(error), whole=whole) from error
    except apsw.Error as error:
        if getattr(error, "extendedresult", 0) in _BAD_SECTOR:
            raise Damage(path, number, floor, str(error), whole=whole) from error
        raise JournalFailed(
            f"{path} cannot be read just now: {error}",
            remedy="check descriptors, memory and disk space; it is tried again",
        ) from error


def writer_lives(folder: Path) -> bool:
    """Whether a process holds a writer's folder now."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def describe(damage: Damage, next_good: int | None, since: int | None, until: int | None) -> str:
    """What is lost, in words: which batches, received between when and when (microseconds)."""
    first = damage.floor + 1
    last = damage.end if next_good is None else next_good - 1
    if damage.whole:
        lost = "nothing of it can be read"
    elif last is None:
        lost = f"batch {first} and all behind it cannot be read"
    elif last <= first:
        lost = f"batch {first} cannot be read"
    else:
        lost = f"batches {first} to {last} cannot be read"
    times = [f"after {_when(since)}"] if since is not None else []
    times += [f"before {_when(until)}"] if until is not None else []
    received = f", received {' and '.join(times)}" if times else ""
    return f"the journal file {damage.path} is damaged: {lost} ({damage.why}){received}"


def _when(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{microseconds} µs"


def damaged(description: str) -> JournalDamaged:
    return JournalDamaged(
        description,
        remedy="the rest is read and the file is left as it is; to get back what is lost, stop, "
        "put the file back from a backup, start, and run `headwater replay` for that time",
    )
