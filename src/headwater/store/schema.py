"""The schema: versioned .sql files, applied in order when the store is opened.

Each file's statements may run again, so a start that was cut short repeats the file. What has been
applied is kept in `headwater_store.schema_versions`; a store of a newer Headwater is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources

from headwater.errors import DataError

_FILE = re.compile(r"(\d{4})-[a-z0-9-]+\.sql")
_VERSIONS = """CREATE TABLE IF NOT EXISTS headwater_store.schema_versions
(version UInt32, applied_at DateTime64(6, 'UTC') DEFAULT now64(6))
ENGINE = MergeTree ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""


def schema_files() -> list[tuple[int, str]]:
    """The versions that this Headwater knows, rising, with their SQL."""
    folder = resources.files("headwater.store").joinpath("schema")
    found = []
    for file in folder.iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.append((int(match[1]), file.read_text()))
    return sorted(found)


def statements(sql: str) -> list[str]:
    """The statements of a file: a semicolon at the end of a line ends one; ``--`` lines are
    comments."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [text.strip() for text in "\n".join([*lines, ""]).split(";\n") if text.strip()]


def apply_schema(
    command: Callable[[str], object], versions: Callable[[str], Sequence[Sequence[int]]]
) -> None:
    """Bring the store to the newest version. `command` runs a statement, `versions` a query.
    Raises DataError for a store that a newer Headwater has written."""
    command("CREATE DATABASE IF NOT EXISTS headwater_store")
    command(_VERSIONS)
    rows = versions("SELECT max(version) FROM headwater_store.schema_versions")
    have = int(rows[0][0])
    files = schema_files()
    newest = files[-1][0]
    if have > newest:
        raise DataError(
            f"the store has schema version {have}, and this Headwater knows {newest}",
            remedy="start the newer Headwater that wrote it, or restore a backup",
        )
    for version, sql in files:
        if version > have:
            for statement in statements(sql):
                command(statement)
            done = f"INSERT INTO headwater_store.schema_versions (version) VALUES ({version})"  # noqa: S608
            command(done)
