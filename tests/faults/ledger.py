"""What clients were promised, and whether the store kept it.

The ledger is the clients' side of the books: a line for each answer, on disk (fsync) before the
client goes on. Afterwards :func:`violations` compares it with what SQL sees. It knows nothing of
how Headwater works.

A mark (``m123``) names an event and is used once. What the event must hold, and whose it is, follow
from the mark alone.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

DIALECTS = ("vaix", "orbee", "nucleus", "vibetrace", "gamooga")
ACCOUNTS = ("acme", "other")
USERS = 50
_MARK = re.compile(r"m\d+$")
_SHOWN = 5

Books = Mapping[tuple[str, str], Mapping[str, int]]


def account_of(mark: str) -> str:
    """Whose key the event is sent with."""
    return ACCOUNTS[int(mark[1:]) % 3 == 0]


def user_of(mark: str) -> str:
    """Who did it: one of some people, the same names in each account."""
    return f"user-{int(mark[1:]) % USERS}"


def content_of(mark: str) -> str:
    """A property of the event, to be found again to the letter."""
    return f"{mark} Ünï ☃ {zlib.crc32(mark.encode()):08x}"


class Stored(NamedTuple):
    """Rows of `events` that are alike: whose, what they are called and hold, how many."""

    account: str
    dialect: str
    name: str
    content: str
    often: int


class Promised(NamedTuple):
    """What the answers said, by mark, read back from disk. Whoever was refused or got no answer and
    then was acknowledged (clients of Nucleus send again) is in `acknowledged` only."""

    dialects: dict[str, str]
    acknowledged: set[str]
    rejected: set[str]
    refused: set[str]
    doubtful: set[str]


class Ledger:
    """Marks that were sent, and what was answered. Each word about a mark returns once durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._next = 0
        self.sent: Counter[str] = Counter()
        self.visitors: dict[tuple[str, str], set[str]] = {}
        #: When each answer came (monotonic), its status (0: none came), seconds since it was asked.
        self.answers: list[tuple[float, int, float]] = []

    def mark(self, dialect: str, account: str = "") -> str:
        """A fresh mark for an event of `dialect` (and `account`); noted before it is sent."""
        self._next += 1
        while account and account_of(f"m{self._next}") != account:
            self._next += 1
        self.sent[dialect] += 1
        os.write(self._file, f"sent m{self._next} {dialect}\n".encode())
        return f"m{self._next}"

    def acknowledge(self, marks: Iterable[str]) -> None:
        """The server has promised to keep these."""
        self._note("acknowledged", marks)

    def reject(self, marks: Iterable[str]) -> None:
        """The server said that these are no events; they are kept as rejected."""
        self._note("rejected", marks)

    def refuse(self, marks: Iterable[str]) -> None:
        """The server said that it does not keep these."""
        self._note("refused", marks)

    def doubt(self, marks: Iterable[str]) -> None:
        """No answer came."""
        self._note("doubtful", marks)

    def visitor(self, account: str, user: str, visitor: str) -> None:
        """Which visitor Gamooga's /id/ gave for a unique id."""
        self.visitors.setdefault((account, user), set()).add(visitor)

    def _note(self, word: str, marks: Iterable[str]) -> None:
        lines = "".join(f"{word} {mark}\n" for mark in marks)
        if lines:
            os.write(self._file, lines.encode())
            os.fsync(self._file)

    def promised(self) -> Promised:
        """Everything that was sent and answered, read back from disk."""
        dialects: dict[str, str] = {}
        said: dict[str, set[str]] = {
            word: set() for word in ("acknowledged", "rejected", "refused", "doubtful")
        }
        for line in self._path.read_text().splitlines():
            word, mark, *dialect = line.split()
            if word == "sent":
                dialects[mark] = dialect[0]
            else:
                said[word].add(mark)
        # A mark in doubt may be stored, also when a later try was refused; one without any answer
        # at the end of a run is in doubt too.
        answered = said["acknowledged"] | said["rejected"]
        said["doubtful"] |= dialects.keys() - answered - said["refused"]
        said["doubtful"] -= answered
        said["refused"] -= answered | said["doubtful"]
        return Promised(dialects, **said)

    def close(self) -> None:
        os.close(self._file)


def violations(
    promised: Promised,
    stored: Iterable[Stored],
    books: Books,
    visitors: Mapping[tuple[str, str], set[str]],
    rejected: Mapping[tuple[str, str], int] | None = None,
) -> list[str]:
    """Every broken promise, in words; empty when there is none.

    `books` are the rows of `accounting` once nothing is in flight, `visitors` the visitor ids that
    each unique id was given, `rejected` how many rows that table has by account and dialect.
    """
    seen: Counter[str] = Counter()
    visible: Counter[tuple[str, str]] = Counter()
    foreign, strange, changed = [], [], []
    for row in stored:
        visible[row.account, row.dialect] += row.often
        found = _MARK.search(row.name)
        if found is None:
            continue
        mark = found[0]
        seen[mark] += row.often
        if promised.dialects.get(mark) != row.dialect:
            strange.append(mark)
        elif account_of(mark) != row.account:
            foreign.append(mark)
        elif content_of(mark) != row.content:
            changed.append(mark)
    wrong = [
        *_said("acknowledged and lost", promised.acknowledged - seen.keys()),
        *_said("stored more than once", (mark for mark, count in seen.items() if count > 1)),
        *_said("stored and never sent", strange),
        *_said("stored in another account", foreign),
        *_said("stored with other content", changed),
        *_said("refused and stored", promised.refused & seen.keys()),
        *_said("rejected and stored", promised.rejected & seen.keys()),
    ]
    for (account, user), given in visitors.items():
        if len(given) > 1:
            wrong.append(f"gamooga: {account}/{user} has {len(given)} visitors: {sorted(given)}")
    for key, counts in books.items():
        if rejected is not None and counts["rejected"] != rejected.get(key, 0):
            wrong.append(f"{key}: {counts['rejected']} rejected, {rejected.get(key, 0)} visible")
    return wrong + _wrong_books(promised, seen, visible, books)


def _said(what: str, marks: Iterable[str]) -> list[str]:
    found = sorted(marks, key=lambda mark: int(mark[1:]))
    return [f"{len(found)} {what}, such as {found[:_SHOWN]}"] if found else []


def _wrong_books(
    promised: Promised, seen: Mapping[str, int], visible: Counter[tuple[str, str]], books: Books
) -> list[str]:
    """Where `accounting` differs from the sets."""
    wrong = []
    sure: Counter[tuple[str, str]] = Counter()
    unsure: Counter[tuple[str, str]] = Counter()
    for marks, count in ((promised.rejected, sure), (promised.doubtful, unsure)):
        for mark in marks - seen.keys():
            count[account_of(mark), promised.dialects[mark]] += 1
    for key, row in books.items():
        name = "/".join(key)
        closed = row["stored"] + row["duplicate"] + row["rejected"] + row["in_flight"]
        if row["received"] != closed:
            wrong.append(f"{name}: the books do not close: {dict(row)}")
        if row["stored"] != visible[key]:
            wrong.append(f"{name}: {row['stored']} stored, {visible[key]} visible")
        if row["duplicate"] and key[1] != "nucleus":
            wrong.append(f"{name}: {row['duplicate']} duplicates of events that were sent once")
        if not sure[key] <= row["rejected"] <= sure[key] + unsure[key]:
            wrong.append(
                f"{name}: {row['rejected']} rejected, {sure[key]} were said to be, "
                f"and {unsure[key]} had no answer"
            )
    wrong += [
        f"{'/'.join(key)}: visible, and not in the books" for key in visible.keys() - books.keys()
    ]
    return wrong
