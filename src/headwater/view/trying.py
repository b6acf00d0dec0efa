"""The console's API to try a request: as a dry run, or through the collector's own port.

What tries comes in as one argument (:class:`Trying`). A token that somebody pastes is put into the
request and nowhere else: it is no part of an answer, a log line or the journal.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from headwater.view.access import Who
from headwater.view.api import Asked, Endpoint
from headwater.view.inspect import RequestShown

Mode = Literal["dry", "send"]
Transport = Literal["http", "websocket"]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request to begin with, made of what is configured; `why` says what it shows."""

    title: str
    why: str
    dialect: str
    account: str
    method: str
    target: str
    transport: Transport = "http"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a client of a dialect has to change: `old` addresses by `new` ones, `lines` as its code
    has them; `page` of the documentation says more."""

    dialect: str
    old: list[str]
    new: str
    lines: list[str]
    page: str


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """`collector` is where requests are sent, "" where no collector runs beside this hub."""

    examples: list[Example]
    changes: list[Change]
    collector: str


class ExamplesQuery(msgspec.Struct, frozen=True):
    """`dialect` and `account`: of these only."""

    dialect: str = ""
    account: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to try. `target` is a path with its query. `token` stands for $TOKEN in headers."""

    method: str
    target: str
    mode: Mode = "dry"
    transport: Transport = "http"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""
    token: str = ""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one identifier of an event would do: who has it now, and in `words` what follows."""

    index: int
    namespace: str
    scope: str
    value: str
    strength: str
    person_id: str | None
    words: str


class Attempted(msgspec.Struct, kw_only=True):
    """What came of it: the answer, then (`request`) the events as /api/requests shows them. A
    WebSocket's answer is its first message, with status 101. `note` says what a reader would
    wonder at."""

    mode: Mode
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: str
    seconds: float
    account: str
    dialect: str
    note: str
    curl: str
    request: RequestShown | None = None
    attribution: list[Attribution] = msgspec.field(default_factory=list)


class Trying(Protocol):
    """What the endpoints ask; blocks. Raises WrongUse for what is no request, NotFound where no
    account that may be seen answers to it, StoreError."""

    def examples(self, who: Who, dialect: str, account: str) -> Examples:
        """Requests to begin with."""
        ...

    def attempt(self, attempt: Attempt, who: Who) -> Attempted:
        """Try one."""
        ...


def endpoints(trying: Trying) -> list[Endpoint]:
    """For the console's API."""

    def examples(asked: Asked) -> Examples:
        return trying.examples(asked.who, asked.query.dialect, asked.query.account)

    def attempt(asked: Asked) -> Attempted:
        return trying.attempt(asked.body, asked.who)

    return [
        Endpoint(
            method="GET",
            path="/api/try/examples",
            summary="Requests to begin with, and what a client of each dialect has to change.",
            answer=Examples,
            handle=examples,
            query=ExamplesQuery,
        ),
        Endpoint(
            method="POST",
            path="/api/try",
            summary="Try a request: decode it only, or send it through the collector.",
            answer=Attempted,
            handle=attempt,
            scope="admin",
            body=Attempt,
        ),
    ]
