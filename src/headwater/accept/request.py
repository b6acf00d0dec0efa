"""A request as it came, the answer it gets, and what a dialect must offer.

These types are all that the stages share about the wire. A request is what the journal keeps; a
decoder sees nothing else, so that the same request decodes the same way before the answer, after
the journal, and in a replay years later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from headwater.event import Decoded

DialectName = Literal["vaix", "orbee", "nucleus", "vibetrace", "gamooga"]
Transport = Literal["http", "websocket"]

#: Headers that a decoder may read; all others are dropped on arrival. Authorization is never one
#: of them, and of Cookie only the `_vt_user` pair is kept (as `cookie: _vt_user=…`).
KEPT_HEADERS = frozenset(
    {
        "accept",
        "accept-language",
        "content-encoding",
        "content-type",
        "cookie",
        "dnt",
        "early-data",
        "host",
        "origin",
        "referer",
        "sec-gpc",
        "user-agent",
        "x-vaix-authentication-method",
        "x-vaix-client-id",
    }
)


class Erased(msgspec.Struct, array_like=True, frozen=True):
    """What an erased request had become, in events: the books keep counting it."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0


class Request(msgspec.Struct, array_like=True, kw_only=True):
    """One request as it came.

    `target` is the origin-form request target exactly as received (each character one byte).
    `headers` has lower-case names, KEPT_HEADERS only, values as latin-1 text. `body` is the body
    after inflation (a WebSocket message: its payload). `endpoint` and `params` are what the route
    said (``{"aid": "1", "tid": "1"}``). `peer` is the client's address. `received_at` is in
    microseconds. `state` is the answer's state where it carried one (Gamooga: the visitor id);
    `created` says that this request made that visitor. `refused` says that the answer given was
    that nothing is stored. In the journal `body` is as on the wire where `content-encoding` is set.
    `erased` marks a stub: what was received with somebody who has been erased since; it keeps its
    place, id, account, dialect and time, and nothing that the client sent.
    """

    dialect: DialectName
    method: str
    target: str
    endpoint: str = ""
    params: dict[str, str] = msgspec.field(default_factory=dict)
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    transport: Transport = "http"
    peer: str = ""
    account: str = ""
    received_at: int = 0
    request_id: bytes = b""
    state: str = ""
    created: bool = False
    refused: bool = False
    erased: Erased | None = None

    @property
    def query(self) -> str:
        """The raw query string, without the question mark."""
        return self.target.partition("?")[2]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What an account's configuration says about how its requests are judged.

    The defaults are permissive: an acknowledged request is decoded again with them, so that a later
    change of the configuration never un-acknowledges it; refused ones are judged with the rules in
    force. `event_types` are VAIX allow-list entries (``clicks:event``, ``impressions:*``), None =
    the grammar. `groups` are the VAIX client groups that the token may write, None = any.
    `public_host` is what Gamooga's /newnaconf/ answers, empty = the Host header.
    """

    event_types: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    lenient: bool = False
    public_host: str = ""


class Identify(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the registry that must be durable before the answer: which visitor is this?

    `users` are unique ids in request order (at least one, all trimmed, none denied); `visitor` is
    the visitor id that was sent, empty for none.
    """

    scope: str
    users: tuple[str, ...]
    visitor: str = ""


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's answer; `created` when a fresh visitor was made for it."""

    visitor: str
    created: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the client gets. Sent only after the request is durable when `keep` is set.

    `events` is how many events the request counts as received (accounting); it equals
    ``decode(request).received`` for every request that is kept. `refused`: nothing of it will be
    stored as an event. `identify`: ask the registry first, set ``request.state`` (and ``created``)
    and call ``answer`` again. `close`: close the connection after it.
    """

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    events: int = 0
    keep: bool = True
    refused: bool = False
    identify: Identify | None = None
    close: bool = False


class Route(msgspec.Struct, frozen=True):
    """One endpoint of a dialect.

    `path` has no trailing slash (one is tolerated), `{name}` matches one segment that becomes a
    param. `methods` are those the dialect answers itself (HEAD and OPTIONS are accept's).
    `websocket`: the path also (or, with no methods, only) takes an upgrade.
    """

    path: str
    endpoint: str
    methods: tuple[str, ...] = ()
    websocket: bool = False


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """A dialect's own bounds, in bytes; the values stand in headwater.limits."""

    target_bytes_max: int
    body_bytes_max: int


class Cors(msgspec.Struct, frozen=True, kw_only=True):
    """`echo_origin`: answer with the request's Origin and `Vary: Origin`, else with ``*``."""

    methods: str
    headers: str = "content-type"
    echo_origin: bool = False
    max_age_seconds: int = 86_400


class Dialect(Protocol):
    """What a dialect's module offers. All of it is pure: no clock, socket, database or setting
    but `rules`. Modules satisfy this; nothing is registered (decode/dialects.py is the table)."""

    NAME: DialectName
    ROUTES: tuple[Route, ...]
    BOUNDS: Bounds
    CORS: Cors
    #: Whether the tenant is authenticated by a bearer token (VAIX) or named by an id (the rest).
    BEARER: bool
    #: Headers on every answer (``(("cache-control", "no-store"),)``).
    ALWAYS: tuple[tuple[str, str], ...]

    @property
    def precheck(self) -> Callable[[Request], Answer | None]:
        """An answer due before the account is looked up (VAIX 406), else None. Never kept."""
        ...

    @property
    def tenant(self) -> Callable[[Request], str]:
        """The key that names the account ("aid/tid", appId, company …); "" when it has none
        (Gamooga without `c`: `answer` is then called with account "" and must not keep)."""
        ...

    @property
    def answer(self) -> Callable[[Request, Rules], Answer]:
        """The vendor's answer, given that the request will be durable. The hot path: it may do less
        than `decode`, and must agree with it (`events`, `refused`)."""
        ...

    @property
    def decode(self) -> Callable[[Request, Rules], Decoded]:
        """Everything the request holds. Never raises, whatever the bytes."""
        ...

    @property
    def error(self) -> Callable[[int, str, Request | None], Answer]:
        """The dialect's own body for a status that accept decides: 400 405 408 411 413 414 415
        429 431 500 503, 401 and 404 for an unknown account. `keep` is False, `refused` True."""
        ...
