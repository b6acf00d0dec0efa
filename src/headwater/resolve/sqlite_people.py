"""Who owns which key, on SQLite: written by the hub alone."""

from __future__ import annotations

import array
import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from headwater import limits
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import transaction
from headwater.resolve.evidence import Merge
from headwater.resolve.keys import ID_BYTES, Pieces, pack, reborn, unpack
from headwater.resolve.registry import AliasRow, Dirty, Grave, GroupRow, Record
from headwater.resolve.sqlite_registry import open_registry

_SCHEMA = """
CREATE TABLE accounts (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE keys (
  key BLOB PRIMARY KEY,
  kind TEXT NOT NULL,
  account INTEGER NOT NULL,
  first BLOB NOT NULL,
  pieces BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE owned (owner BLOB, key BLOB, PRIMARY KEY (owner, key)) WITHOUT ROWID;
CREATE TABLE subjects (
  subject BLOB PRIMARY KEY, account INTEGER NOT NULL, members BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE watchers (key BLOB, subject BLOB, PRIMARY KEY (key, subject)) WITHOUT ROWID;
CREATE TABLE classes (principal BLOB PRIMARY KEY, person BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE aliases (
  one BLOB, other BLOB, account INTEGER NOT NULL, at BLOB NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (one, other)
) WITHOUT ROWID;
CREATE TABLE withdrawn (one BLOB, other BLOB, PRIMARY KEY (one, other)) WITHOUT ROWID;
CREATE TABLE groups (
  instance BLOB, visitor BLOB, email BLOB, at BLOB, event BLOB NOT NULL,
  PRIMARY KEY (instance, visitor, email, at)
) WITHOUT ROWID;
CREATE INDEX groups_visitor ON groups (visitor);
CREATE INDEX groups_email ON groups (email);
CREATE TABLE dirty (
  subject BLOB PRIMARY KEY, account INTEGER NOT NULL, principals BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE suspects (key BLOB PRIMARY KEY, account INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE merges (merge BLOB PRIMARY KEY, sent INTEGER NOT NULL, value BLOB NOT NULL)
  WITHOUT ROWID;
CREATE INDEX merges_unsent ON merges (merge) WHERE sent = 0;
CREATE TABLE graves (
  key BLOB PRIMARY KEY, now BLOB NOT NULL UNIQUE, generation INTEGER NOT NULL, upto BLOB NOT NULL
) WITHOUT ROWID;
"""
#: Ids come as one blob, cut up by SQLite: one statement for a whole batch.
_CUT = f"substr(?1, value * {ID_BYTES} + 1, {ID_BYTES})"
_LOAD = (
    "SELECT key, kind, account, first, pieces FROM carray(?2) "  # noqa: S608
    f"CROSS JOIN keys ON key = {_CUT}"
)
_SAVE = (
    "INSERT INTO keys VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, first = excluded.first, "
    "pieces = excluded.pieces"
)
_OWNED = f"SELECT owner, key FROM carray(?2) CROSS JOIN owned ON owner = {_CUT}"  # noqa: S608
_WATCHERS = f"SELECT key, subject FROM carray(?2) CROSS JOIN watchers ON key = {_CUT}"  # noqa: S608
_GRAVES = (
    "SELECT key, generation, upto FROM carray(?2) "  # noqa: S608
    f"CROSS JOIN graves ON key = {_CUT}"
)
_GROUPS = " UNION ".join(
    "SELECT at, instance, visitor, email, event FROM carray(?2) "  # noqa: S608
    f"CROSS JOIN groups ON {column} = {_CUT}"
    for column in ("instance", "visitor", "email")
)
#: Where a key that is forgotten may stand.
_FORGET = (
    "DELETE FROM keys WHERE key = ?1",
    "DELETE FROM owned WHERE owner = ?1 OR key = ?1",
    "DELETE FROM subjects WHERE subject IN (SELECT subject FROM watchers WHERE key = ?1)",
    "DELETE FROM watchers WHERE subject IN (SELECT subject FROM watchers WHERE key = ?1)",
    "DELETE FROM classes WHERE principal = ?1 OR person = ?1",
    "DELETE FROM aliases WHERE one = ?1 OR other = ?1",
    "DELETE FROM withdrawn WHERE one = ?1 OR other = ?1",
    "DELETE FROM groups WHERE instance = ?1 OR visitor = ?1 OR email = ?1",
    "DELETE FROM dirty WHERE subject = ?1",
)
_upto = msgspec.json.Decoder(dict[int, int])
_merge = msgspec.msgpack.Decoder(Merge)


class SqlitePeople:
    """See ``registry.People``. For one process; its methods may be called from any thread, those
    that change something from the one that is in `transaction`."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError."""
        self._path = folder / "people.sqlite"
        self._lock = threading.RLock()
        self._database = open_registry(self._path, _SCHEMA, cache_bytes=limits.people_cache_bytes)
        self._database.pragma("secure_delete", 1)
        self._database.pragma("wal_autocheckpoint", 8_000)
        self._accounts: dict[int, str] = dict(
            self._database.execute("SELECT number, name FROM accounts")
        )
        self._numbers = {name: number for number, name in self._accounts.items()}
        self._any_graves = bool(self._rows("SELECT 1 FROM graves LIMIT 1"))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                with transaction(self._database):
                    yield
            except apsw.Error as error:
                # A number that was given within it has been taken back.
                self._accounts = dict(self._database.execute("SELECT number, name FROM accounts"))
                self._numbers = {name: number for number, name in self._accounts.items()}
                raise RegistryFailed(
                    f"{self._path} did not answer: {error}",
                    remedy="free space or repair the disk; loading goes on by itself when it can",
                ) from error

    def _rows(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return list(self._database.execute(sql, values))
        except apsw.Error as error:
            raise RegistryFailed(f"{self._path} did not answer: {error}") from error

    def _each(self, sql: str, ids: Sequence[bytes]) -> list[tuple[Any, ...]]:
        if not ids:
            return []
        return self._rows(sql, (b"".join(ids), apsw.carray(array.array("i", range(len(ids))))))

    def _many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._database.executemany(sql, rows)

    def _number(self, account: str) -> int:
        number = self._numbers.get(account)
        if number is None:
            self._database.execute("INSERT INTO accounts (name) VALUES (?)", (account,))
            number = self._numbers[account] = self._database.last_insert_rowid()
            self._accounts[number] = account
        return number

    # --- keys -----------------------------------------------------------------------------------

    def load(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        accounts = self._accounts
        return {
            key: Record(kind, accounts[account], first, unpack(pieces) if pieces else ())
            for key, kind, account, first, pieces in self._each(_LOAD, sorted(keys))
        }

    def save(self, records: Mapping[bytes, Record]) -> None:
        self._many(
            _SAVE,
            [
                (key, one.kind, self._number(one.account), one.first, pack(one.pieces))
                for key, one in sorted(records.items())
            ],
        )

    def owned(self, owners: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        return [(owner, key) for owner, key in self._each(_OWNED, owners)]

    def owns(self, owner: bytes, kind: str, without: Collection[bytes]) -> bool:
        sql = (
            "SELECT owned.key FROM owned CROSS JOIN keys ON keys.key = owned.key "
            "WHERE owned.owner = ? AND keys.kind = ? LIMIT ?"
        )
        found = self._rows(sql, (owner, kind, len(without) + 1))
        return any(key not in without for (key,) in found)

    def change_owned(
        self, gone: Iterable[tuple[bytes, bytes]], come: Iterable[tuple[bytes, bytes]]
    ) -> None:
        self._many("DELETE FROM owned WHERE owner = ? AND key = ?", gone)
        self._many("INSERT OR IGNORE INTO owned VALUES (?, ?)", sorted(come))

    # --- subjects of several keys ---------------------------------------------------------------

    def watch(self, account: str, subject: bytes, members: Sequence[bytes]) -> None:
        values = (subject, self._number(account), b"".join(members))
        self._database.execute("INSERT OR IGNORE INTO subjects VALUES (?, ?, ?)", values)
        self._many(
            "INSERT OR IGNORE INTO watchers VALUES (?, ?)", [(key, subject) for key in members]
        )

    def watchers(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        return [(key, subject) for key, subject in self._each(_WATCHERS, keys)]

    def members(self, subject: bytes) -> list[bytes]:
        found = self._rows("SELECT members FROM subjects WHERE subject = ?", (subject,))
        blob = found[0][0] if found else b""
        return [blob[at : at + ID_BYTES] for at in range(0, len(blob), ID_BYTES)]

    # --- aliases, withdrawn pairs ---------------------------------------------------------------

    def classes(self) -> dict[bytes, bytes]:
        return dict(self._rows("SELECT principal, person FROM classes"))

    def set_classes(self, classes: Mapping[bytes, bytes]) -> None:
        self._many("DELETE FROM classes WHERE principal = ?", [(one,) for one in classes])
        self._many(
            "INSERT INTO classes VALUES (?, ?)",
            [(one, person) for one, person in classes.items() if one != person],
        )

    def alias(self, account: str, row: AliasRow) -> bool:
        number = self._number(account)
        before = self._rows(
            "SELECT at FROM aliases WHERE one = ? AND other = ?", (row.one, row.other)
        )
        if before and before[0][0] <= row.at:
            return False
        for one, other in ((row.one, row.other), (row.other, row.one)):
            self._database.execute(
                "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?, ?)",
                (one, other, number, row.at, row.event_id),
            )
        return not before

    def aliases(self, key: bytes) -> list[AliasRow]:
        sql = "SELECT one, other, at, event FROM aliases WHERE one = ?"
        return [AliasRow(*row) for row in self._rows(sql, (key,))]

    def drop_aliases(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
        self._many("DELETE FROM aliases WHERE one = ? AND other = ?", both)

    def withdrawn(self) -> set[tuple[bytes, bytes]]:
        return {(one, other) for one, other in self._rows("SELECT one, other FROM withdrawn")}

    def set_withdrawn(self, one: bytes, other: bytes, withdrawn: bool) -> None:
        if withdrawn:
            self._database.execute("INSERT OR IGNORE INTO withdrawn VALUES (?, ?)", (one, other))
        else:
            self._many(
                "DELETE FROM withdrawn WHERE one = ? AND other = ?", [(one, other), (other, one)]
            )

    # --- Orbee's groups -------------------------------------------------------------------------

    def group(self, row: GroupRow) -> None:
        values = (row.instance, row.visitor, row.email, row.at, row.event_id)
        if not (row.visitor and row.email):
            # Of these only the first counts: only a visitor changes hands, and only to an email.
            self._database.execute(
                "DELETE FROM groups WHERE instance = ? AND visitor = ? AND email = ? AND at > ?",
                values[:4],
            )
            known = self._rows(
                "SELECT 1 FROM groups WHERE instance = ? AND visitor = ? AND email = ?", values[:3]
            )
            if known:
                return
        self._database.execute("INSERT OR IGNORE INTO groups VALUES (?, ?, ?, ?, ?)", values)

    def groups(self, keys: Sequence[bytes]) -> list[GroupRow]:
        return [GroupRow(*row) for row in self._each(_GROUPS, keys)]

    def drop_groups(self, keys: Sequence[bytes]) -> None:
        self._many(
            "DELETE FROM groups WHERE instance = ?1 OR visitor = ?1 OR email = ?1",
            [(key,) for key in keys],
        )

    # --- what is still to be told to the store --------------------------------------------------

    def soil(self, rows: Iterable[Dirty]) -> None:
        for row in rows:
            before = self._rows("SELECT principals FROM dirty WHERE subject = ?", (row.subject,))
            principals = row.principals | (_ids(before[0][0]) if before else set())
            self._database.execute(
                "INSERT OR REPLACE INTO dirty VALUES (?, ?, ?)",
                (row.subject, self._number(row.account), b"".join(sorted(principals))),
            )

    def dirty(self) -> list[Dirty]:
        return [
            Dirty(self._accounts[account], subject, frozenset(_ids(principals)))
            for subject, account, principals in self._rows(
                "SELECT subject, account, principals FROM dirty"
            )
        ]

    def clean(self, subjects: Iterable[bytes]) -> None:
        self._many("DELETE FROM dirty WHERE subject = ?", [(one,) for one in subjects])

    def put_merge(self, merge: Merge) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO merges VALUES (?, 0, ?)",
            (merge.merge_id, msgspec.msgpack.encode(merge)),
        )

    def merge(self, merge_id: bytes) -> Merge | None:
        found = self._rows("SELECT value FROM merges WHERE merge = ?", (merge_id,))
        return _merge.decode(found[0][0]) if found else None

    def unsent_merges(self) -> list[Merge]:
        return [
            _merge.decode(value)
            for (value,) in self._rows("SELECT value FROM merges WHERE sent = 0")
        ]

    def merges_sent(self, merge_ids: Iterable[bytes]) -> None:
        for one in merge_ids:
            merge = self.merge(one)
            if merge is not None and merge.gone_away:
                self._database.execute("DELETE FROM merges WHERE merge = ?", (one,))
            else:
                self._database.execute("UPDATE merges SET sent = 1 WHERE merge = ?", (one,))

    # --- what a replay is about to change -------------------------------------------------------

    def suspect(self, account: str, keys: Iterable[bytes]) -> None:
        number = self._number(account)
        self._many("INSERT OR IGNORE INTO suspects VALUES (?, ?)", [(key, number) for key in keys])

    def suspects(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for key, number in self._rows("SELECT key, account FROM suspects"):
            found.setdefault(self._accounts[number], []).append(key)
        return found

    def cleared(self, suspects: Mapping[str, Sequence[bytes]]) -> None:
        self._many(
            "DELETE FROM suspects WHERE key = ?",
            [(key,) for keys in suspects.values() for key in keys],
        )

    # --- erasure --------------------------------------------------------------------------------

    def graves(self, keys: Sequence[bytes]) -> dict[bytes, Grave]:
        if not self._any_graves:
            return {}
        return {
            key: Grave(generation, _upto.decode(upto))
            for key, generation, upto in self._each(_GRAVES, keys)
        }

    def bury(self, keys: Sequence[bytes], upto: Mapping[int, int]) -> None:
        self._any_graves = True
        positions = msgspec.json.encode({str(writer): last for writer, last in upto.items()})
        gone = set(keys)
        for key in keys:
            before = self._rows("SELECT key, generation FROM graves WHERE now = ?", (key,))
            base, generation = before[0] if before else (key, 0)
            self._database.execute(
                "INSERT OR REPLACE INTO graves VALUES (?, ?, ?, ?)",
                (base, reborn(base, generation + 1), generation + 1, positions),
            )
            # What it owned, or was owned by, keeps no piece of it.
            for owner, other in self._rows(
                "SELECT owner, key FROM owned WHERE owner = ?1 OR key = ?1", (key,)
            ):
                if owner == key and other not in keys:
                    self._unown(other, key)
            for sql in _FORGET:
                self._database.execute(sql, (key,))
        for (value,) in self._rows("SELECT value FROM merges"):
            merge = _merge.decode(value)
            if gone & {merge.kept, merge.gone, merge.first, merge.second}:
                self._database.execute("DELETE FROM merges WHERE merge = ?", (merge.merge_id,))

    def _unown(self, key: bytes, owner: bytes) -> None:
        for record in self.load([key]).values():
            left: Pieces = tuple(piece for piece in record.pieces if piece[1] != owner)
            self.save({key: msgspec.structs.replace(record, pieces=left)})

    def scrub(self) -> None:
        with self._lock:
            try:
                self._database.execute("VACUUM")
                self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error as error:
                raise RegistryFailed(f"{self._path} was not cleaned: {error}") from error

    def close(self) -> None:
        self._database.close()


def _ids(blob: bytes) -> set[bytes]:
    return {blob[at : at + ID_BYTES] for at in range(0, len(blob), ID_BYTES)}
