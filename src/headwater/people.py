"""What is asked about one person, and the mending of merges: `headwater person`, `/api/people`.

Theory of operation. A person's id is the id of one of its keys, so any id that was ever shown leads
to the events that carry that key, and they say who it is today. The SQL is in ``person_rows``. What
a token may not see is not there: nobody learns from an answer that it exists.

Undoing a merge withdraws its pair of keys; who is who then is the loader's to conclude, so both are
done by what comes in as `withdraw` and `allow`.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from uuid import UUID

from headwater import limits
from headwater.errors import NotFound, WrongUse
from headwater.person_rows import (
    CAUSED,
    DETAILS,
    DEVICES,
    HERS,
    HISTORY,
    IDENTITIES,
    LAST_ARRIVAL,
    LATEST,
    MERGE,
    MERGES,
    NAMED,
    NAMES,
    NEAR,
    NOBODY,
    OF_EVENT,
    OF_SESSION,
    PROFILE,
    SEEN,
    SESSIONS,
    SEVERAL,
    SHARED,
    STRONGEST,
    TIMELINE,
)
from headwater.person_rows import of as of_person

#: A read-only question of ours to the store: SQL and the values of its parameters; rows by name.
Ask = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]
#: Withdraws, or allows again, a pair of keys of an account, and tells the store what follows.
Mend = Callable[[str, bytes, bytes], None]
#: The accounts that may be seen, None for all.
Only = frozenset[str] | None

NAMESPACES = (
    "vaix:user",
    "nucleus:user",
    "nucleus:anon",
    "nucleus:device",
    "vibetrace:user",
    "vibetrace:session",
    "vibetrace:vtsid",
    "gamooga:user",
    "gamooga:visitor",
    "orbee:instance",
    "orbee:duid",
    "email",
    "user",
)
#: The namespaces that `user` stands for, where an account shares its user ids.
_USERS = ("vaix:user", "nucleus:user", "gamooga:user")
_SESSIONS_SHOWN = 20
_IDENTIFIERS_SHOWN = 4
_NAMES_SHOWN = 200
_DETAIL_CHARS = 300
_DAYS_NAMED = 400
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
#: How far to look back for who acted last: an hour, a day, 16 days, for ever.
_LOOK_BACK_US = (_HOUR_US, _DAY_US, 16 * _DAY_US, 2**62)
#: The order of an event in hexadecimal digits, or nothing.
_PLACE = re.compile(r"(?:[0-9A-F]{72})?")
#: Rows of the accounts that may be seen.
_OPEN = "({every:UInt8} OR has({accounts:Array(String)}, account))"
#: A merge of a merge of …: more is no history but a loop.
_MERGES_FOLLOWED_MAX = 64


class Exporter(Protocol):
    """Everything held about one person, as ``people_export.export`` gives it."""

    def __call__(self, people: People, person: str, account: str) -> Iterator[bytes]: ...


class People:
    """The questions. Any thread. Methods raise NotFound for an id that is nobody's, WrongUse for
    what is no id, StoreError and QueryRefused where the store cannot answer within its bounds."""

    def __init__(self, *, ask: Ask, export: Exporter, withdraw: Mend, allow: Mend) -> None:
        self.ask = ask
        self._export = export
        self._withdraw = withdraw
        self._allow = allow

    # --- who ------------------------------------------------------------------------------------

    def locate(self, ident: str, only: Only = None) -> tuple[str, str]:
        """The person's id and account, of any id that was ever shown for it."""
        wanted = _uuid(ident, "person")
        for _ in range(_MERGES_FOLLOWED_MAX):
            found = self.ask(
                "SELECT account, person FROM headwater_store.events_rows "  # noqa: S608
                f"WHERE has(keys, {{id:UUID}}) AND person != toUUID('{NOBODY}') AND {_OPEN} "
                "ORDER BY person = {id:UUID} DESC, event_order LIMIT 1",
                {"id": wanted, **_open(only)},
            )
            if found:
                return found[0]["person"], found[0]["account"]
            # No event carries that key any more: it resolves as long as a merge names it.
            merged = self.ask(
                f"SELECT kept FROM ({MERGE}) WHERE gone = {{id:UUID}} AND {_OPEN} "  # noqa: S608
                "AND undone_at IS NULL ORDER BY at DESC LIMIT 1",
                {"id": wanted, **_open(only)},
            )
            if not merged:
                break
            wanted = merged[0]["kept"]
        raise self._nobody(ident, wanted, only)

    def _nobody(self, ident: str, wanted: str, only: Only) -> NotFound:
        erased = self.ask(
            "SELECT erased_at FROM headwater.erasures WHERE person_id = {id:UUID} "  # noqa: S608
            f"AND {_OPEN} ORDER BY erased_at DESC LIMIT 1",
            {"id": wanted, **_open(only)},
        )
        if erased:
            return NotFound(
                f"{ident} was erased at {erased[0]['erased_at']}",
                remedy="SELECT * FROM erasures has the receipt",
            )
        return NotFound(
            f"no such person: {ident}",
            remedy="find the id: headwater person find email:jane@example.com",
        )

    def find(self, text: str, account: str = "", only: Only = None) -> dict[str, Any]:
        """Who carries an identifier: ``namespace:value``, or a value in any namespace. The id of a
        person, an event or a session finds whose it is."""
        value = text.strip()
        namespaces: tuple[str, ...] = ()
        inner = ""
        for namespace in NAMESPACES:
            if value.startswith(f"{namespace}:"):
                namespaces = _USERS if namespace == "user" else (namespace,)
                inner = value[len(namespace) + 1 :].strip()
        values = {value, _as_email(value)}
        spelt = {inner, _as_email(inner)} if namespaces == ("email",) else {inner}
        found = self.ask(
            "SELECT account, person AS person_id, one.1.namespace AS namespace, "  # noqa: S608
            "one.1.scope AS scope, one.1.value AS value, min(ordered_at) AS first_seen, "
            "max(ordered_at) AS last_seen, count() AS events FROM headwater_store.events_rows "
            "ARRAY JOIN arrayZip(identities, keys) AS one "
            "WHERE hasAny(identities.value, {all:Array(String)}) "
            f"AND {_OPEN} AND person != toUUID('{NOBODY}') AND {HERS % 'person'} "
            "AND (one.1.value IN {values:Array(String)} OR (one.1.value IN {inner:Array(String)} "
            "AND has({namespaces:Array(String)}, one.1.namespace))) "
            "GROUP BY account, person, namespace, scope, value "
            f"ORDER BY last_seen DESC LIMIT {limits.people_found_max + 1}",
            {
                "all": sorted(values | spelt),
                "values": sorted(values),
                "inner": sorted(spelt),
                "namespaces": list(namespaces),
                **_open(_narrowed(account, only)),
            },
        )
        if not found:
            found = self._of_id(value, _narrowed(account, only))
        return {
            "people": found[: limits.people_found_max],
            "more": len(found) > limits.people_found_max,
        }

    def _of_id(self, text: str, only: Only) -> list[dict[str, Any]]:
        """Whose some id is, in the form of `find`: `namespace` says what it is the id of."""
        try:
            wanted = str(UUID(text))
        except ValueError:
            return []
        found: list[tuple[str, str, str, str]] = []
        with contextlib.suppress(NotFound):
            found.append(("person", "", *self.locate(wanted, only)))
        for what, sql in (("event", OF_EVENT), ("session", OF_SESSION)):
            rows = self.ask(f"SELECT * FROM ({sql}) WHERE {_OPEN}", {"id": wanted, **_open(only)})  # noqa: S608
            found += [(what, row["dialect"], row["person"], row["account"]) for row in rows[:1]]
        answer = []
        for what, dialect, person, account in found:
            for seen in self.ask(SEEN, of_person(person, account)):
                who = {"account": account, "person_id": person}
                answer.append(who | {"namespace": what, "scope": dialect, "value": wanted} | seen)
        return answer

    def newest(self, account: str = "", only: Only = None) -> dict[str, Any]:
        """Who acted last, with some identifiers each: as the view `people`, by `last_seen`.

        All of those with an event since a moment come before all others, so it is enough to look
        back as far as there are enough of them. No event is further ahead of its arrival than a
        day (``event.effective_at``)."""
        opened = _open(_narrowed(account, only))
        (last,) = self.ask(LAST_ARRIVAL, opened)
        shown = limits.people_page_max
        found: list[dict[str, Any]] = []
        for back_us in _LOOK_BACK_US if last["events"] else ():
            since = max(last["at"] - back_us, 0)
            found = self.ask(
                LATEST,
                {**opened, "since": since, "arrived": max(since - _DAY_US, 0), "limit": shown + 1},
            )
            if len(found) > shown:
                break
        ids = [row["person_id"] for row in found[:shown]]
        people = self.ask(SEVERAL, {"persons": ids, "shown": _IDENTIFIERS_SHOWN}) if ids else []
        return {"people": people, "more": len(found) > shown}

    # --- all about one --------------------------------------------------------------------------

    def timeline(
        self,
        ident: str,
        only: Only = None,
        *,
        before: str = "",
        dialect: str = "",
        kind: str = "",
        name: str = "",
    ) -> dict[str, Any]:
        """A page of a person's events, the newest first, those of one dialect, kind or name where
        given. `next` is what the next page takes as `before`, "" at the end; the first page says
        under `names` what there is to choose from."""
        if not _PLACE.fullmatch(before):
            raise WrongUse(
                "this is no place in a timeline", remedy="take `next` of the page before"
            )
        person, account = self.locate(ident, only)
        of = self._near(person, account)
        shown = limits.person_events_page_max
        about = {"dialect": dialect, "kind": kind, "name": name, "before": before}
        events = self.ask(TIMELINE, {**of, **about, "limit": shown + 1})
        more = len(events) > shown
        events = events[:shown]
        ids = [event["event_id"] for event in events]
        wanted = {"ids": ids, "chars": _DETAIL_CHARS}
        details = {
            row["event_id"]: row["properties"]
            for row in (self.ask(DETAILS, {**of, **wanted}) if ids else ())
        }
        places = [event.pop("place") for event in events]
        for event in events:
            event["properties"] = details.get(event["event_id"], "")
        return {
            "person_id": person,
            "account": account,
            "events": events,
            "next": places[-1] if more else "",
            "names": self.ask(NAMES, {**of, "limit": _NAMES_SHOWN}) if not before else [],
        }

    def show(self, ident: str, only: Only = None, *, history: bool = False) -> dict[str, Any]:
        """All that is known of one person; of each list the latest, and under `counts` how many
        there are."""
        person, account = self.locate(ident, only)
        of = self._near(person, account)
        found: dict[str, Any] = {"person_id": person, "account": account, "asked": ident.strip()}
        counts: dict[str, int] = {}

        def rows(sql: str, order: str, limit: int, **more: Any) -> list[dict[str, Any]]:
            return self.ask(
                f"SELECT *, count() OVER () AS of_ FROM ({sql}) ORDER BY {order} LIMIT {limit}",  # noqa: S608
                {**of, **more},
            )

        def put(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            counts[name] = rows[0]["of_"] if rows else 0
            found[name] = [{k: v for k, v in row.items() if k != "of_"} for row in rows]
            return found[name]  # type: ignore[no-any-return]

        shown = limits.person_rows_shown_max
        # Two at a time: each takes a tenth of a second of one core, most of it to find the rows.
        with ThreadPoolExecutor(2) as pool:
            identities = pool.submit(rows, IDENTITIES, STRONGEST, shown)
            sessions = pool.submit(rows, SESSIONS, "started_at DESC, session_id", _SESSIONS_SHOWN)
            seen = pool.submit(self.ask, SEEN, of)
            devices = pool.submit(rows, DEVICES, "last_seen DESC", shown)
            profile = pool.submit(rows, PROFILE, "key", shown)
            changes = pool.submit(rows, HISTORY, "at DESC, key", shown) if history else None
            put("identities", identities.result())
            self.mark_shared(account, found["identities"])
            ids = [person, *(one["id"] for one in found["identities"])]
            merges = rows(MERGES, "at DESC", shown, keys=ids)
            first = seen.result()
            found |= first[0] if first else {"first_seen": None, "last_seen": None, "events": 0}
            put("devices", devices.result())
            put("sessions", sessions.result())
            put("profile", profile.result())
            if changes is not None:
                put("history", changes.result())
        self.name_pairs(put("merges", merges))
        return {**found, "counts": counts}

    def _near(self, person: str, account: str) -> dict[str, Any]:
        """The parameters for a person's rows of up to now."""
        whole = of_person(person, account)
        (near,) = self.ask(NEAR, whole)
        return whole if len(near["days"]) > _DAYS_NAMED else {**whole, **near, "whole": 0}

    def mark_shared(self, account: str, identities: list[dict[str, Any]]) -> None:
        """Say of each whether somebody else has had it too."""
        keys = [one["id"] for one in identities if one["strength"] not in ("strong", "lookup")]
        shared = set()
        if keys:
            found = self.ask(SHARED, {"account": account, "keys": keys})
            shared = {row["key"] for row in found}
        for one in identities:
            one["shared"] = one["id"] in shared

    def name_pairs(self, merges: list[dict[str, Any]]) -> None:
        """Say of each merge which two identifiers its cause carried; of one that no event carries
        any more only the id is left."""
        keys = sorted({key for merge in merges for key in merge["pair"]})
        causes = sorted({merge["cause"] for merge in merges})
        found = self.ask(CAUSED, {"keys": keys, "causes": causes}) if keys else []
        left = sorted(set(keys) - {one["id"] for one in found})
        found += self.ask(NAMED, {"keys": left}) if left else []
        named = {one["id"]: one for one in found}
        for merge in merges:
            merge["pair"] = [named.get(key, {"id": key}) for key in merge["pair"]]

    def export(self, ident: str, only: Only = None) -> Iterator[bytes]:
        """Everything held about one person, as JSON lines; read as they are asked for."""
        person, account = self.locate(ident, only)
        yield from self._export(self, person, account)

    # --- merges ---------------------------------------------------------------------------------

    def merges(self, account: str = "", only: Only = None) -> dict[str, Any]:
        """Which two became one, the latest first."""
        shown = limits.merges_shown_max
        found = self.ask(
            f"{MERGE} AND {_OPEN} ORDER BY at DESC, merge_id LIMIT {shown + 1}",
            _open(_narrowed(account, only)),
        )
        self.name_pairs(found)
        return {"merges": found[:shown], "more": len(found) > shown}

    def undo(self, merge: str, only: Only = None) -> dict[str, Any]:
        """Withdraw what caused a merge; the merge as it stands then."""
        return self._mend(merge, self._withdraw, only, undone=False)

    def allow(self, merge: str, only: Only = None) -> dict[str, Any]:
        """Let what caused a merge count again; the merge as it stands then."""
        return self._mend(merge, self._allow, only, undone=True)

    def _mend(self, ident: str, mend: Mend, only: Only, *, undone: bool) -> dict[str, Any]:
        wanted = _uuid(ident, "merge")
        where = "merge_id = {id:UUID} OR gone = {id:UUID} OR cause = {id:UUID}"
        found = self.ask(f"{MERGE} AND ({where}) AND {_OPEN}", {"id": wanted, **_open(only)})
        # An id that is gone may have been so twice: what can be mended is meant.
        named = [one for one in found if one["merge_id"] == wanted]
        meant = named or [one for one in found if (one["undone_at"] is not None) == undone] or found
        if not meant:
            raise NotFound(f"no such merge: {ident}", remedy="list them: headwater person merges")
        if len(meant) > 1:
            raise WrongUse(
                f"{ident} stands for {len(meant)} merges",
                remedy=f"name one: {', '.join(sorted(one['merge_id'] for one in meant))}",
            )
        merge = meant[0]
        if (merge["undone_at"] is not None) == undone:
            first, second = (UUID(key).bytes for key in merge["pair"])
            mend(merge["account"], first, second)
            again = self.ask(f"{MERGE} AND merge_id = {{id:UUID}}", {"id": merge["merge_id"]})
            merge = again[0] if again else merge
        self.name_pairs([merge])
        return merge


def _open(only: Only) -> dict[str, Any]:
    """The parameters of `_OPEN`."""
    return {"every": int(only is None), "accounts": sorted(only or ())}


def _narrowed(account: str, only: Only) -> Only:
    """Of the accounts that may be seen the one that is asked for; "" asks for all."""
    if not account:
        return only
    return frozenset({account}) if only is None else only & {account}


def _uuid(ident: str, what: str) -> str:
    try:
        return str(UUID(ident.strip()))
    except ValueError as error:
        command = "find email:jane@example.com" if what == "person" else "merges"
        raise WrongUse(
            f'"{ident[:80]}" is no id of a {what}', remedy=f"find it: headwater person {command}"
        ) from error


def _as_email(text: str) -> str:
    """An address as it is stored."""
    return unicodedata.normalize("NFC", text.strip().lower())
