"""What a write-ahead log holds behind the point at which SQLite stopped reading it.

A log's frames are chained by checksums, and SQLite takes the first that does not fit for the end:
right for a transaction that was cut off by a power loss, but one flipped bit in the middle ends the
log as silently. Frames carry the log's two salts, and the last frame of a transaction is marked, so
the commits that follow can be counted (https://sqlite.org/fileformat2.html#the_write_ahead_log).
"""

from __future__ import annotations

import struct
from pathlib import Path

_LOG_HEAD = struct.Struct(">IIIIIIII")  # magic, version, page size, sequence, salts, checksums
_FRAME_HEAD = struct.Struct(">IIIIII")  # page, pages after commit or 0, salts, checksums


def commits_behind(log: Path, frames: int) -> int:
    """How many transactions of the same log end behind its first `frames` frames.

    None is a clean end. One is the transaction that a power loss cut off (its pages may reach the
    disk in any order): never acknowledged. Two or more are damage, since a writer never begins a
    transaction before the one before it is on disk.
    """
    try:
        with log.open("rb") as file:
            head = file.read(_LOG_HEAD.size)
            if len(head) < _LOG_HEAD.size:
                return 0
            magic, _, page_bytes, _, *salts, _, _ = _LOG_HEAD.unpack(head)
            if magic not in (0x377F0682, 0x377F0683):
                return 0
            found = 0
            place = _LOG_HEAD.size + frames * (_FRAME_HEAD.size + page_bytes)
            while True:
                file.seek(place)
                frame = file.read(_FRAME_HEAD.size)
                if len(frame) < _FRAME_HEAD.size:
                    return found
                _, pages, *frame_salts, _, _ = _FRAME_HEAD.unpack(frame)
                found += pages != 0 and frame_salts == salts
                place += _FRAME_HEAD.size + page_bytes
    except FileNotFoundError:
        return 0
