"""What SQL says about the cases, and where it differs from what their scenarios say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tests.identity.cases import Case
from tests.identity.notation import NOBODY, Line

Query = Callable[[str], list[dict[str, Any]]]

#: Events of everybody, with the mark that the sender put into whatever place the dialect keeps.
_EVENTS = """
SELECT event_id, account, person_id, session_id,
    toString(context) AS context, toString(properties) AS properties
FROM events
"""
_MERGES = "SELECT account, merge_id, kept, gone, cause, undone_at FROM merges"
_PEOPLE = """
SELECT account, person_id, toString(properties) AS properties, identities, events FROM people
"""
_SHARED = "SELECT account, person_id, value FROM identities WHERE shared"


class Seen(msgspec.Struct, frozen=True):
    """An event as it is found: ids as text, None for none."""

    event_id: str
    account: str
    person: str | None
    session: str | None


class Facts:
    """The tables at one moment. `events` has what each line of a case became, by its mark."""

    def __init__(self, query: Query) -> None:
        self.events: dict[str, list[Seen]] = {}
        self.of_event: dict[str, str] = {}
        for row in query(_EVENTS):
            mark = _mark(json.loads(row["context"]), json.loads(row["properties"]))
            seen = Seen(row["event_id"], row["account"], row["person_id"], row["session_id"])
            self.events.setdefault(mark, []).append(seen)
            self.of_event[seen.event_id] = mark.partition("/")[0]
        self.merges: dict[str, list[dict[str, Any]]] = {}
        for row in query(_MERGES):
            case = self.of_event.get(row["cause"], "an event that is not stored")
            self.merges.setdefault(case, []).append(row)
        self.people = {(row["account"], row["person_id"]): row for row in query(_PEOPLE)}
        self.shared: dict[tuple[str, str], set[str]] = {}
        for row in query(_SHARED):
            self.shared.setdefault((row["account"], row["person_id"]), set()).add(row["value"])


def _mark(context: dict[str, Any], properties: dict[str, Any]) -> str:
    extra = context.get("extra") or {}
    return str(context.get("mark") or extra.get("mark") or properties.get("mark") or "")


def wrong(case: Case, facts: Facts, *, finally_: bool) -> list[str]:
    """Where the facts differ from what a case's scenario says. `finally_`: all has been sent; else
    what stands above the turn of a case that was sent as written."""
    scenario = case.scenario
    lines = scenario.lines if finally_ else scenario.before
    found, events = _stored(case, lines, facts)
    labels: dict[str, set[str | None]] = {}
    sessions: dict[str, set[str | None]] = {}
    for line, seen in events:
        labels.setdefault(line.finally_who if finally_ else line.who, set()).add(seen.person)
        if line.session is not None:
            sessions.setdefault(line.session, set()).add(seen.session)
    found += _groups("person", labels, NOBODY)
    found += _groups("session", sessions, "")
    if found or not finally_:
        return found
    who = {
        label: (seen.account, str(seen.person))
        for line, seen in events
        if (label := line.finally_who) != NOBODY
    }
    return [
        *_merges(case, facts),
        *_people(case, facts, who),
        *_shared(case, facts, who),
    ]


def _stored(
    case: Case, lines: tuple[Line, ...], facts: Facts
) -> tuple[list[str], list[tuple[Line, Seen]]]:
    """The one event of each line; of copies, that of the line which arrived first."""
    found: list[str] = []
    events: list[tuple[Line, Seen]] = []
    first: dict[tuple[Any, ...], Line] = {}
    for line in (*case.arrivals, *case.rest):
        if line not in lines:
            continue
        seen = facts.events.get(f"{case.name}/{line.number}", [])
        is_copy = line.copy_of is not None and first.setdefault(line.copy_of, line) is not line
        if len(seen) != (0 if is_copy else 1):
            found.append(f"line {line.number}: stored {len(seen)} times")
        events += [(line, one) for one in seen]
    return found, events


def _groups(what: str, groups: Mapping[str, set[str | None]], none: str) -> list[str]:
    found = []
    owner: dict[str | None, str] = {}
    for label, ids in groups.items():
        if label == none:
            if ids != {None}:
                found.append(f"{what} {label or 'none'!r}: {sorted(map(str, ids))}")
            continue
        if len(ids) != 1 or None in ids:
            found.append(f"{what} {label!r} is {sorted(map(str, ids))}")
        for one in ids - {None}:
            if owner.setdefault(one, label) != label:
                found.append(f"{what} {label!r} is also {owner[one]!r}: {one}")
    return found


def _merges(case: Case, facts: Facts) -> list[str]:
    scenario = case.scenario
    rows = facts.merges.get(case.name, [])
    found = []
    if scenario.merges is not None and len(rows) != scenario.merges:
        pairs = [f"{row['gone']} into {row['kept']}" for row in rows]
        found.append(f"expected {scenario.merges} merges, found {pairs}")
    for row in rows:
        if (row["undone_at"] is not None) != (scenario.turn == "undo"):
            found.append(f"merge {row['merge_id']}: undone_at is {row['undone_at']}")
        if row["kept"] == row["gone"]:
            found.append(f"merge {row['merge_id']} of {row['kept']} with itself")
    return found


def _people(case: Case, facts: Facts, who: Mapping[str, tuple[str, str]]) -> list[str]:
    found = []
    for label, person in who.items():
        row = facts.people.get(person)
        if row is None:
            found.append(f"{label} is not in people: {person}")
            continue
        properties = json.loads(row["properties"])
        expected = case.scenario.profiles.get(label)
        if expected is not None and properties != expected:
            found.append(f"{label}: profile {properties}")
        named = case.scenario.identities.get(label)
        if named is not None:
            wanted = {(namespace, case.text(namespace, value)) for namespace, value in named}
            given = {(one["namespace"], one["value"]) for one in row["identities"]}
            if wanted != given:
                found.append(f"{label} is {sorted(given)}")
    return found


def _shared(case: Case, facts: Facts, who: Mapping[str, tuple[str, str]]) -> list[str]:
    expected = case.scenario.shared
    if expected is None:
        return []
    marked: set[str] = set()
    for person in who.values():
        marked |= facts.shared.get(person, set())
    return [] if marked == expected else [f"marked shared: {sorted(marked)}"]
