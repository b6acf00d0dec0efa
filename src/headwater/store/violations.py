"""How often events broke their account's tracking plan, counted as exactly as the books.

Theory of operation. Counts are absolute and belong to a loaded range of the journal. They are
written before the range's watermark, so no loaded event is missing in them; what is cut short in
between lies beyond the watermark, and :meth:`Violations.forget_after` takes it away before that
stretch is loaded again. A replay writes a range's counts anew, with a higher version, and zero for
what no longer occurs, in one insert. Duplicates are not counted: they are no rows either. What has
been erased meanwhile is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.accept.request import Request
from headwater.event import Violation
from headwater.store.session import Writing

#: account, dialect, name, mode, rule, day since 1970
_Key = tuple[str, str, str, str, str, int]
_DAY_US = 86_400_000_000
_TABLE = "headwater_store.violation_rows"
_EPOCH = date(1970, 1, 1)
_SCHEMA = pa.schema(
    [
        ("account", pa.string()),
        ("dialect", pa.string()),
        ("name", pa.string()),
        ("mode", pa.string()),
        ("rule", pa.string()),
        ("day", pa.date32()),
        ("writer", pa.uint16()),
        ("last", pa.uint64()),
        ("folded", pa.uint8()),
        ("events", pa.uint64()),
        ("first_seen", pa.timestamp("us", "UTC")),
        ("last_seen", pa.timestamp("us", "UTC")),
        ("request_id", pa.binary(16)),
        ("version", pa.uint64()),
    ]
)


class _Count(msgspec.Struct):
    events: int = 0
    first: int = 0
    last: int = 0
    request_id: bytes = bytes(16)


class Counts:
    """Of one range. Times in microseconds."""

    def __init__(self) -> None:
        self.counts: dict[_Key, _Count] = {}

    def add(self, request: Request, violation: Violation) -> None:
        """Count one event. Beyond `plan_counts_max` kinds names are left out."""
        at = request.received_at
        name = violation.name[: limits.plan_text_chars_max]
        for rule in violation.rules:
            key = (request.account, request.dialect, name, violation.mode, rule, at // _DAY_US)
            count = self.counts.get(key)
            if count is None:
                if len(self.counts) >= limits.plan_counts_max:
                    key = (*key[:2], "", *key[3:])
                count = self.counts.setdefault(key, _Count(first=at))
            count.events += 1
            count.first = min(count.first, at)
            if at >= count.last:
                count.last, count.request_id = at, request.request_id


#: Counts by range: (writer, last batch).
CountsByRange = Mapping[tuple[int, int], Counts]


class Violations:
    """The counts of one store; `writing` is ``Store.writing()``. All raise StoreError."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def forget_after(self, watermarks: Mapping[int, int]) -> None:
        """Take away what lies beyond the watermarks: counts of loads that were cut short."""
        known = " OR ".join(f"(writer = {w} AND last <= {last})" for w, last in watermarks.items())
        beyond = f"NOT ({known or '0'})"
        if self._writing.rows(f"SELECT count() FROM {_TABLE} WHERE {beyond}")[0][0]:  # noqa: S608
            self._writing.command(f"DELETE FROM {_TABLE} WHERE {beyond}")  # noqa: S608

    def write(self, found: CountsByRange, *, version: int) -> None:
        """Add the counts of ranges that are being loaded. `version` is the time in microseconds."""
        rows = [
            _row(key, place, count, version)
            for place, counts in found.items()
            for key, count in counts.counts.items()
        ]
        self._insert(rows)

    def rewrite(
        self, writer: int, lasts: Sequence[int], found: CountsByRange, version: int
    ) -> None:
        """Replace the counts of some ranges of a writer."""
        rows = []
        for last, *words, day in self._writing.rows(
            "SELECT last, toString(account), toString(dialect), name, toString(mode), rule, "  # noqa: S608
            f"toUInt32(day) FROM {_TABLE} FINAL WHERE folded = 0 AND events > 0 "
            f"AND writer = {writer} AND last BETWEEN {min(lasts)} AND {max(lasts)}"
        ):
            key: Any = (*words, int(day))
            counts = found.get((writer, last))
            if last in lasts and (counts is None or key not in counts.counts):
                rows.append(_row(key, (writer, last), _Count(), version))
        rows += [
            _row(key, place, count, version)
            for place, counts in found.items()
            for key, count in counts.counts.items()
        ]
        self._insert(rows)

    def fold(self, before: int) -> None:
        """Add up what was loaded before a time (microseconds) and no replay reaches any more. A
        fold counts whole from the moment it is inserted, and hides what it stands for; it may be
        cut short anywhere."""
        for writer, last in self._writing.rows(
            f"SELECT writer, max(last) FROM {_TABLE} WHERE version < {before} "  # noqa: S608
            "GROUP BY writer HAVING countIf(folded = 0) > 0"
        ):
            within = f"writer = {writer} AND last <= {last}"
            bound = f"(SELECT max(last) FROM {_TABLE} WHERE folded = 1 AND writer = {writer})"  # noqa: S608
            self._writing.command(
                f"INSERT INTO {_TABLE} SELECT account, dialect, name, mode, rule, day, {writer}, "  # noqa: S608
                f"{last}, 1, sum(events) AS events_, min(first_seen), max(last_seen), "
                "argMax(request_id, last_seen), max(version) "
                f"FROM {_TABLE} FINAL WHERE {within} AND events > 0 "
                f"AND ((folded = 0 AND last > {bound}) OR (folded = 1 AND last = {bound})) "
                "GROUP BY account, dialect, name, mode, rule, day"
            )
            self._writing.command(
                f"DELETE FROM {_TABLE} WHERE {within} AND NOT (folded = 1 AND last = {last})"  # noqa: S608
            )

    def _insert(self, rows: Iterable[dict[str, Any]]) -> None:
        batch = pa.RecordBatch.from_pylist(list(rows), schema=_SCHEMA)
        if batch.num_rows:
            self._writing.insert(_TABLE, batch)


def _row(key: _Key, place: tuple[int, int], count: _Count, version: int) -> dict[str, Any]:
    account, dialect, name, mode, rule, day = key
    return {
        "account": account,
        "dialect": dialect,
        "name": name.encode("utf-8", "backslashreplace").decode(),
        "mode": mode,
        "rule": rule,
        "day": _EPOCH + timedelta(days=day),
        "writer": place[0],
        "last": place[1],
        "folded": 0,
        "events": count.events,
        "first_seen": count.first,
        "last_seen": count.last,
        "request_id": count.request_id,
        "version": version,
    }
