"""One person's rows, and what they say, in SQL: the same answers as the public views give.

The views answer for everybody at once. Here one person is asked for, so the rows are found by what
the store's filters know (:data:`ROWS`), which takes as long with a billion events as with a
thousand. Every text here takes the parameters of :func:`of`, and those that it names.
"""

from __future__ import annotations

from typing import Any

NOBODY = "00000000-0000-0000-0000-000000000000"

_CLASS = (
    "(SELECT principal FROM headwater_store.aliases FINAL WHERE person = {person:UUID} "
    "UNION ALL SELECT {person:UUID})"
)
#: Within the days and dialects in which a person has rows (:data:`NEAR`): the table is sorted by
#: them, so the filters of all others need not be read again for each question.
_NEAR = (
    "({whole:UInt8} OR (dialect IN {dialects:Array(String)} "
    "AND toDate(received_at) IN {days:Array(Date)}))"
)
#: One person's rows, of the columns named: loaded as hers, or given to her since.
ROWS = (
    "(SELECT %(columns)s FROM headwater_store.events_rows "  # noqa: S608 - values are parameters
    f"WHERE account = {{account:String}} AND {_NEAR} AND principal IN {_CLASS} "
    "AND person = {person:UUID} "
    "AND %(where)s "
    "UNION ALL SELECT %(columns)s FROM headwater_store.events_rows "
    f"WHERE account = {{account:String}} AND {_NEAR} AND principal NOT IN {_CLASS} AND subject IN "
    "(SELECT key FROM headwater_store.attributions FINAL "
    f"WHERE hasAny(principals, (SELECT groupArray(principal) FROM {_CLASS}))) "
    "AND person = {person:UUID} AND %(where)s)"
)


def rows(*columns: str, where: str = "1") -> str:
    """A subquery for one person's rows; its parameters are those of :func:`of`."""
    return ROWS % {"columns": ", ".join(columns), "where": where}


def of(person: str, account: str) -> dict[str, Any]:
    """The parameters for all rows of a person."""
    return {"person": person, "account": account, "whole": 1, "dialects": [], "days": []}


NEAR = (
    "SELECT groupUniqArray(toString(dialect)) AS dialects, "  # noqa: S608
    f"groupUniqArray(toDate(received_at)) AS days FROM {rows('dialect', 'received_at')}"
)


SEEN = (
    "SELECT min(ordered_at) AS first_seen, max(ordered_at) AS last_seen, count() AS events "  # noqa: S608
    f"FROM {rows('ordered_at')} HAVING events > 0"
)
#: What is only looked up is the person's whose own key it is, as in the view `identities`.
HERS = (
    f"one.2 != toUUID('{NOBODY}') AND (one.1.strength != 'lookup' OR dictGetOrDefault("
    "'headwater_store.aliased', 'person', tuple(one.2), one.2) = %s)"
)
IDENTITIES = (
    "SELECT one.1.namespace AS namespace, one.1.scope AS scope, one.1.value AS value, "  # noqa: S608
    "max(one.1.strength) AS strength, any(one.2) AS id, min(ordered_at) AS first_seen, "
    "max(ordered_at) AS last_seen, count() AS events, argMin(event_id, at_) AS asserted_by "
    f"FROM {rows('identities', 'keys', 'ordered_at', 'event_id', 'event_order AS at_')} "
    "ARRAY JOIN arrayZip(identities, keys) AS one "
    f"WHERE {HERS % '{person:UUID}'} GROUP BY namespace, scope, value"
)
STRONGEST = "indexOf(['strong', 'weak', 'correlation', 'lookup'], strength), last_seen DESC, value"
SHARED = (
    "SELECT key FROM (SELECT arrayJoin(arrayFilter((key, one) -> "  # noqa: S608
    "has({keys:Array(UUID)}, key) AND one.strength IN ('weak', 'correlation'), "
    "keys, identities)) AS key, person FROM headwater_store.events_rows "
    f"WHERE account = {{account:String}} AND person != toUUID('{NOBODY}') "
    "AND hasAny(keys, {keys:Array(UUID)})) GROUP BY key HAVING min(person) != max(person)"
)
DEVICES = (
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
MERGE = (
    "SELECT merge_id, account, at, kept, gone, cause, undone_at, [first, second] AS pair "
    "FROM headwater_store.merge_rows FINAL WHERE NOT gone_away"
)
#: What some keys are, of the events that brought two of them together; found by the events' ids,
#: of which there is one a merge, while a key may be in any number of events.
CAUSED = (
    "SELECT id, any(one.namespace) AS namespace, any(one.scope) AS scope, "
    "any(one.value) AS value FROM headwater_store.events_rows ARRAY JOIN identities AS one, "
    "keys AS id WHERE event_id IN {causes:Array(UUID)} AND id IN {keys:Array(UUID)} GROUP BY id"
)
#: The same of any events.
NAMED = (
    "SELECT id, any(one.namespace) AS namespace, any(one.scope) AS scope, "
    "any(one.value) AS value FROM headwater_store.events_rows ARRAY JOIN identities AS one, "
    "keys AS id WHERE hasAny(keys, {keys:Array(UUID)}) AND has({keys:Array(UUID)}, id) GROUP BY id"
)
MERGES = (
    f"{MERGE} AND account = {{account:String}} "
    "AND (has({keys:Array(UUID)}, kept) OR has({keys:Array(UUID)}, gone))"
)

_SEVERAL = (
    "(SELECT principal FROM headwater_store.aliases FINAL WHERE person IN {persons:Array(UUID)} "
    "UNION ALL SELECT arrayJoin({persons:Array(UUID)}))"
)
#: Who acted last: people with an event since `since`, of those that arrived since `arrived`.
LATEST = (
    "SELECT person AS person_id, max(ordered_at) AS last_seen FROM headwater_store.events_rows "  # noqa: S608
    "WHERE received_at >= fromUnixTimestamp64Micro({arrived:Int64}, 'UTC') "
    "AND ordered_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') "
    "AND ({every:UInt8} OR has({accounts:Array(String)}, account)) "
    f"AND person != toUUID('{NOBODY}') "
    "GROUP BY person ORDER BY last_seen DESC, person_id LIMIT {limit:UInt32}"
)
LAST_ARRIVAL = (
    "SELECT toUnixTimestamp64Micro(max(received_at)) AS at, count() AS events "
    "FROM headwater_store.events_rows WHERE {every:UInt8} OR has({accounts:Array(String)}, account)"
)
#: Of some people (`persons`): first, last, how many events, and identifiers, the strongest first.
SEVERAL = (
    "SELECT person AS person_id, any(account) AS account, min(ordered_at) AS first_seen, "  # noqa: S608
    "max(ordered_at) AS last_seen, count() AS events, "
    "arrayMap(one -> CAST((one.2, one.3), 'Tuple(namespace String, value String)'), "
    "arraySlice(arraySort(groupUniqArrayArray(arrayMap("
    "one -> (indexOf(['strong', 'weak', 'correlation', 'lookup'], toString(one.1.strength)), "
    "toString(one.1.namespace), one.1.value), "
    f"arrayFilter(one -> {HERS % 'person'}, arrayZip(identities, keys))"
    "))), 1, {shown:UInt32})) AS identities FROM ("
    "SELECT person, account, ordered_at, identities, keys FROM headwater_store.events_rows "
    f"WHERE principal IN {_SEVERAL} AND person IN {{persons:Array(UUID)}} "
    "UNION ALL SELECT person, account, ordered_at, identities, keys "
    f"FROM headwater_store.events_rows WHERE principal NOT IN {_SEVERAL} AND subject IN "
    "(SELECT key FROM headwater_store.attributions FINAL "
    f"WHERE hasAny(principals, (SELECT groupArray(principal) FROM {_SEVERAL}))) "
    "AND person IN {persons:Array(UUID)}) GROUP BY person ORDER BY last_seen DESC, person_id"
)
#: Whose an event is, by its id.
OF_EVENT = (
    "SELECT account, person, dialect FROM headwater_store.events_rows "  # noqa: S608
    f"WHERE event_id = {{id:UUID}} AND person != toUUID('{NOBODY}') LIMIT 1"
)
#: Whose a session is, by its id, also by one that it had before it was cut anew.
OF_SESSION = (
    "SELECT account, person, dialect FROM headwater_store.events_rows "  # noqa: S608
    f"WHERE session_id = {{id:UUID}} AND person != toUUID('{NOBODY}') "
    "ORDER BY event_order DESC LIMIT 1 UNION ALL "
    "SELECT toLowCardinality(account), person, toLowCardinality(dialect) "
    "FROM headwater_store.resessions FINAL WHERE has(sessions, {id:UUID}) LIMIT 1"
)
#: A person's events, newest first, from before a place in time; `about` may narrow them.
_EVENT = (
    "event_id", "dialect", "scope", "kind", "name", "ordered_at AS at", "occurred_at",
    "received_at", "session_now AS session_id", "transport", "issues", "event_order AS at_",
)  # fmt: skip
ABOUT = (
    "({dialect:String} = '' OR dialect = {dialect:String}) "
    "AND ({kind:String} = '' OR kind = {kind:String}) "
    "AND ({name:String} = '' OR name = {name:String})"
)
TIMELINE = (
    "SELECT * EXCEPT at_, hex(at_) AS place FROM "  # noqa: S608
    + rows(
        *_EVENT,
        where=f"({{before:String}} = '' OR event_order < unhex({{before:String}})) AND {ABOUT}",
    )
    + " ORDER BY at_ DESC LIMIT {limit:UInt32}"
)
#: What a line of the timeline says of an event beside its name.
DETAILS = "SELECT event_id, leftUTF8(properties_, {chars:UInt32}) AS properties FROM " + rows(  # noqa: S608
    "event_id", "toJSONString(properties) AS properties_", where="has({ids:Array(UUID)}, event_id)"
)
NAMES = (
    f"SELECT dialect, kind, name, count() AS events FROM {rows('dialect', 'kind', 'name')} "  # noqa: S608
    "GROUP BY ALL ORDER BY events DESC, dialect, kind, name LIMIT {limit:UInt32}"
)
