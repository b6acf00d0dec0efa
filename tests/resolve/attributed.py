"""Attribution over a real registry, fed in batches, with rows in memory where the store would be.

What a reader sees is worked out as the view of the store does: an override by subject and order,
else the principal as known when the row was made, then the aliases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from headwater.resolve.attribution import Attribution, Who
from headwater.resolve.evidence import Evidence, Merge
from headwater.resolve.keys import NOBODY, Pieces, key_id, order_bytes, owner_at
from headwater.resolve.sqlite_people import SqlitePeople
from headwater.store.rows import event_ids
from tests.resolve.histories import Kept, stored
from tests.resolve.reference import Label, Pair

#: How the work on a batch may end: well, or cut short after a step of it.
ENDS = ("well", "resolved", "stored", "settled")


class Row(NamedTuple):
    dialect: str
    who: Who
    subject: bytes
    principal: bytes
    keys: list[bytes]

    @property
    def order(self) -> bytes:
        who = self.who
        return order_bytes(who.ordered_at, who.received_at, who.request_id, who.index)


class Rows:
    """See ``registry.StoredPeople``."""

    def __init__(self) -> None:
        self.rows: dict[Label, Row] = {}
        self.attributions: dict[bytes, Pieces] = {}
        self.people: dict[bytes, bytes] = {}
        self.merges: dict[bytes, Merge] = {}

    def evidence(self, account: str, keys: Sequence[bytes]) -> list[Evidence]:
        assert keys
        wanted = set(keys)
        return [
            Evidence(
                row.order,
                row.who.event_id,
                row.dialect,
                row.who.alias,
                [
                    (one.namespace, one.strength, key)
                    for one, key in zip(row.who.identities, row.keys, strict=True)
                    if key != NOBODY
                ],
            )
            for row in self.rows.values()
            if row.who.account == account and wanted & set(row.keys)
        ]

    def write_attributions(self, rows: Sequence[tuple[bytes, Pieces]]) -> None:
        for subject, pieces in rows:
            assert subject != NOBODY
            assert pieces[0][0] == b""
            assert list(pieces) == sorted(pieces, key=lambda piece: piece[0])
            self.attributions[subject] = tuple(pieces)

    def write_aliases(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        for principal, person in rows:
            self.people[principal] = person

    def write_merges(self, rows: Sequence[Merge]) -> None:
        for merge in rows:
            self.merges[merge.merge_id] = merge

    # --- reading --------------------------------------------------------------------------------

    def persons(self) -> dict[Label, bytes | None]:
        """By event its person, as the view shows it."""
        return {label: self._person(row) for label, row in self.rows.items()}

    def _person(self, row: Row) -> bytes | None:
        principal: bytes | None = row.principal
        if row.subject in self.attributions:
            principal = owner_at(self.attributions[row.subject], row.order)
        if principal is None or principal == NOBODY:
            return None
        return self.people.get(principal, principal)


class Attributed:
    """An engine and its rows. `cut` ends it as a kill does; it goes on with what was durable."""

    def __init__(self, folder: Path, shared: Mapping[str, frozenset[str]]) -> None:
        folder.mkdir()
        (folder / "people.sqlite").write_bytes(_empty_registry())
        self.folder = folder
        self.rows = Rows()
        self._shared = shared
        self._batch = 0
        self.loaded: list[Kept] = []
        self._open()

    def _open(self) -> None:
        self.people = SqlitePeople(self.folder)
        self.engine = Attribution(
            self.people, self.rows, shared=lambda account: self._shared.get(account, frozenset())
        )

    def cut(self) -> None:
        self.people.close()
        self._open()

    def load(self, batch: Sequence[Kept], end: str = "well") -> None:
        """Take in a batch of events, at the second try if the first is cut short."""
        self._batch += 1
        whos = whos_of(batch, self._batch)
        if end != "well":
            self._try(batch, whos, ENDS.index(end))
            self.cut()
        self._try(batch, whos, len(ENDS))
        self.loaded += batch

    def _try(self, batch: Sequence[Kept], whos: Sequence[Who], steps: int) -> None:
        resolved = self.engine.resolve(whos)
        assert all(resolved.keep)
        if steps > 1:
            for place, kept in enumerate(batch):
                row = Row(
                    kept.request.dialect,
                    whos[place],
                    resolved.subjects[place],
                    resolved.principals[place],
                    list(resolved.keys[place]),
                )
                self.rows.rows.setdefault(stored(kept).label, row)
        if steps > 2:
            self.engine.settle()
        if steps > 3:
            self.engine.settled()

    def withdraw(self, pair: Pair, at: int) -> None:
        """Undo what joins two keys, as a user does."""
        self.engine.withdraw(*ids_of(pair), at=at)
        self._settle()

    def allow(self, pair: Pair) -> None:
        self.engine.allow(*ids_of(pair))
        self._settle()

    def _settle(self) -> None:
        self.engine.settle()
        self.engine.settled()

    def close(self) -> None:
        self.people.close()


def ids_of(pair: Pair) -> tuple[bytes, bytes]:
    one, other = sorted(pair)
    return key_id(*one), key_id(*other)


@cache
def _empty_registry() -> bytes:
    """A registry as it is made: copied, since making one takes longer than a history."""
    with tempfile.TemporaryDirectory() as folder:
        SqlitePeople(Path(folder)).close()
        return (Path(folder) / "people.sqlite").read_bytes()


def whos_of(batch: Sequence[Kept], number: int) -> list[Who]:
    """What the loader asks about a batch."""
    ids: pa.Array = event_ids([kept.event for kept in batch], [kept.request for kept in batch])
    return [
        Who(
            account=kept.request.account,
            identities=kept.event.identities,
            alias=bool(kept.event.raw.get("alias")),
            ordered_at=stored(kept).ordered_at,
            received_at=kept.request.received_at,
            request_id=kept.request.request_id,
            index=kept.event.index,
            event_id=event_id,
            writer=0,
            batch=number,
        )
        for kept, event_id in zip(batch, ids.to_pylist(), strict=True)
    ]
