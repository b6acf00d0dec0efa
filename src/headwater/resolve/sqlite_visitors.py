"""Gamooga's unique ids and the visitor ids they answer with, on SQLite, for several processes."""

from __future__ import annotations

import secrets
import string
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import apsw

from headwater import limits
from headwater.accept.request import Identified, Identify
from headwater.clock import Clock
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import transaction
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
_ALPHABET = string.digits + string.ascii_lowercase
_VISITOR_CHARACTERS = 16  # 82 bits: no two are alike by chance

_Key = tuple[str, str, str]


class SqliteVisitors:
    """See ``registry.Visitors``. `known` may be called while another thread identifies.

    A mapping never changes once it is made, so what is remembered is right for ever, and a look-up
    that finds everything mapped takes no lock.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._path = folder / "visitors.sqlite"
        self._cache: OrderedDict[_Key, str] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._database = open_registry(self._path, _SCHEMA)
        self._database_lock = threading.Lock()

    def known(self, account: str, question: Identify) -> Identified | None:
        """See ``registry.Visitors.known``: only when every one of the users is mapped."""
        first = ""
        with self._cache_lock:
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
        if mapped:
            visitor = next(iter(mapped.values()))
        else:
            visitor = question.visitor or "".join(
                secrets.choice(_ALPHABET) for _ in range(_VISITOR_CHARACTERS)
            )
        now = self._clock()
        for key in dict.fromkeys(keys):
            if key not in mapped:
                self._database.execute(_PUT, (*key, visitor, now))
                mapped[key] = visitor
        found |= mapped
        return Identified(visitor=visitor, created=created)

    def close(self) -> None:
        self._database.close()
