"""A copy of the store at one instant, beside the running store, by hard links.

Parts are never changed once they are written, so ALTER TABLE … FREEZE links the ones of the moment
in some milliseconds a table. What else chDB needs to open a folder is small and is copied: the
definitions, the links between names and tables, mutations that are noted, tokens of insertions. The
caller keeps everything still that would write meanwhile; merges may go on, they change no row.

The result is a folder like the store's own, as a crash at that instant could have left it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from headwater.errors import StoreError
from headwater.store.session import Writing

#: The name of the one snapshot there may be, below the store's folder ``shadow``.
NAME = "headwater_backup"
_TABLES = (
    "SELECT database, name, uuid FROM system.tables "
    "WHERE database IN ('headwater', 'headwater_store') AND engine LIKE '%MergeTree'"
)


def freeze(writing: Writing, store: Path, target: Path) -> None:
    """Make the copy in `target`, a new folder on the same file system. Raises StoreError."""
    release(store)
    tables = writing.rows(_TABLES)
    try:
        _copy_definitions(store, target)
        for database, name, uuid in tables:
            writing.command(f"ALTER TABLE {database}.{name} FREEZE WITH NAME '{NAME}'")
            place = Path("store", str(uuid)[:3], str(uuid))
            _copy_small_files(store / place, target / place)
        frozen = store / "shadow" / NAME / "store"
        if frozen.exists():
            _move(frozen, target / "store")
    except OSError as error:
        raise StoreError(
            f"the store cannot be copied: {error}",
            remedy="see that the disk of the data folder has room",
        ) from error
    finally:
        release(store)


def release(store: Path) -> None:
    """Let go of what a copy has left behind: it keeps old parts from being freed."""
    shutil.rmtree(store / "shadow" / NAME, ignore_errors=True)


def _copy_definitions(store: Path, target: Path) -> None:
    """The databases' and tables' definitions and names; the tables' own folders are left empty."""
    for top in ("metadata", "data"):
        shutil.copytree(store / top, target / top, symlinks=True)
    for path in (store / "store").glob("*/*/*.sql"):
        kept = target / path.relative_to(store)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)


def _copy_small_files(table: Path, target: Path) -> None:
    """A table's files beside its parts."""
    (target / "detached").mkdir(parents=True, exist_ok=True)
    for path in table.iterdir():
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    if (tokens := table / "deduplication_logs").is_dir():
        shutil.copytree(tokens, target / tokens.name)


def _move(frozen: Path, target: Path) -> None:
    for table in frozen.glob("*/*"):
        place = target / table.relative_to(frozen)
        place.mkdir(parents=True, exist_ok=True)
        for part in table.iterdir():
            os.rename(part, place / part.name)
