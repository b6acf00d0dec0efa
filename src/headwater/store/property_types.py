"""Which types the properties of each event name have had, and since when: a profile by samples.

Theory of operation. One window of received_at after another is looked at, each once: of every
name a few rows, whose paths and types are counted in proportion to all of the name's. A window's
counts go in with one insert, together with a row that says how far the profile has got, so that
whatever is cut short is done anew or was done. It is a profile and no account: what a replay
changes in a window that has been looked at stays as it was seen.

No value is kept. A key that looks like data itself (an address, a number, a hash) stands as ``*``,
so that an erasure has nothing to look for here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.store.clickhouse import EVENTS
from headwater.store.session import Writing

_TABLE = "headwater_store.property_type_rows"
_EPOCH = date(1970, 1, 1)
_SECOND = 1_000_000
_DAY_US = 86_400 * _SECOND
_SCHEMA = pa.schema(
    [
        ("account", pa.string()),
        ("dialect", pa.string()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("type", pa.string()),
        ("day", pa.date32()),
        ("first_seen", pa.timestamp("us", "UTC")),
        ("last_seen", pa.timestamp("us", "UTC")),
        ("seen", pa.uint64()),
    ]
)
_NAME = "account, dialect, name"
#: Keys that are data: with an @, a number, a long hexadecimal word, a UUID.
_DATA = re.compile(r".*@.*|[0-9.:-]+|[0-9a-fA-F-]{16,}|.{65,}", re.DOTALL)
_WORDS = {"String": "string", "Bool": "boolean", "JSON": "object", "Object": "object"}


class Window(msgspec.Struct, frozen=True):
    """Received in [since, until), microseconds."""

    since: int
    until: int


class PropertyTypes:
    """The profile of one store; `writing` is a client of its own, beside the loader's. One thread.
    All raise StoreError."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def next_window(self, loaded_until: int) -> Window | None:
        """The next one that has events and is over by `loaded_until` (microseconds), up to which
        everything received is loaded; None when there is none yet. Far behind, windows are longer.
        """
        ((marked,),) = self._writing.rows(
            "SELECT toUnixTimestamp64Micro(max(last_seen)) "  # noqa: S608
            f"FROM {_TABLE} WHERE account = ''"
        )
        marked = int(marked)
        if marked + limits.profile_window_seconds * _SECOND > loaded_until:
            return None  # most often: no row is looked at
        # Within a day first: the day is a key, and what is to be caught up may be years.
        since = self._first(marked, marked + _DAY_US) or self._first(marked, loaded_until)
        if not 0 < since < loaded_until:
            return None
        far = loaded_until - since > 2 * limits.profile_catch_up_seconds * _SECOND
        seconds = limits.profile_catch_up_seconds if far else limits.profile_window_seconds
        length = seconds * _SECOND
        # A whole minute or hour of the clock, so never beyond a day.
        until = since // length * length + length
        return Window(max(since, marked), until) if until <= loaded_until else None

    def _first(self, since: int, until: int) -> int:
        """When the first event in [since, until) was received, 0 for none."""
        ((found,),) = self._writing.rows(
            "SELECT toUnixTimestamp64Micro(min(received_at)) "  # noqa: S608
            f"FROM {EVENTS} WHERE received_at >= fromUnixTimestamp64Micro({since}) "
            f"AND received_at < fromUnixTimestamp64Micro({until})"
        )
        return int(found)

    def profile(self, window: Window) -> int:
        """Look at one window; how many kinds of path and type were found."""
        within = (
            f"received_at >= fromUnixTimestamp64Micro({window.since}) "
            f"AND received_at < fromUnixTimestamp64Micro({window.until})"
        )
        totals = {
            tuple(map(str, row[:3])): tuple(map(int, row[3:]))
            for row in self._writing.rows(
                f"SELECT {_NAME}, count(), toUnixTimestamp64Micro(min(received_at)), "  # noqa: S608
                f"toUnixTimestamp64Micro(max(received_at)) FROM {EVENTS} WHERE {within} "
                f"GROUP BY {_NAME} ORDER BY count() DESC LIMIT {limits.profile_rows_max}"
            )
        }
        # The JSON of the chosen rows only is read: a minute may hold a million.
        chosen = (
            f"SELECT event_id FROM {EVENTS} WHERE {within} "  # noqa: S608
            f"LIMIT {limits.profile_rows_per_name_max} BY {_NAME} LIMIT {limits.profile_rows_max}"
        )
        found = self._writing.rows(
            f"SELECT {_NAME}, path, type, count() FROM (SELECT {_NAME}, "  # noqa: S608
            "JSONAllPathsWithTypes(properties) AS paths "
            f"FROM {EVENTS} PREWHERE {within} AND event_id IN ({chosen})) "
            "ARRAY JOIN arrayConcat([''], mapKeys(paths)) AS path, "
            "arrayConcat(['JSON'], mapValues(paths)) AS type "
            f"GROUP BY {_NAME}, path, type ORDER BY path != '', count() DESC "
            f"LIMIT {limits.profile_kinds_max}"
        )
        sampled = {tuple(map(str, row[:3])): int(row[5]) for row in found if row[3] == ""}
        seen: dict[tuple[str, ...], float] = {}
        for account, dialect, name, path, kind, count in found:
            key = (str(account), str(dialect), str(name))
            if key in totals:
                place = (*key, _path(path), word_of(kind))
                share = totals[key][0] / sampled[key]
                seen[place] = seen.get(place, 0.0) + count * share
        self._insert(seen, totals, window)
        return len(seen)

    def _insert(
        self,
        seen: dict[tuple[str, ...], float],
        totals: dict[tuple[str, ...], tuple[int, ...]],
        window: Window,
    ) -> None:
        day = _EPOCH + timedelta(days=window.since // _DAY_US)
        rows: list[Sequence[Any]] = [
            (*place, day, *totals[place[:3]][1:], max(1, round(count)))
            for place, count in seen.items()
        ]
        rows.append(("", "", "", "", "", day, window.since, window.until, 0))
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
        ]
        self._writing.insert(_TABLE, pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))


def word_of(kind: str) -> str:
    """A type of ClickHouse's in JSON's words; lists as ``array of string``."""
    kind = kind.removeprefix("Nullable(")
    if kind.startswith("Array("):
        return f"array of {word_of(kind[6:-1])}"
    if kind.startswith(("Int", "UInt")):
        return "integer"
    if kind.startswith("Float"):
        return "number"
    return _WORDS.get(re.split(r"[^A-Za-z]", kind, maxsplit=1)[0], "mixed")


def _path(path: str) -> str:
    if not path:
        return path
    steps = ["*" if _DATA.fullmatch(step) else step for step in path.split(".")]
    # An address holds a dot, at which the engine has cut it already.
    if "@" in path:
        steps = ["*"]
    return ".".join(steps)[: limits.profile_path_chars_max]
