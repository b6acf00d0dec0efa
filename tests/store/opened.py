"""The one chDB store of a test process: a process may open one path only, so tests share it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from headwater.store.clickhouse import Store

TABLES = (
    "events_rows",
    "events_staged",
    "rejected_rows",
    "rejected_staged",
    "loads",
    "replays",
    "in_flight",
)


@cache
def _opened() -> Store:
    folder = Path(tempfile.mkdtemp(prefix="headwater-store-"))
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
    for table in TABLES:
        store.writing().command(f"TRUNCATE TABLE headwater_store.{table}")
    return store
