"""Whether the journal is the one that the store was loaded from.

Batches are numbered on from the journal's last segment, and the store skips what it has loaded by
number. A journal that was deleted, or put back as it was earlier, would begin again below that: its
requests would be acknowledged and never become visible. So the hub writes down, in ``loaded.json``,
which segment of each writer it has come to, and a start compares. The file changes with a segment,
some 64 MiB of journal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import msgspec

from headwater.errors import DataError
from headwater.folder import Folder
from headwater.journal.sqlite_file import sync_folder
from headwater.journal.sqlite_segment import SEGMENT_SPAN, segment_numbers

log = logging.getLogger("headwater.journal")

NAME = "loaded.json"
#: An operator makes this file to go on without what the journal held.
GIVEN_UP = "journal-lost"


class LoadedSegments:
    """The hub's end: told of each writer's last loaded batch, as often as it may be."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._written: dict[int, int] = {}

    def note(self, marks: Mapping[int, int]) -> None:
        """Write down what has changed. A disk that is full is no reason to stop loading."""
        segments = {writer: mark // SEGMENT_SPAN for writer, mark in marks.items()}
        if segments == self._written:
            return
        try:
            path = self._folder.root / NAME
            fresh = path.with_suffix(".new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(segments) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            sync_folder(self._folder.root)
        except OSError as error:
            log.warning("how far loading got cannot be written: %s", error)
            return
        self._written = segments


def loaded_segments(folder: Folder) -> dict[int, int]:
    """Each writer's last segment that something was loaded from. Raises DataError."""
    path = folder.root / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[int, int], strict=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy="delete it") from error


def missing(folder: Folder) -> str:
    """What of the journal is gone that the store had been loaded from; empty when nothing is.
    Raises DataError."""
    for writer, loaded in sorted(loaded_segments(folder).items()):
        place = folder.journal / f"w{writer}"
        numbers = segment_numbers(place) if place.is_dir() else []
        if not numbers or numbers[-1] < loaded:
            there = f"ends with segment {numbers[-1]}" if numbers else "has no segment"
            return f"{place} {there}, and the store was loaded up to segment {loaded}"
    return ""


def remedy(folder: Folder) -> str:
    """What an operator can do about it."""
    return (
        "put the journal back (is its disk mounted?), or restore a backup; if it is lost for good, "
        f"`touch {folder.root / GIVEN_UP}` and start again: what it held and was not loaded is lost"
    )


def check_journal(folder: Folder) -> None:
    """At a start, before anything is accepted. Raises DataError."""
    waiver = folder.root / GIVEN_UP
    gone = missing(folder)
    if gone and not waiver.exists():
        raise DataError(f"a part of the journal is missing: {gone}", remedy=remedy(folder))
    if not gone:
        waiver.unlink(missing_ok=True)
    else:
        log.error("going on without a part of the journal: %s", gone)


def first_segment(folder: Folder, writer: int) -> int:
    """Where a writer may begin at the earliest: behind what is loaded. Raises DataError."""
    return loaded_segments(folder).get(writer, 0) + 1
