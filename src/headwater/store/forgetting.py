"""What an erasure asks of the store, and what it takes away besides the rows of events and of
rejections (``erasing.py``): ids only, which say nothing once their keys are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headwater.store.clickhouse import EVENTS, REJECTED
from headwater.store.people import id_list, reload, seen_rows
from headwater.store.rows import Place
from headwater.store.session import Writing, quoted

#: (writer, batch, request in it)
RequestPlace = tuple[int, int, int]
#: Named in one statement.
_IDS = 200
_REQUESTS = 2_000
_WORDS = 250  # multiSearchAny takes fewer than 256
_NOBODY = "toUUID('00000000-0000-0000-0000-000000000000')"
_DICTIONARIES = ("attributed", "aliased", "resessioned")


class StoreForgetting:
    """One at a time in a store; `writing` is ``Store.writing()``. Ids are 16 bytes. All raise
    StoreError. Forgetting twice is as good as once."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    # --- asked ----------------------------------------------------------------------------------

    def identifiers(self, account: str, keys: Iterable[bytes]) -> set[tuple[bytes, str, str, str]]:
        """What some keys are: (key, namespace, scope, value) wherever events carry them."""
        found = set()
        for some in _some(keys):
            found |= {
                (bytes(key), str(namespace), str(scope), str(value))
                for key, namespace, scope, value in self._rows(
                    "SELECT DISTINCT UUIDToNum(one.2), toString(one.1.namespace), "  # noqa: S608
                    f"toString(one.1.scope), one.1.value FROM {EVENTS} "
                    "ARRAY JOIN arrayZip(identities, keys) AS one "
                    f"WHERE account = {quoted(account)} AND hasAny(keys, {some}) "
                    f"AND has({some}, one.2)"
                )
            }
        return found

    def carrying(
        self, account: str, keys: Iterable[bytes], persons: Iterable[bytes]
    ) -> tuple[list[tuple[Place, bytes]], set[RequestPlace]]:
        """The events that carry some keys and are not those of `persons`: places and ids of the
        ones that are nobody's (they wait), and the requests of those that are somebody else's."""
        waiting: list[tuple[Place, bytes]] = []
        others: set[RequestPlace] = set()
        own = id_list(persons)
        for some in _some(keys):
            for writer, batch, request, index, event, nobody in self._rows(
                f"SELECT writer, batch, request, idx, UUIDToNum(event_id), person = {_NOBODY} "  # noqa: S608
                f"FROM {EVENTS} WHERE account = {quoted(account)} AND hasAny(keys, {some}) "
                f"AND person NOT IN ({own})"
            ):
                if nobody:
                    waiting.append(((writer, batch, request, index), bytes(event)))
                else:
                    others.add((writer, batch, request))
        return waiting, others

    def sessions(self, account: str, persons: Iterable[bytes]) -> set[bytes]:
        """The ids of the sessions that some persons' events are in, and nobody else's."""
        columns = "UUIDToNum(assumeNotNull(session_now))"
        own = id_list(persons)
        found = {
            bytes(row[0])
            for row in seen_rows(self._writing, account, own, columns, "session_now IS NOT NULL")
        }
        shared = set()
        for some in _some(found):
            shared |= {
                bytes(row[0])
                for row in self._rows(
                    f"SELECT DISTINCT {columns} FROM {EVENTS} "  # noqa: S608
                    f"WHERE account = {quoted(account)} AND has({some}, session_now) "
                    f"AND person NOT IN ({own}, {_NOBODY})"
                )
            }
        return found - shared

    def rejections(
        self, account: str, after: Mapping[int, int], words: Sequence[str] | None
    ) -> Iterator[tuple[Place, str, str]]:
        """The rejected rows of an account beyond some batches of the writers in which one of some
        words may be (ASCII letters and digits; None: all of them): place, dialect, and the readable
        text of what was refused. Nothing else is written meanwhile."""
        known = " OR ".join(f"(writer = {w} AND batch <= {last})" for w, last in after.items())
        text = "concat(detail, '\\n', request_text)"
        parts = ["1"] if words is None else [f"position({text}, '\\\\u') > 0"]
        for start in range(0, len(words or ()), _WORDS):
            some = ", ".join(quoted(word) for word in (words or ())[start : start + _WORDS])
            parts.append(
                f"multiSearchAnyCaseInsensitive(decodeURLComponent({text}), [{some}]) "
                f"OR multiSearchAnyCaseInsensitive({text}, [{some}])"
            )
        for block in self._writing.blocks(
            f"SELECT writer, batch, request, idx, toString(dialect), {text} FROM {REJECTED} "  # noqa: S608
            f"WHERE account = {quoted(account)} AND NOT ({known or '0'}) "
            f"AND ({' OR '.join(parts)})"
        ):
            for writer, batch, request, index, dialect, found in block:
                yield (writer, batch, request, index), dialect, found

    def stored(
        self, requests: Iterable[RequestPlace]
    ) -> dict[RequestPlace, tuple[int, list[Place]]]:
        """Of some requests, how many events are stored, and where their rejected rows are."""
        found: dict[RequestPlace, tuple[int, list[Place]]] = {}
        wanted = sorted(requests)
        for start in range(0, len(wanted), _REQUESTS):
            some = ", ".join(map(str, wanted[start : start + _REQUESTS]))
            within = _within(wanted[start : start + _REQUESTS])
            where = f"WHERE ({within}) AND (writer, batch, request) IN ({some})"
            for writer, batch, request, count in self._rows(
                f"SELECT writer, batch, request, count() FROM {EVENTS} {where} "  # noqa: S608
                "GROUP BY writer, batch, request"
            ):
                found[writer, batch, request] = (int(count), [])
            for place in self._rows(f"SELECT writer, batch, request, idx FROM {REJECTED} {where}"):  # noqa: S608
                writer, batch, request = place[:3]
                _, rejected = found.setdefault((writer, batch, request), (0, []))
                rejected.append((writer, batch, request, place[3]))
        return found

    def _rows(self, sql: str) -> list[Sequence[Any]]:
        return self._writing.rows(sql)

    # --- taken away -----------------------------------------------------------------------------

    def forget(
        self, keys: Sequence[bytes], persons: Sequence[bytes], sessions: Sequence[bytes]
    ) -> dict[str, int]:
        """Take away what stands beside the rows: who did them, merges, sessions' signs of life; how
        many merges and sessions there were."""
        ids = list(dict.fromkeys((*keys, *persons)))
        counts = {"merges": 0}
        for some in _some(ids):
            counts["merges"] += self._delete(
                "merge_rows", f"hasAny([kept, gone, first, second], {some})"
            )
            self._delete("attributions", f"has({some}, key)")
            self._delete("aliases", f"has({some}, principal) OR has({some}, person)")
            self._delete("resessions", f"has({some}, person)")
        for some in _some(sessions):
            self._delete("pulses", f"has({some}, session_id)")
        reload(self._writing, *_DICTIONARIES)
        return counts

    def merges(self, keys: Iterable[bytes]) -> int:
        """In how many merges some keys stand."""
        count = 0
        for some in _some(keys):
            found = self._rows(
                "SELECT count() FROM headwater_store.merge_rows FINAL "  # noqa: S608
                f"WHERE NOT gone_away AND hasAny([kept, gone, first, second], {some})"
            )
            count += int(found[0][0])
        return count

    def _delete(self, table: str, where: str) -> int:
        table = f"headwater_store.{table}"
        count = int(self._writing.rows(f"SELECT count() FROM {table} WHERE {where}")[0][0])  # noqa: S608
        if count:
            self._writing.command(
                f"ALTER TABLE {table} DELETE WHERE {where} SETTINGS mutations_sync = 2"
            )
        return count


def _within(requests: Sequence[RequestPlace]) -> str:
    """A condition that the index knows."""
    parts = []
    for writer in sorted({place[0] for place in requests}):
        batches = [place[1] for place in requests if place[0] == writer]
        parts.append(f"(writer = {writer} AND batch BETWEEN {min(batches)} AND {max(batches)})")
    return " OR ".join(parts)


def _some(ids: Iterable[bytes]) -> Iterator[str]:
    """Arrays in SQL of some of the ids at a time."""
    distinct = sorted(set(ids))
    for start in range(0, len(distinct), _IDS):
        yield f"CAST([{id_list(distinct[start : start + _IDS])}], 'Array(UUID)')"
