"""The data folder's version mark: which layout it has, and which Headwater wrote it last.

``version`` in the data folder is JSON, ``{"format": 1, "headwater": "0.1.0"}``. It speaks of the
folder as a whole: what lies where, and what the files mean to each other. Files go on saying their
own format (a segment's row, ``user_version`` of a registry file, the store's `schema_versions`) and
are migrated by whoever opens them.

A folder of an older format is taken forward one step after the other, and marked after each, so
that a start that is cut short goes on where it was. A newer one is refused: whoever does not know
its meaning would write into it what the newer Headwater takes for something else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

import headwater
from headwater.errors import DataError
from headwater.folder import Folder

#: The layout that this Headwater writes.
FORMAT = 1

NAME = "version"
#: There while a backup is being put in place.
RESTORING = "restoring"
#: Held by a running server's two halves; an upgrade needs both.
LOCKS = ("lock-collect", "lock")


class Mark(msgspec.Struct):
    """What the file says."""

    format: int
    headwater: str = ""


def _mark_only(folder: Folder) -> None:
    """0 to 1: the mark itself. What an older folder lacks, each file's owner makes when it opens
    it: people, sessions and erasures in the registry, the store's newer tables."""


#: (the format that a step leads to, the step); a step may be repeated.
STEPS: tuple[tuple[int, Callable[[Folder], None]], ...] = ((1, _mark_only),)


def read_mark(folder: Folder) -> Mark | None:
    """The mark; None for an empty folder, format 0 for one from before there were marks.
    Raises DataError."""
    path = folder.root / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except FileNotFoundError:
        return Mark(0) if any(folder.journal.glob("w*")) or any(folder.store.glob("*")) else None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}",
            remedy=f'write {{"format": {FORMAT}}} into it if this Headwater wrote the folder',
        ) from error


def open_version(folder: Folder, *, held: tuple[str, ...]) -> None:
    """Mark a new folder, take an older one forward, refuse a newer one. `held` names the locks
    that the caller has. Raises DataError, FolderInUse."""
    if (folder.root / RESTORING).exists():
        raise DataError(
            f"a backup was being put into {folder.root}, and that did not end",
            remedy="delete what is in the folder, and restore again",
        )
    mark = read_mark(folder)
    if mark is None:
        _write(folder, Mark(FORMAT, headwater.__version__))
        return
    if mark.format > FORMAT:
        by = f", written by Headwater {mark.headwater}" if mark.headwater else ""
        raise DataError(
            f"the data folder {folder.root} is of format {mark.format}{by}; "
            f"this is Headwater {headwater.__version__}, which knows up to {FORMAT}",
            remedy="run the newer Headwater, or restore a backup that an older one took",
        )
    if mark.format < FORMAT:
        with ExitStack() as locks:
            for name in LOCKS:
                if name not in held:
                    lock = folder.lock(name, "upgrading the data folder")
                    locks.callback(os.close, lock)
            for format, step in STEPS:
                if format > mark.format:
                    step(folder)
                    _write(folder, Mark(format, headwater.__version__))
    elif mark.headwater != headwater.__version__:
        _write(folder, Mark(FORMAT, headwater.__version__))


def _write(folder: Folder, mark: Mark) -> None:
    """Atomically and durably: half a mark would keep the folder shut."""
    path = folder.root / NAME
    fresh = folder.root / f"{NAME}.{os.getpid()}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(mark) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    root = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(root)
    finally:
        os.close(root)
