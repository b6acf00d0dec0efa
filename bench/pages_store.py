"""A store of many events for bench.pages, made inside ClickHouse from numbers: `fill`.

The shape is that of a shop and its app for 30 days: of 10 million events 700,000 people,
1.5 million sessions, all five dialects, late identifications that are not folded yet. Rows come in
the order of time, as a loader brings them; everything follows from the row's number, so two runs
are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headwater.store.people import reload
from headwater.store.session import Writing

ACCOUNT = "bench"
DAYS = 30
#: People and rejected requests, of an event each; and people who were identified late, joined, or
#: whose sessions were cut anew.
PERSONS_OF = 600_000 / 10_000_000
LATE = 1_600
JOINED = 200
RESESSIONED = 200
REJECTED_OF = 0.01
#: Midnight, 30 days later midnight: 2026-10-21, 2026-11-20 (UTC), in seconds.
BEGAN = 1_792_540_800
_ROWS_AN_INSERT = 100_000


_STRONG = "reinterpretAsUUID(MD5(concat('s', {p})))"
_WEAK = "reinterpretAsUUID(MD5(concat('w', {p}, {dialect})))"


def fill(writing: Writing, events: int, told: Callable[[int], None] = lambda _: None) -> None:
    """Fill an empty store. `told` is called with how many events there are. Raises StoreError."""
    persons = max(int(events * PERSONS_OF), 10)
    late = min(LATE, persons // 4)
    template = Path(__file__).with_name("pages_rows.sql").read_text()
    given = {
        "events": events,
        "persons": persons,
        "late": late,
        "began": BEGAN,
        "days": DAYS,
        "strong": _STRONG.format(p="ps"),
        "weak": _WEAK.format(p="ps", dialect="dialect_"),
    }
    for start in range(0, events, _ROWS_AN_INSERT):
        count = min(_ROWS_AN_INSERT, events - start)
        rows = template
        for name, value in {**given, "start": start, "count": count}.items():
            rows = rows.replace(f"@{name}@", str(value))
        writing.command(
            f"INSERT INTO headwater_store.events_rows {rows} "
            "SETTINGS max_threads = 2, max_block_size = 20000, insert_deduplicate = 0"
        )
        told(start + count)
    _overrides(writing, late)
    _beside(writing, events)


def _overrides(writing: Writing, late: int) -> None:
    """Who of the first people was identified late, joined, had sessions cut anew: not folded."""
    strong = _STRONG.format(p="toString(number)")
    weak = _WEAK.format(p="toString(number)", dialect="'nucleus'")
    whole = f"numbers({late}) WHERE number % 10 >= 4"
    writing.command(
        "INSERT INTO headwater_store.attributions (key, bounds, principals, version) "
        f"SELECT {weak}, [''], [{strong}], 1 FROM {whole}"
    )
    writing.command(
        "INSERT INTO headwater_store.merge_rows SELECT any(account), "
        "reinterpretAsUUID(MD5(toString(keys))), min(ordered_at), keys[1], keys[2], "
        "argMin(event_id, ordered_at), keys[1], keys[2], NULL, 0, 1 "
        "FROM headwater_store.events_rows WHERE dialect = 'nucleus' AND length(keys) = 3 "
        "AND keys[2] IN (SELECT key FROM headwater_store.attributions) GROUP BY keys"
    )
    other = _STRONG.format(p="toString(number + 20000)")
    writing.command(
        "INSERT INTO headwater_store.aliases (principal, person, version) "
        f"SELECT {other}, {strong}, 1 FROM numbers({JOINED})"
    )
    writing.command(
        "INSERT INTO headwater_store.resessions "
        "(account, dialect, scope, person, bounds, sessions, version) "
        f"SELECT 'bench', 'vaix', 'group-a', {strong}, "
        f"[toInt64({BEGAN}) * 1000000], "
        "[reinterpretAsUUID(MD5(concat('cut', toString(number))))], 1 "
        f"FROM numbers({RESESSIONED})"
    )
    reload(writing, "attributed", "aliased", "resessioned")


def _beside(writing: Writing, events: int) -> None:
    """Rejected requests, the books, signs of life."""
    writing.command(
        "INSERT INTO headwater_store.rejected_rows SELECT generateUUIDv4(), 'bench', "
        "['vaix', 'nucleus', 'orbee', 'vibetrace', 'gamooga'][number % 5 + 1], 'app1', "
        f"fromUnixTimestamp64Micro(toInt64({BEGAN}) * 1000000 + number * "
        f"intDiv({DAYS} * 86400000000, {int(events * REJECTED_OF) + 1}), 'UTC'), "
        "['bad_json', 'missing_field', 'bad_type', 'unknown_type'][number % 4 + 1], "
        "'data: expected an object', repeat('POST /api/tracker/events x ', 8), 'http', 0, 1, "
        f"number, 0, 0 FROM numbers({int(events * REJECTED_OF)})"
    )
    writing.command(
        "INSERT INTO headwater_store.loads SELECT 1, number * 10, number * 10 + 10, 10, 'bench', "
        "['vaix', 'nucleus', 'orbee', 'vibetrace', 'gamooga'][number % 5 + 1], 1000, 980, 10, 10, "
        f"number, 0, 1, fromUnixTimestamp64Micro(toInt64({BEGAN} + number * 2) * 1000000, 'UTC') "
        f"FROM numbers({events // 1000})"
    )
    writing.command(
        "INSERT INTO headwater_store.pulses SELECT 'bench', "
        "reinterpretAsUUID(MD5(concat('session', toString(number * 7)))), number % 2, "
        f"fromUnixTimestamp64Micro(toInt64({BEGAN} + number * 12) * 1000000, 'UTC') "
        f"FROM numbers({events // 50})"
    )
