"""What is known about people beside the rows: overrides of who did an event, merges, pulses.

Theory of operation. A row is stored with who did it as far as was known then. What is learned later
is an override, in a small table with a dictionary over it, which the views look up row by row:
`attributions` by the row's subject, `aliases` by the principal, `resessions` by the person. Each
write replaces what its key had, is durable, and is in force once the dictionary is loaded again.

:meth:`PeopleStore.fold` writes the overrides into the rows: an ALTER TABLE … UPDATE sets principal
and session to what the views show (the same expressions: they are columns of the table), then the
overrides are dropped. As long as an override is there it gives the same answer for rows that have
been rewritten and for those that have not, so a reader never sees a difference, and what was cut
short anywhere is simply done again. Aliases are few and stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.errors import StoreError
from headwater.resolve.evidence import Evidence, Merge, Moment, Pulse, Resession
from headwater.resolve.keys import NOBODY
from headwater.resolve.sessions import DERIVED
from headwater.store.clickhouse import EVENTS, EVENTS_STAGED
from headwater.store.rows import uuid_text
from headwater.store.session import Writing, quoted

_TIME = pa.timestamp("us", "UTC")
_ID = pa.binary(16)
_VERSION = pa.field("version", pa.uint64())
_SCHEMAS = {
    "attributions": pa.schema(
        [
            ("key", _ID),
            ("bounds", pa.list_(pa.binary())),
            ("principals", pa.list_(_ID)),
            _VERSION,
        ]
    ),
    "aliases": pa.schema([("principal", _ID), ("person", _ID), _VERSION]),
    "resessions": pa.schema(
        [
            ("account", pa.string()),
            ("dialect", pa.string()),
            ("scope", pa.string()),
            ("person", _ID),
            ("bounds", pa.list_(pa.int64())),
            ("sessions", pa.list_(_ID)),
            _VERSION,
        ]
    ),
    "merge_rows": pa.schema(
        [
            ("account", pa.string()),
            ("merge_id", _ID),
            ("at", _TIME),
            ("kept", _ID),
            ("gone", _ID),
            ("cause", _ID),
            ("first", _ID),
            ("second", _ID),
            ("undone_at", _TIME),
            ("gone_away", pa.bool_()),
            _VERSION,
        ]
    ),
    "pulses": pa.schema(
        [("account", pa.string()), ("session_id", _ID), ("closed", pa.bool_()), ("at", _TIME)]
    ),
    "erasures_rows": pa.schema(
        [
            ("account", pa.string()),
            ("person_id", _ID),
            ("erased_at", _TIME),
            ("receipt", pa.string()),
        ]
    ),
}
#: Ids in one condition: the index filters still leave most granules unread.
_IDS_ASKED = 200
_HOUR_US = 3_600_000_000
_TOUCHED = (
    "subject IN (SELECT key FROM headwater_store.attributions) "
    "OR (derived AND (account, dialect, scope, person) IN "
    "(SELECT account, dialect, scope, person FROM headwater_store.resessions))"
)
#: Tables that are folded, and their dictionaries.
_FOLDED = {"attributions": "attributed", "resessions": "resessioned"}
_DERIVED = ", ".join(f"'{dialect}'" for dialect in sorted(DERIVED))


class PeopleStore:
    """One for a store; `writing` is ``Store.writing()``. Any thread. What is written is durable and
    seen by readers when the call returns; of two rows with one key in a call the last counts. All
    raise StoreError."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._version = max(
            int(writing.rows(f"SELECT max(version) FROM headwater_store.{table}")[0][0])  # noqa: S608
            for table in ("attributions", "aliases", "resessions", "merge_rows")
        )
        #: While a fold is under way: of each table how many rows go, up to which version.
        self._folding: dict[str, tuple[int, int]] = {}

    # --- told -----------------------------------------------------------------------------------

    def write_attributions(
        self, rows: Sequence[tuple[bytes, Sequence[tuple[bytes, bytes]]]]
    ) -> None:
        """For each subject [(from order, principal)], the orders rising, the first one ``b""``; a
        row's principal is that of the last order not beyond its own, NOBODY for nobody."""
        written = {}
        for subject, pieces in rows:
            assert pieces[0][0] == b"", "the first piece reaches back for ever"
            written[subject] = {
                "key": subject,
                "bounds": [order for order, _ in pieces],
                "principals": [principal for _, principal in pieces],
            }
        several = any(len(row["bounds"]) > 1 for row in written.values())
        kind = "pieces" if several else ""
        self._write("attributions", written.values(), dictionary="attributed", kind=kind)

    def write_aliases(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """(principal, person); a principal that is its own person is an alias no more."""
        written = {
            principal: {"principal": principal, "person": person} for principal, person in rows
        }
        self._write("aliases", written.values(), dictionary="aliased")

    def write_resessions(self, rows: Sequence[Resession]) -> None:
        """The derived sessions of some persons, instead of those in the rows."""
        written = {
            (row.account, row.dialect, row.scope, row.person): msgspec.structs.asdict(row)
            for row in rows
        }
        self._write("resessions", written.values(), dictionary="resessioned", kind="sessions")

    def write_merges(self, rows: Sequence[Merge]) -> None:
        """Merges, by their ids."""
        written = {(row.account, row.merge_id): msgspec.structs.asdict(row) for row in rows}
        self._write("merge_rows", written.values())

    def write_pulses(self, rows: Sequence[Pulse]) -> None:
        """Signs of life; of each session the last heartbeat and the last close count, so writing
        one again changes nothing."""
        last: dict[tuple[str, bytes, bool], int] = {}
        for row in rows:
            key = (row.account, row.session_id, row.closed)
            last[key] = max(row.at, last.get(key, row.at))
        self._insert(
            "pulses",
            [
                {"account": account, "session_id": session, "closed": closed, "at": at}
                for (account, session, closed), at in last.items()
            ],
        )

    def write_erasure(self, account: str, person: bytes, *, at: int, receipt: str) -> None:
        """A receipt (JSON text) of what was erased at a time in microseconds."""
        row = {"account": account, "person_id": person, "erased_at": at, "receipt": receipt}
        self._insert("erasures_rows", [row])

    def _write(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        dictionary: str = "",
        kind: str = "",
    ) -> None:
        written = list(rows)
        if not written:
            return
        self._version += 1
        self._insert(table, [{**row, "version": self._version} for row in written])
        if kind and not self._known(kind):
            # First: a query must look at all of what is new.
            load_dictionaries(self._writing, "overrides")
        if dictionary:
            load_dictionaries(self._writing, dictionary, "touched")

    def _known(self, kind: str) -> bool:
        """Whether readers know that there are overrides of a kind, a column of `overrides`."""
        sql = f"SELECT dictGet('headwater_store.overrides', '{kind}', toUInt64(0))"
        return bool(self._writing.rows(sql)[0][0])

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            batch = pa.RecordBatch.from_pylist(list(rows), schema=_SCHEMAS[table])
            self._writing.insert(f"headwater_store.{table}", batch)

    # --- asked ----------------------------------------------------------------------------------

    def evidence(self, account: str, keys: Sequence[bytes]) -> list[Evidence]:
        """Every stored event that carries one of some keys, once, in their order."""
        found: dict[bytes, Evidence] = {}
        for some in _pieces(keys):
            sql = (
                "SELECT CAST(event_order, 'FixedString(36)'), UUIDToNum(event_id), "  # noqa: S608
                "toString(dialect), JSONExtractBool(raw, 'alias'), "
                "CAST(identities.namespace, 'Array(String)'), "
                "CAST(identities.strength, 'Array(String)'), arrayMap(UUIDToNum, keys) "
                f"FROM {EVENTS} WHERE account = {quoted(account)} "
                f"AND hasAny(keys, CAST([{some}], 'Array(UUID)'))"
            )
            for block in self._writing.blocks(sql):
                for order, event_id, dialect, alias, namespaces, strengths, carried in block:
                    found[order] = Evidence(
                        order,
                        event_id,
                        dialect,
                        bool(alias),
                        [
                            one
                            for one in zip(namespaces, strengths, carried, strict=True)
                            if one[2] != NOBODY
                        ],
                    )
        return [found[order] for order in sorted(found)]

    def moments(self, account: str, persons: Sequence[bytes]) -> list[Moment]:
        """The events of some persons whose sessions are derived, as a reader sees them, in
        order."""
        found = [
            Moment(*row)
            for some in _pieces(persons)
            for row in seen_rows(
                self._writing,
                account,
                some,
                "UUIDToNum(person), toString(dialect), toString(scope), "
                "toUnixTimestamp64Micro(ordered_at), CAST(event_order, 'FixedString(36)'), "
                "UUIDToNum(session_now)",
                f"dialect IN ({_DERIVED})",
            )
        ]
        return sorted(found, key=lambda moment: moment.order)

    # --- folded ---------------------------------------------------------------------------------

    def fold(self, now: int) -> int:
        """Write the overrides into the rows when there are too many of them, or the oldest is an
        hour old at `now` (microseconds); call it now and then. The first call begins, while the
        engine works nothing waits for it, and the first call after that ends it and says how many
        went. Rows that are inserted meanwhile must know what the overrides say."""
        if self._folding:
            return self._end_fold()
        counted = {
            table: self._writing.rows(
                "SELECT count(), toUnixTimestamp64Micro(min(written_at)), max(version) "  # noqa: S608
                f"FROM headwater_store.{table}"
            )[0]
            for table in _FOLDED
        }
        if any(
            count > limits.overrides_max or (count and oldest < now - _HOUR_US)
            for count, oldest, _ in counted.values()
        ):
            for table in (EVENTS, EVENTS_STAGED):
                self._writing.command(
                    f"ALTER TABLE {table} UPDATE principal = owner, session_id = session_now "
                    f"WHERE {_TOUCHED} "
                    "SETTINGS mutations_sync = 0, allow_nondeterministic_mutations = 1"
                )
            self._folding = {
                table: (int(count), int(version)) for table, (count, _, version) in counted.items()
            }
        return 0

    @property
    def folding(self) -> bool:
        """Whether a fold has begun and not ended."""
        return bool(self._folding)

    def _end_fold(self) -> int:
        tables = ", ".join(f"'{table.partition('.')[2]}'" for table in (EVENTS, EVENTS_STAGED))
        unfinished = self._writing.rows(
            "SELECT table, mutation_id, latest_fail_reason FROM system.mutations "  # noqa: S608
            f"WHERE database = 'headwater_store' AND table IN ({tables}) AND NOT is_done"
        )
        failed = [row for row in unfinished if row[2]]
        for table, mutation, _ in failed:
            self._writing.command(
                "KILL MUTATION WHERE database = 'headwater_store' "
                f"AND table = '{table}' AND mutation_id = '{mutation}' SYNC"
            )
        if failed:
            self._folding = {}
            raise StoreError(f"overrides could not be written into the rows: {failed[0][2]}")
        if unfinished:
            return 0
        for table, (count, version) in self._folding.items():
            if count:
                self._writing.command(
                    f"ALTER TABLE headwater_store.{table} DELETE WHERE version <= {version} "
                    "SETTINGS mutations_sync = 2"
                )
                reload(self._writing, _FOLDED[table])
        gone = sum(count for count, _ in self._folding.values())
        self._folding = {}
        return gone


def reload(writing: Writing, *dictionaries: str) -> None:
    """Put in force what has become of the tables under some dictionaries. Raises StoreError.

    What kinds of overrides there are comes first, so that a query looks at all of one that is new;
    which rows to look them up for comes last, so that it finds them."""
    load_dictionaries(writing, "overrides", *dictionaries, "touched")


def load_dictionaries(writing: Writing, *dictionaries: str) -> None:
    """Load some dictionaries again, in this order. Raises StoreError."""
    for one in dictionaries:
        writing.command(f"SYSTEM RELOAD DICTIONARY headwater_store.{one}")


def seen_rows(
    writing: Writing, account: str, persons: str, columns: str, where: str = "1"
) -> Iterator[Sequence[Any]]:
    """`columns` of the rows that a reader sees as those of some persons (:func:`id_list`), found
    through the indices: by the principal that they were stored with, or by a subject whose override
    or whose alias leads to one of them. Raises StoreError."""
    rows = writing.rows(
        "SELECT DISTINCT principal FROM headwater_store.aliases FINAL "  # noqa: S608
        f"WHERE person IN ({persons})"
    )
    principals = ", ".join([persons, *(f"'{row[0]}'" for row in rows)])
    subjects = (
        "SELECT key FROM headwater_store.attributions FINAL "  # noqa: S608
        f"WHERE hasAny(principals, CAST([{principals}], 'Array(UUID)'))"
    )
    common = f"account = {quoted(account)} AND ({where}) AND person IN ({persons})"
    sql = (
        f"SELECT {columns} FROM {EVENTS} WHERE principal IN ({principals}) AND {common} "  # noqa: S608
        f"UNION ALL SELECT {columns} FROM {EVENTS} WHERE subject IN ({subjects}) "
        f"AND principal NOT IN ({principals}) AND {common}"
    )
    for block in writing.blocks(sql):
        yield from block


def id_list(ids: Iterable[bytes]) -> str:
    """Ids as the inside of a list in SQL."""
    return ", ".join(f"'{uuid_text(one)}'" for one in ids)


def _pieces(ids: Sequence[bytes]) -> Iterator[str]:
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), _IDS_ASKED):
        yield id_list(distinct[start : start + _IDS_ASKED])
