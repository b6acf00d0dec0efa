"""What the console's API takes and gives about people, for its description."""

from __future__ import annotations

from typing import Any

import msgspec


class Find(msgspec.Struct):
    """`find` is an identifier, with its namespace (``email:jane@example.com``) or without, or the
    id of a person, an event or a session; "" finds who acted last."""

    find: str = ""
    account: str = ""


class Page(msgspec.Struct):
    """`before` is the `next` of the page before; the others keep to one dialect, kind or name."""

    before: str = ""
    dialect: str = ""
    kind: str = ""
    name: str = ""


class Shown(msgspec.Struct):
    """With `history`, every value that the profile ever had."""

    history: bool = False


class Of(msgspec.Struct):
    """Of one account, or of all."""

    account: str = ""


class Identifier(msgspec.Struct):
    """As it was sent."""

    namespace: str
    value: str


class Found(msgspec.Struct):
    """A person; where one was looked for, what was found: the identifier's `namespace` (or
    ``person``, ``event``, ``session``), `scope` and `value`, and when and how often it was sent.
    Else some `identities`, the strongest first. Times are ISO 8601, UTC."""

    account: str
    person_id: str
    first_seen: str
    last_seen: str
    events: int
    namespace: str | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    value: str | msgspec.UnsetType = msgspec.UNSET
    identities: list[Identifier] | msgspec.UnsetType = msgspec.UNSET


class PeopleFound(msgspec.Struct):
    """`more`: there are others; `sql`: the same as a query."""

    people: list[Found]
    more: bool
    sql: str


class Line(msgspec.Struct):
    """An event in a timeline. `at` is the time that puts it in order: the client's where that can
    be. `properties` is the beginning of their JSON text."""

    event_id: str
    dialect: str
    scope: str
    kind: str
    name: str
    at: str
    occurred_at: str
    received_at: str
    session_id: str | None
    transport: str
    issues: list[str]
    properties: str


class Name(msgspec.Struct):
    """How many events of a person have a name."""

    dialect: str
    kind: str
    name: str
    events: int


class Timeline(msgspec.Struct):
    """A page of it, the newest first. `next` is `before` of the next, "" at the end."""

    person_id: str
    account: str
    events: list[Line]
    next: str
    names: list[Name]
    sql: str


class Person(msgspec.Struct):
    """All that is known of a person; of each list the latest, under `counts` how many there are,
    and under `sql` the same as queries. `asked` is the id that was asked for."""

    person_id: str
    account: str
    asked: str
    first_seen: str | None
    last_seen: str | None
    events: int
    identities: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    profile: list[dict[str, Any]]
    merges: list[dict[str, Any]]
    counts: dict[str, int]
    sql: dict[str, str]
    history: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class Merge(msgspec.Struct):
    """Two people who became one. `cause` is the event that said so, `pair` the two identifiers."""

    merge_id: str
    account: str
    at: str
    kept: str
    gone: str
    cause: str
    undone_at: str | None
    pair: list[dict[str, Any]]


class Merges(msgspec.Struct):
    """`more`: there are earlier ones."""

    merges: list[Merge]
    more: bool
    sql: str
