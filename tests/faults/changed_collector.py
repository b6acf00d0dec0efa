"""A collector process, changed: ``CHANGE headwater.collector NUMBER DESCRIPTOR``; see
serving_process."""

from __future__ import annotations

import sys
from pathlib import Path

from headwater import collector
from headwater.journal import sqlite_writer
from headwater.journal.sqlite_segment import Segment


class Unsynced(Segment):
    """Its commits do not wait for the disk."""

    def __init__(self, folder: Path, writer: int, number: int) -> None:
        super().__init__(folder, writer, number)
        self.connection.pragma("synchronous", "off")


def main() -> int:
    change, _, *rest = sys.argv[1:]
    if change == "unsynced":
        sqlite_writer.Segment = Unsynced  # type: ignore[attr-defined]
    return collector.main(rest)


if __name__ == "__main__":
    sys.exit(main())
