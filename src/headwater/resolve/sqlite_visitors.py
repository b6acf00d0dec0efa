"""Gamooga's unique ids and the visitor ids they answer with, on SQLite, for several processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import apsw

from headwater import limits
from headwater.accept.request import Identified, Identify
from headwater.accept.visitor_ids import fresh_visitor_id
from headwater.clock import Clock
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import make_private, scrub, transaction
from headwater.resolve.sqlite_registry import open_registry

_SCHEMA = """
CREATE TABLE visitors (
  account TEXT NOT NULL,
  scope TEXT NOT NULL,
  user TEXT NOT NULL,
  visitor TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account, scope, user)
) WITHOUT ROWID
"""
_FIND = "SELECT visitor FROM visitors WHERE account = ? AND scope = ? AND user = ?"
_PUT = "INSERT INTO visitors VALUES (?, ?, ?, ?, ?)"
_ALL = "SELECT scope, user, visitor, created_at FROM visitors WHERE account = ?"
_TAKE = "DELETE FROM visitors WHERE account = ? AND scope = ? AND user = ?"
#: How soon another process notices that mappings were erased.
_LOOK_SECONDS = 1.0

_Key = tuple[str, str, str]


class SqliteVisitors:
    """See ``registry.Visitors``. `known` may be called while another thread identifies.

    A mapping never changes once it is made, but an erasure may take it away: then a file beside the
    database is replaced, which every process looks at once a second, and what is remembered is
    forgotten. A look-up that finds everything mapped takes no lock of the database.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._path = folder / "visitors.sqlite"
        self._sign = folder / "visitors.erased"
        self._cache: OrderedDict[_Key, str] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._database = open_registry(self._path, _SCHEMA)
        self._database.pragma("secure_delete", 1)
        self._database_lock = threading.Lock()
        self._erasures = self._erased()
        self._look_at = 0.0

    def known(self, account: str, question: Identify) -> Identified | None:
        """See ``registry.Visitors.known``: only when every one of the users is mapped."""
        first = ""
        with self._cache_lock:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_SECONDS
                self._notice_erasures()
            for user in question.users:
                key = (account, question.scope, user)
                visitor = self._cache.get(key)
                if visitor is None:
                    return None
                self._cache.move_to_end(key)
                first = first or visitor
        return Identified(visitor=first, created=False)

    def identify(self, account: str, question: Identify) -> Identified:
        """See ``registry.Visitors.identify``."""
        return self.identify_many([(account, question)])[0]

    def identify_many(self, questions: Sequence[tuple[str, Identify]]) -> list[Identified]:
        """See ``registry.Visitors.identify_many``. All or none: an error answers nobody."""
        found: dict[_Key, str] = {}
        erasures = self._erased()
        try:
            with self._database_lock:
                answers = [self._look_up(*each, found) for each in questions]
                if None in answers:
                    with transaction(self._database):
                        answers = [
                            known or self._assign(*each, found)
                            for known, each in zip(answers, questions, strict=True)
                        ]
        except apsw.Error as error:
            raise RegistryFailed(
                f"{self._path} did not answer: {error}",
                remedy="free space or repair the disk; the client is asked to try again",
            ) from error
        with self._cache_lock:
            self._notice_erasures()
            if self._erasures == erasures:
                self._cache.update(found)
            while len(self._cache) > limits.visitor_cache_max:
                self._cache.popitem(last=False)
        return [answer for answer in answers if answer is not None]

    def _find(self, key: _Key) -> str | None:
        visitor: str | None = self._database.execute(_FIND, key).get
        return visitor

    def _look_up(
        self, account: str, question: Identify, found: dict[_Key, str]
    ) -> Identified | None:
        """The answer when all users are mapped already."""
        keys = [(account, question.scope, user) for user in question.users]
        mapped = {key: visitor for key in keys if (visitor := self._find(key)) is not None}
        found |= mapped
        if len(mapped) < len(keys):
            return None
        return Identified(visitor=mapped[keys[0]], created=False)

    def _assign(self, account: str, question: Identify, found: dict[_Key, str]) -> Identified:
        """Identity rule 10, under the write lock: the first mapped user answers and the unmapped
        are mapped to it; with none mapped, the visitor that was sent, else a fresh one."""
        keys = [(account, question.scope, user) for user in question.users]
        # Another process, or a question before this one, may have mapped some meanwhile.
        mapped = {key: visitor for key in keys if (visitor := self._find(key)) is not None}
        created = not mapped and not question.visitor
        visitor = next(iter(mapped.values()), question.visitor) or fresh_visitor_id()
        now = self._clock()
        for key in dict.fromkeys(keys):
            if key not in mapped:
                self._database.execute(_PUT, (*key, visitor, now))
                mapped[key] = visitor
        found |= mapped
        return Identified(visitor=visitor, created=created)

    # --- erasing --------------------------------------------------------------------------------

    def mapped(self, account: str) -> list[tuple[str, str, str, int]]:
        """See ``registry.Visitors.mapped``. Raises RegistryFailed."""
        try:
            with self._database_lock:
                return list(self._database.execute(_ALL, (account,)))
        except apsw.Error as error:
            raise RegistryFailed(f"{self._path} did not answer: {error}") from error

    def erase(self, account: str, users: Sequence[tuple[str, str]]) -> None:
        """Take away the mappings of some (scope, user), without a trace in the files, those of
        earlier calls that were cut short included. Every process forgets them within about a
        second. Raises RegistryFailed."""
        try:
            with self._database_lock:
                with transaction(self._database):
                    for key in users:
                        self._database.execute(_TAKE, (account, *key))
                self._say_erased()
                scrub(self._database, limits.registry_busy_seconds_max)
        except (apsw.Error, OSError) as error:
            raise RegistryFailed(
                f"{self._path} was not cleaned: {error}",
                remedy="free space or repair the disk, then erase again",
            ) from error
        with self._cache_lock:
            self._notice_erasures()

    def _say_erased(self) -> None:
        fresh = self._sign.with_suffix(f".{os.getpid()}.new")
        make_private(fresh)
        fresh.write_text(secrets.token_hex(8))
        fresh.replace(self._sign)

    def _erased(self) -> tuple[int, int]:
        """What is another after each erasure."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self._sign)
            return found.st_ino, found.st_mtime_ns
        return 0, 0

    def _notice_erasures(self) -> None:
        erasures = self._erased()
        if erasures != self._erasures:
            self._erasures = erasures
            self._cache.clear()

    def close(self) -> None:
        self._database.close()
