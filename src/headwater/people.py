"""What is asked about one person, and the mending of merges: `headwater person`, `/api/people`.

Theory of operation. A person's id is the id of one of its keys, so any id that was ever shown leads
to the events that carry that key, and they say who it is today. The views answer for everybody at
once; here one person is asked for, so its rows are found by what the store's filters know
(:data:`ROWS`), which takes as long with a billion events as with a thousand.

Undoing a merge withdraws its pair of keys; who is who then is the loader's to conclude, so both are
done by what comes in as `withdraw` and `allow`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from uuid import UUID

from headwater import limits
from headwater.errors import NotFound, WrongUse

#: A read-only question of ours to the store: SQL and the values of its parameters; rows by name.
Ask = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]
#: Withdraws, or allows again, a pair of keys of an account, and tells the store what follows.
Mend = Callable[[str, bytes, bytes], None]

NOBODY = "00000000-0000-0000-0000-000000000000"
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
#: A merge of a merge of …: more is no history but a loop.
_MERGES_FOLLOWED_MAX = 64

_CLASS = (
    "(SELECT principal FROM headwater_store.aliases FINAL WHERE person = {person:UUID} "
    "UNION ALL SELECT {person:UUID})"
)
#: One person's rows, of the columns named: loaded as hers, or given to her since.
ROWS = (
    "(SELECT %(columns)s FROM headwater_store.events_rows "  # noqa: S608 - values are parameters
    f"WHERE account = {{account:String}} AND principal IN {_CLASS} AND person = {{person:UUID}} "
    "AND %(where)s "
    "UNION ALL SELECT %(columns)s FROM headwater_store.events_rows "
    f"WHERE account = {{account:String}} AND principal NOT IN {_CLASS} AND subject IN "
    "(SELECT key FROM headwater_store.attributions FINAL "
    f"WHERE hasAny(principals, (SELECT groupArray(principal) FROM {_CLASS}))) "
    "AND person = {person:UUID} AND %(where)s)"
)


def rows(*columns: str, where: str = "1") -> str:
    """A subquery for one person's rows; its parameters are `account` and `person`."""
    return ROWS % {"columns": ", ".join(columns), "where": where}


SEEN = (
    "SELECT min(ordered_at) AS first_seen, max(ordered_at) AS last_seen, count() AS events "  # noqa: S608
    f"FROM {rows('ordered_at')} HAVING events > 0"
)
#: What is only looked up is the person's whose own key it is, as in the view `identities`.
_HERS = (
    f"one.2 != toUUID('{NOBODY}') AND (one.1.strength != 'lookup' OR dictGetOrDefault("
    "'headwater_store.aliased', 'person', tuple(one.2), one.2) = %s)"
)
IDENTITIES = (
    "SELECT one.1.namespace AS namespace, one.1.scope AS scope, one.1.value AS value, "  # noqa: S608
    "max(one.1.strength) AS strength, any(one.2) AS id, min(ordered_at) AS first_seen, "
    "max(ordered_at) AS last_seen, count() AS events, argMin(event_id, at_) AS asserted_by "
    f"FROM {rows('identities', 'keys', 'ordered_at', 'event_id', 'event_order AS at_')} "
    "ARRAY JOIN arrayZip(identities, keys) AS one "
    f"WHERE {_HERS % '{person:UUID}'} GROUP BY namespace, scope, value"
)
_STRONGEST = "indexOf(['strong', 'weak', 'correlation', 'lookup'], strength), last_seen DESC, value"
_SHARED = (
    "SELECT key FROM (SELECT arrayJoin(arrayFilter((key, one) -> "  # noqa: S608
    "has({keys:Array(UUID)}, key) AND one.strength IN ('weak', 'correlation'), "
    "keys, identities)) AS key, person FROM headwater_store.events_rows "
    f"WHERE account = {{account:String}} AND person != toUUID('{NOBODY}') "
    "AND hasAny(keys, {keys:Array(UUID)})) GROUP BY key HAVING min(person) != max(person)"
)
_DEVICES = (
    "SELECT toJSONString(context.^device) AS device, min(ordered_at) AS first_seen, "  # noqa: S608
    "max(ordered_at) AS last_seen, count() AS events "
    f"FROM {rows('context', 'ordered_at')} GROUP BY device HAVING device != '{{}}'"
)
#: Every value that was set (as JSON) or unset (NULL), newest first; of one event set ones first.
HISTORY = (
    "SELECT change.1 AS key, nullIf(change.2, '') AS value, ordered_at AS at, event_id, dialect "
    "FROM "
    + rows(
        "profile_set", "profile_unset", "ordered_at", "event_id", "dialect", "event_order AS at_"
    )
    + " ARRAY JOIN arrayConcat(JSONExtractKeysAndValuesRaw(profile_set), "
    "arrayMap(key -> (key, ''), profile_unset)) AS change "
    "ORDER BY at_ DESC, change.2 = ''"
)
PROFILE = f"SELECT * FROM (SELECT * FROM ({HISTORY}) LIMIT 1 BY key) WHERE value IS NOT NULL"  # noqa: S608
#: All rows of a client's session count, whoever did them; a derived session has its person's only.
_SESSION_ROWS = (
    "(SELECT session_now AS id_, dialect, scope, session, person, at_, ordered_at, kind FROM "  # noqa: S608
    + rows(
        *("session_now", "dialect", "scope", "session", "person"),
        *("event_order AS at_", "ordered_at", "kind"),
        where="derived AND session_now IS NOT NULL",
    )
    + " UNION ALL SELECT session_id, dialect, scope, session, person, event_order, ordered_at, "
    "kind FROM headwater_store.events_rows WHERE account = {account:String} AND NOT derived "
    "AND session_id IN (SELECT session_id FROM "
    + rows("session_id", where="NOT derived AND session_id IS NOT NULL")
    + "))"
)
#: As the view `sessions` has them.
SESSIONS = (
    "SELECT session_id, dialect, started_at, greatest(last_, pulsed_) AS ended_at, events, errors, "  # noqa: S608
    "CAST(dialect IN ('vaix', 'orbee', 'gamooga'), 'Bool') AS derived, scope, session, "
    "CAST(now64(6) >= ended_at + if(closed_ >= ended_at, toIntervalSecond(10), "
    "toIntervalMinute(30)), 'Bool') AS over "
    "FROM (SELECT id_ AS session_id, any(dialect) AS dialect, any(scope) AS scope, "
    "any(session) AS session, min(ordered_at) AS started_at, max(ordered_at) AS last_, "
    "count() AS events, countIf(kind = 'error') AS errors, "
    f"argMaxIf(person, at_, person != toUUID('{NOBODY}')) AS person_ FROM {_SESSION_ROWS} "
    "GROUP BY session_id HAVING person_ = {person:UUID}) AS mine "
    "LEFT JOIN (SELECT session_id AS pulsing, max(at) AS pulsed_, maxIf(at, closed) AS closed_ "
    "FROM headwater_store.pulses WHERE account = {account:String} GROUP BY pulsing) AS pulses_ "
    "ON pulses_.pulsing = mine.session_id"
)
_MERGE = (
    "SELECT merge_id, account, at, kept, gone, cause, undone_at, [first, second] AS pair "
    "FROM headwater_store.merge_rows FINAL WHERE NOT gone_away"
)
_NAMED = (
    "SELECT id, any(one.namespace) AS namespace, any(one.scope) AS scope, "
    "any(one.value) AS value FROM headwater_store.events_rows ARRAY JOIN identities AS one, "
    "keys AS id WHERE hasAny(keys, {keys:Array(UUID)}) AND has({keys:Array(UUID)}, id) GROUP BY id"
)
MERGES = (
    f"{_MERGE} AND account = {{account:String}} "
    "AND (has({keys:Array(UUID)}, kept) OR has({keys:Array(UUID)}, gone))"
)


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

    def locate(self, ident: str) -> tuple[str, str]:
        """The person's id and account, of any id that was ever shown for it."""
        wanted = _uuid(ident, "person")
        for _ in range(_MERGES_FOLLOWED_MAX):
            found = self.ask(
                "SELECT account, person FROM headwater_store.events_rows "  # noqa: S608
                f"WHERE has(keys, {{id:UUID}}) AND person != toUUID('{NOBODY}') "
                "ORDER BY person = {id:UUID} DESC, event_order LIMIT 1",
                {"id": wanted},
            )
            if found:
                return found[0]["person"], found[0]["account"]
            # No event carries that key any more: it resolves as long as a merge names it.
            merged = self.ask(
                f"SELECT kept FROM ({_MERGE}) WHERE gone = {{id:UUID}} "  # noqa: S608
                "AND undone_at IS NULL ORDER BY at DESC LIMIT 1",
                {"id": wanted},
            )
            if not merged:
                break
            wanted = merged[0]["kept"]
        raise self._nobody(ident, wanted)

    def _nobody(self, ident: str, wanted: str) -> NotFound:
        erased = self.ask(
            "SELECT erased_at FROM headwater.erasures WHERE person_id = {id:UUID} "
            "ORDER BY erased_at DESC LIMIT 1",
            {"id": wanted},
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

    def find(self, text: str, account: str = "") -> dict[str, Any]:
        """Who carries an identifier: ``namespace:value``, or a value in any namespace."""
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
            "AND ({account:String} = '' OR account = {account:String}) "
            f"AND person != toUUID('{NOBODY}') AND {_HERS % 'person'} "
            "AND (one.1.value IN {values:Array(String)} OR (one.1.value IN {inner:Array(String)} "
            "AND has({namespaces:Array(String)}, one.1.namespace))) "
            "GROUP BY account, person, namespace, scope, value "
            f"ORDER BY last_seen DESC LIMIT {limits.people_found_max + 1}",
            {
                "all": sorted(values | spelt),
                "values": sorted(values),
                "inner": sorted(spelt),
                "namespaces": list(namespaces),
                "account": account,
            },
        )
        return {
            "people": found[: limits.people_found_max],
            "more": len(found) > limits.people_found_max,
        }

    # --- all about one --------------------------------------------------------------------------

    def show(self, ident: str, *, history: bool = False) -> dict[str, Any]:
        """All that is known of one person; of each list the latest, and under `counts` how many
        there are."""
        person, account = self.locate(ident)
        of = {"person": person, "account": account}
        found: dict[str, Any] = {"person_id": person, "account": account, "asked": ident.strip()}
        seen = self.ask(SEEN, of)
        found |= seen[0] if seen else {"first_seen": None, "last_seen": None, "events": 0}
        counts: dict[str, int] = {}

        def put(name: str, sql: str, order: str, limit: int, **more: Any) -> list[dict[str, Any]]:
            rows = self.ask(
                f"SELECT *, count() OVER () AS of_ FROM ({sql}) ORDER BY {order} LIMIT {limit}",  # noqa: S608
                {**of, **more},
            )
            counts[name] = rows[0]["of_"] if rows else 0
            found[name] = [{k: v for k, v in row.items() if k != "of_"} for row in rows]
            return found[name]  # type: ignore[no-any-return]

        shown = limits.person_rows_shown_max
        put("identities", IDENTITIES, _STRONGEST, shown)
        self.mark_shared(account, found["identities"])
        put("devices", _DEVICES, "last_seen DESC", shown)
        put("sessions", SESSIONS, "started_at DESC, session_id", _SESSIONS_SHOWN)
        put("profile", PROFILE, "key", shown)
        if history:
            put("history", HISTORY, "at DESC, key", shown)
        ids = [person, *(one["id"] for one in found["identities"])]
        self.name_pairs(put("merges", MERGES, "at DESC", shown, keys=ids))
        return {**found, "counts": counts}

    def mark_shared(self, account: str, identities: list[dict[str, Any]]) -> None:
        """Say of each whether somebody else has had it too."""
        keys = [one["id"] for one in identities if one["strength"] not in ("strong", "lookup")]
        shared = set()
        if keys:
            found = self.ask(_SHARED, {"account": account, "keys": keys})
            shared = {row["key"] for row in found}
        for one in identities:
            one["shared"] = one["id"] in shared

    def name_pairs(self, merges: list[dict[str, Any]]) -> None:
        """Say of each merge which two identifiers its cause carried; of one that no event carries
        any more only the id is left."""
        keys = sorted({key for merge in merges for key in merge["pair"]})
        found = self.ask(_NAMED, {"keys": keys}) if keys else []
        named = {one["id"]: one for one in found}
        for merge in merges:
            merge["pair"] = [named.get(key, {"id": key}) for key in merge["pair"]]

    def export(self, ident: str) -> Iterator[bytes]:
        """Everything held about one person, as JSON lines; read as they are asked for."""
        person, account = self.locate(ident)
        yield from self._export(self, person, account)

    # --- merges ---------------------------------------------------------------------------------

    def merges(self, account: str = "") -> dict[str, Any]:
        """Which two became one, the latest first."""
        shown = limits.person_rows_shown_max
        found = self.ask(
            f"{_MERGE} AND ({{account:String}} = '' OR account = {{account:String}}) "
            f"ORDER BY at DESC, merge_id LIMIT {shown + 1}",
            {"account": account},
        )
        self.name_pairs(found)
        return {"merges": found[:shown], "more": len(found) > shown}

    def undo(self, merge: str) -> dict[str, Any]:
        """Withdraw what caused a merge; the merge as it stands then."""
        return self._mend(merge, self._withdraw, undone=False)

    def allow(self, merge: str) -> dict[str, Any]:
        """Let what caused a merge count again; the merge as it stands then."""
        return self._mend(merge, self._allow, undone=True)

    def _mend(self, ident: str, mend: Mend, *, undone: bool) -> dict[str, Any]:
        wanted = _uuid(ident, "merge")
        where = "merge_id = {id:UUID} OR gone = {id:UUID} OR cause = {id:UUID}"
        found = self.ask(f"{_MERGE} AND ({where})", {"id": wanted})
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
            again = self.ask(f"{_MERGE} AND merge_id = {{id:UUID}}", {"id": merge["merge_id"]})
            merge = again[0] if again else merge
        self.name_pairs([merge])
        return merge


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
