"""The one chDB store of a test process: a process may open one path only, so tests share it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from headwater.store.clickhouse import Store
from headwater.store.people import reload

DICTIONARIES = {"attributions": "attributed", "aliases": "aliased", "resessions": "resessioned"}


@cache
def store_folder() -> Path:
    """Where the store and its temporary files lie."""
    return Path(tempfile.mkdtemp(prefix="headwater-store-"))


@cache
def _opened() -> Store:
    folder = store_folder()
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")

    def close() -> None:
        store.close()
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(close)
    return store


def empty_store() -> Store:
    """The store, with nothing in it."""
    store = _opened()
    rows = store.writing().rows(
        "SELECT name FROM system.tables WHERE database = 'headwater_store' "
        "AND total_rows > 0 AND engine != 'Dictionary' AND name != 'schema_versions'"
    )
    for (table,) in rows:
        store.writing().command(f"TRUNCATE TABLE headwater_store.{table}")
        if table in DICTIONARIES:
            dictionary = DICTIONARIES[table]
            reload(store.writing(), dictionary)
    return store
