"""What clients were promised, and whether the store kept it.

The ledger is the clients' side of the books: a line for each acknowledgement, on disk (fsync)
before the client goes on. Afterwards :func:`violations` compares it with what SQL sees. It knows
nothing of how Headwater works.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

_MARK = re.compile(r"m\d+$")


class Ledger:
    """Acknowledged marks, and those that are resent until acknowledged.

    A mark (``m123``) is the end of an event's name and is used once. `acknowledge` returns once the
    line is durable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._next = 0
        self.sent: Counter[str] = Counter()
        self.visitors: dict[str, set[str]] = {}

    def mark(self, dialect: str) -> str:
        """A fresh mark for an event of `dialect`."""
        self._next += 1
        self.sent[dialect] += 1
        return f"m{self._next}"

    def acknowledge(self, dialect: str, marks: Iterable[str]) -> None:
        """Note that the server has promised these."""
        os.write(self._file, "".join(f"{dialect} {mark}\n" for mark in marks).encode())
        os.fsync(self._file)

    def visitor(self, user: str, visitor: str) -> None:
        """Note which visitor Gamooga's /id/ gave for a unique id."""
        self.visitors.setdefault(user, set()).add(visitor)

    def acknowledged(self) -> dict[str, set[str]]:
        """Dialect to its acknowledged marks, read back from disk."""
        found: dict[str, set[str]] = {}
        for line in self._path.read_text().splitlines():
            dialect, mark = line.split()
            found.setdefault(dialect, set()).add(mark)
        return found

    def close(self) -> None:
        os.close(self._file)


def violations(
    acknowledged: Mapping[str, set[str]],
    stored: Iterable[tuple[str, str, int]],
    books: Mapping[tuple[str, str], Mapping[str, int]],
    visitors: Mapping[str, set[str]],
) -> list[str]:
    """Every broken promise, in words; empty when there is none.

    `stored` are (dialect, event name, how often SQL sees it), `books` the rows of `accounting` once
    nothing is in flight, `visitors` the visitor ids that each unique id was given.
    """
    seen: dict[str, Counter[str]] = {}
    visible: Counter[str] = Counter()
    for dialect, name, count in stored:
        visible[dialect] += count
        mark = _MARK.search(name)
        if mark is not None:
            seen.setdefault(dialect, Counter())[mark[0]] += count
    wrong = []
    for dialect, marks in acknowledged.items():
        lost = sorted(marks - seen.get(dialect, Counter()).keys())
        if lost:
            wrong.append(f"{dialect}: {len(lost)} acknowledged and lost, such as {lost[:5]}")
    for dialect, counts in seen.items():
        double = sorted(mark for mark, count in counts.items() if count > 1)
        if double:
            wrong.append(f"{dialect}: {len(double)} stored more than once, such as {double[:5]}")
    for (account, dialect), row in books.items():
        closed = row["stored"] + row["duplicate"] + row["rejected"] + row["in_flight"]
        if row["received"] != closed:
            wrong.append(f"{account}/{dialect}: the books do not close: {dict(row)}")
        if row["stored"] != visible[dialect]:
            wrong.append(f"{account}/{dialect}: {row['stored']} stored, {visible[dialect]} visible")
    for user, given in visitors.items():
        if len(given) > 1:
            wrong.append(f"gamooga: {user} was given {len(given)} visitors: {sorted(given)}")
    return wrong
