"""What a writer finds in its folder when it starts: where the journal ends, and in what state."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import apsw

from headwater.errors import DataError
from headwater.journal.sqlite_log import commits_behind
from headwater.journal.sqlite_segment import (
    NewerFormat,
    Segment,
    delete_segment,
    segment_numbers,
    segment_path,
    sidecars,
)

_log = logging.getLogger("headwater.journal")


@dataclass(frozen=True)
class Found:
    """`last` is the segment that was written last, to be retired; None when there is none or it is
    damaged. `tail` is where the batches end: a segment, and its last batch (None: not known)."""

    next_number: int
    spare: Segment | None
    last: Segment | None
    tail: tuple[int | None, int | None]


def find_tail(folder: Path, writer: int) -> Found:
    """Look at the newest segments; raises DataError, apsw.Error when they cannot be looked at."""
    numbers = segment_numbers(folder)
    next_number = numbers[-1] + 1 if numbers else 1
    spare: Segment | None = None
    for number in reversed(numbers):
        path = segment_path(folder, number)
        try:
            segment = Segment(folder, writer, number)
        except NewerFormat as error:
            raise DataError(f"{path}: {error}", remedy="run the newer Headwater") from error
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, ValueError) as error:
            # Readers say what is lost with it. Its successor has numbers of its own.
            _log.error("%s is damaged (%s); it is left as it is, a new file goes on", path, error)
            return Found(next_number, spare, None, (number, None))
        if segment.activated:
            return Found(next_number, spare, segment, _tail(segment))
        if number == numbers[-1]:
            spare = segment
        else:
            segment.abandon()
            delete_segment(path)
    return Found(next_number, spare, None, (None, None))


def _tail(segment: Segment) -> tuple[int | None, int | None]:
    """Where the segment's batches end, those that a damaged log still shows included."""
    frames, _ = segment.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    log, _, damaged = sidecars(segment.path)
    behind = commits_behind(log, max(frames, 0))
    if behind < 2:
        return segment.tail
    shutil.copyfile(log, damaged)
    damaged.chmod(0o600)
    _log.error(
        "%s is damaged: it shows %d commits behind batch %d that cannot be read; "
        "it is kept as %s - restore it from a backup if those were not loaded yet",
        log,
        behind,
        segment.n,
        damaged.name,
    )
    return segment.number, segment.n + behind
