"""The registry on SQLite: two files, for several processes.

`visitors.sqlite` is written by the collectors, `seen.sqlite` by the loader; both in WAL mode with
synchronous=FULL, so that what is answered is on disk, and what one process has committed the others
see.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from headwater.accept.request import Identified, Identify
from headwater.clock import Clock
from headwater.resolve.desk import VisitorDesk
from headwater.resolve.registry import Claim
from headwater.resolve.sqlite_seen import SqliteSeen
from headwater.resolve.sqlite_visitors import SqliteVisitors

__all__ = ["SqliteRegistry", "VisitorDesk"]


class SqliteRegistry:
    """See ``registry.Visitors`` and ``registry.Seen``.

    Opens the visitors at once, so that a collector that cannot answer does not start; the keys
    seen, which only the hub needs, at the first claim. Both raise DataError.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._visitors = SqliteVisitors(folder, clock)
        self._opening = threading.Lock()
        self._opened_seen: SqliteSeen | None = None

    @property
    def _seen(self) -> SqliteSeen:
        with self._opening:
            if self._opened_seen is None:
                self._opened_seen = SqliteSeen(self._folder)
            return self._opened_seen

    def identify(self, account: str, question: Identify) -> Identified:
        return self._visitors.identify(account, question)

    def identify_many(self, questions: Sequence[tuple[str, Identify]]) -> list[Identified]:
        return self._visitors.identify_many(questions)

    def known(self, account: str, question: Identify) -> Identified | None:
        return self._visitors.known(account, question)

    def mapped(self, account: str) -> list[tuple[str, str, str, int]]:
        return self._visitors.mapped(account)

    def erase(self, account: str, users: Sequence[tuple[str, str]]) -> None:
        self._visitors.erase(account, users)

    def claim(self, claims: Sequence[Claim], *, received_at: int) -> list[bool]:
        return self._seen.claim(claims, received_at=received_at)

    def forget(self, before: int) -> int:
        return self._seen.forget(before)

    def close(self) -> None:
        """Close what was opened."""
        self._visitors.close()
        with self._opening:
            if self._opened_seen is not None:
                self._opened_seen.close()
                self._opened_seen = None
