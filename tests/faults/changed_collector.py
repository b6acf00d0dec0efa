"""A collector process, changed: ``CHANGE headwater.collector NUMBER DESCRIPTOR``; see
serving_process."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from headwater import collector
from headwater.accept.intake import Settings
from headwater.journal import sqlite_writer
from headwater.journal.sqlite_segment import Row, Segment

#: How long each commit takes besides, in seconds; beside the configuration.
SLOW_DISK = "slow-disk"
#: Of a crowded collector.
CONNECTIONS_MAX = 128


class Unsynced(Segment):
    """Its commits do not wait for the disk."""

    def __init__(self, folder: Path, writer: int, number: int) -> None:
        super().__init__(folder, writer, number)
        self.connection.pragma("synchronous", "off")


class Slow(Segment):
    """Its disk takes as long as a file says."""

    def __init__(self, folder: Path, writer: int, number: int) -> None:
        super().__init__(folder, writer, number)
        self._slowness = folder.parents[2] / SLOW_DISK

    def insert(self, row: Row) -> None:
        super().insert(row)
        time.sleep(float(self._slowness.read_text() or 0))


def main() -> int:
    change, _, *rest = sys.argv[1:]
    if change == "unsynced":
        sqlite_writer.Segment = Unsynced  # type: ignore[attr-defined]
    if change == "slow":
        sqlite_writer.Segment = Slow  # type: ignore[attr-defined]
    if change == "crowded":
        few = partial(Settings, connections_max=CONNECTIONS_MAX)
        collector.Settings = few  # type: ignore[attr-defined, assignment]
    return collector.main(rest)


if __name__ == "__main__":
    sys.exit(main())
