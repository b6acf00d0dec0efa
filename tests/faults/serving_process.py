"""Headwater with a part changed: ``python -m tests.faults.serving_process CHANGE COMMAND --config F``.

The whole server, its processes wired as ever, but for one thing. With CHANGE

- ``whole`` the loader ends itself by SIGKILL at the checkpoint that the file ``die-at`` beside the
  configuration names (and takes that file away);
- ``unsynced`` the journal's commits do not wait for the disk;
- ``unreconciled`` the loader forgets to ask the store what a load that was cut short has left;
- ``undeduped`` every dedupe key is taken for a new one.

The last three are the negative controls: the checker must find what they break.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater import app

CHANGES = ("whole", "unsynced", "unreconciled", "undeduped")
DIE_AT = "die-at"


class Wired(app.Supervisor):
    """Starts this module's children."""

    change = "whole"

    def _prepare(self, say: Callable[[str], None]) -> None:
        super()._prepare(say)
        for child in (*self._workers, *([self._hub] if self._hub else [])):
            child._arguments[1:2] = [
                "tests.faults.serving_process",
                self.change,
                child._arguments[1],
            ]


def supervise(change: str, command: str, config: Path) -> int:
    Wired.change = change
    app.Supervisor = Wired  # type: ignore[misc]
    return app.run(config, hub=command != "collect", collectors=command != "load")


def collect(change: str, arguments: list[str]) -> int:
    """A collector."""
    from headwater import collector
    from headwater.journal import sqlite_segment

    if change == "unsynced":
        opened = sqlite_segment.Segment.__init__

        def open_unsynced(segment: Any, folder: Path, writer: int, number: int) -> None:
            opened(segment, folder, writer, number)
            segment.connection.pragma("synchronous", "off")

        sqlite_segment.Segment.__init__ = open_unsynced  # type: ignore[method-assign]
    return collector.main(arguments)


def load(change: str, arguments: list[str]) -> int:
    """A hub."""
    from headwater import hub
    from headwater.resolve.sqlite import SqliteRegistry
    from headwater.store.clickhouse import Store

    class Forgetful(Store):
        def places_after(self, table: str, watermarks: Mapping[int, int]) -> set[Any]:
            return set()

    class Blind(SqliteRegistry):
        def claim(self, claims: Sequence[Any], *, received_at: Any) -> list[bool]:
            return [True] * len(super().claim(claims, received_at=received_at))

    class Parts(hub.Parts):
        def __init__(self, config: Any, folder: Any, *given: Any, **named: Any) -> None:
            super().__init__(config, folder, *given, **named)
            beside = Path(folder.root).parent

            def reached(checkpoint: str) -> None:
                aim = beside / DIE_AT
                if aim.exists() and aim.read_text() == checkpoint:
                    aim.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)

            self.loader._checkpoint = reached

    hub.Parts = Parts  # type: ignore[misc]
    if change == "unreconciled":
        hub.Store = Forgetful  # type: ignore[misc]
    if change == "undeduped":
        hub.SqliteRegistry = Blind  # type: ignore[misc]
    return hub.main(arguments)


def main() -> int:
    change, what, *rest = sys.argv[1:]
    assert change in CHANGES, change
    if what == "headwater.collector":
        return collect(change, rest)
    if what == "headwater.hub":
        return load(change, rest)
    return supervise(change, what, Path(rest[rest.index("--config") + 1]))


if __name__ == "__main__":
    sys.exit(main())
