"""Gamooga, server to server: events and visitor properties as query parameters, {"result":…} back.

Six endpoints store something (/ev, /evwid, /evwidj, /evvprwid, /vpr, /id), /newnaconf tells where
they are. Those that name a person by a unique id (`u`) answer with a visitor id, which only the
registry knows: `answer` returns the question, and is called again once ``request.state`` holds the
visitor id. `answer` and `decode` share one judgement, `_call`, so that they cannot disagree.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from headwater import limits
from headwater.accept.request import (
    Answer,
    Bounds,
    Cors,
    DialectName,
    Identify,
    Request,
    Route,
    Rules,
)
from headwater.decode.browser import browser_context
from headwater.decode.form import as_characters, first, is_utf8, pairs, values
from headwater.decode.identifiers import WHITE, identity, is_denied
from headwater.decode.json_body import BadJson, parse_json
from headwater.decode.times import client_time
from headwater.decode.triples import Fields, Typed, read_triples
from headwater.event import Decoded, Event, Issue, Kind, Rejection

NAME: DialectName = "gamooga"
_METHODS = ("GET", "POST")
ROUTES: tuple[Route, ...] = (
    Route("/newnaconf/{c}", "newnaconf", ("GET",)),
    Route("/ev", "ev", _METHODS),
    Route("/evwid", "evwid", _METHODS),
    Route("/evwidj", "evwidj", ("POST",)),
    Route("/evvprwid", "evvprwid", _METHODS),
    Route("/vpr", "vpr", _METHODS),
    Route("/id", "id", _METHODS),
)
BOUNDS = Bounds(
    target_bytes_max=limits.target_bytes_max_query, body_bytes_max=limits.gamooga_body_bytes_max
)
CORS = Cors(methods="GET, POST, OPTIONS")
BEARER = False
#: All but /newnaconf have side effects, and a GET with those must not be cached.
ALWAYS: tuple[tuple[str, str], ...] = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
)

_JSON = "application/json"
_SUCCESS = Answer(status=200, body=b'{"result":"success"}', content_type=_JSON, events=1)
_VISITOR_CHARACTERS_MAX = 128
_PHRASES = {status.value: status.phrase.lower() for status in HTTPStatus}


class _Endpoint(NamedTuple):
    """What one endpoint takes: required parameters in the order in which a missing one is
    reported, and the spelling of its event and visitor properties."""

    kind: Kind
    required: tuple[str, ...]
    event_triples: Fields | None = None
    visitor_triples: Fields | None = None
    known: frozenset[str] = frozenset()  # names that may come more than once


_PROPERTY = Fields(("ky",), "vl", "tp")
_PROPERTY_FIELDS = frozenset({"ky", "vl", "tp"})
_ENDPOINTS = {
    "ev": _Endpoint("track", ("v", "e"), _PROPERTY, None, _PROPERTY_FIELDS),
    "evwid": _Endpoint("track", ("u", "e"), _PROPERTY, None, _PROPERTY_FIELDS),
    "evwidj": _Endpoint("track", ("u", "e")),
    "evvprwid": _Endpoint(
        "track",
        ("u", "e"),
        Fields(("eky",), "evl", "etp"),
        Fields(("vky",), "vvl", "vtp"),
        frozenset({"eky", "evl", "etp", "vky", "vvl", "vtp"}),
    ),
    "vpr": _Endpoint(
        "profile", ("v",), None, Fields(("p", "ky"), "vl", "tp"), _PROPERTY_FIELDS | {"p"}
    ),
    "id": _Endpoint("identify", ("u",), known=frozenset({"u"})),
}


class _Call(msgspec.Struct, frozen=True):
    """A request that becomes an event.

    `given` holds the first value of each required parameter, `users` the unique ids that name
    somebody (several in /id alone), `body` the properties of /evwidj. All are trimmed.
    """

    text: str
    company: str
    given: dict[str, str]
    users: list[str]
    body: dict[str, Any]


class _Refused(NamedTuple):
    """Why there is no event; `words` are the client's, `detail` says more where there is more."""

    reason: str
    words: str
    detail: str = ""


def precheck(request: Request) -> Answer | None:
    """Nothing is due before the account is looked up."""
    return None


def tenant(request: Request) -> str:
    """The company, trimmed and in lower case, as a UUID is compared; "" when `c` is missing."""
    company = request.params.get("c")
    if company is None:
        company = _first(_text(request), "c")
    return company.strip().lower()


def answer(request: Request, rules: Rules) -> Answer:
    """``{"result":"success"}``, with the visitor id where a unique id was given."""
    endpoint = request.endpoint
    if endpoint == "newnaconf":
        return _configuration(request, rules)
    call = _call(request)
    if isinstance(call, _Refused):
        kept = call is not _NO_COMPANY
        return Answer(
            status=400,
            body=_error_body(call.words),
            content_type=_JSON,
            events=1 if kept else 0,
            keep=kept,
            refused=True,
        )
    if not call.users:
        return _SUCCESS
    if request.state:
        body = msgspec.json.encode({"result": "success", "vid": request.state})
        return Answer(status=200, body=body, content_type=_JSON, events=1)
    visitor = call.given["v"] if endpoint == "id" else ""
    question = Identify(
        scope=call.company,
        users=tuple(call.users),
        visitor="" if is_denied(visitor) else visitor,
    )
    return Answer(status=200, body=_SUCCESS.body, content_type=_JSON, events=1, identify=question)


def decode(request: Request, rules: Rules) -> Decoded:
    """The one event of the request, or the one reason why there is none."""
    if request.endpoint not in _ENDPOINTS:
        return Decoded()
    call = _call(request)
    if isinstance(call, _Call):
        return Decoded(events=[_event(request, call)])
    return Decoded(
        rejected=[
            Rejection(
                index=0,
                reason=call.reason,
                detail=call.detail or call.words,
                scope=tenant(request),
            )
        ]
    )


def error(status: int, message: str, request: Request | None) -> Answer:
    """``{"result":"error","error":message}``."""
    return Answer(
        status=status,
        body=_error_body(message or _PHRASES.get(status, "error")),
        content_type=_JSON,
        keep=False,
        refused=True,
    )


# --- the answer --------------------------------------------------------------------------------


def _configuration(request: Request, rules: Rules) -> Answer:
    """Where the company's events go: a bare host and port, without a scheme."""
    host = rules.public_host or request.headers.get("host", "")
    body = msgspec.json.encode({"evbk": host})
    return Answer(status=200, body=body, content_type=_JSON, keep=False)


def _error_body(words: str) -> bytes:
    return msgspec.json.encode({"result": "error", "error": words})


# --- the parameters ----------------------------------------------------------------------------

_NO_COMPANY = _Refused("missing_field", "missing parameter: c")
_MISSING = {
    name: _Refused("missing_field", f"missing parameter: {name}") for name in ("u", "v", "e")
}
_LONG_VISITOR = _Refused(
    "bad_field",
    "invalid parameter: v",
    f"invalid parameter: v, more than {_VISITOR_CHARACTERS_MAX} characters",
)
_NO_OBJECT = _Refused("bad_body", "body is not a JSON object")


def _call(request: Request) -> _Call | _Refused:
    """What the request asks, or why it cannot become an event."""
    text = _text(request)
    company = _first(text, "c").lower()
    if not company:
        return _NO_COMPANY
    given: dict[str, str] = {}
    for name in _ENDPOINTS[request.endpoint].required:
        value = given[name] = _first(text, name)
        if not value:
            return _MISSING[name]
    users: list[str] = []
    if "u" in given:
        users = _users(text, given["u"])
        if request.endpoint != "id":
            users = users[:1]
        else:
            given["v"] = _first(text, "v")
            if not users:
                return _MISSING["u"]
    if "v" in given and len(given["v"]) > _VISITOR_CHARACTERS_MAX:
        return _LONG_VISITOR
    body: Any = {}
    if request.endpoint == "evwidj":
        try:
            body = parse_json(request.body)
        except BadJson as bad:
            return _Refused("bad_json", "body is not valid JSON", str(bad))
        if body == []:
            body = {}  # what PHP makes of an object without properties
        if type(body) is not dict:
            return _NO_OBJECT
    return _Call(text, company, given, users, body)


def _text(request: Request) -> str:
    """The query, and behind it the body of a form; /evwidj has its properties in the body."""
    written = request.query
    if request.method == "POST" and request.endpoint != "evwidj" and request.body:
        written = f"{written}&{request.body.decode('latin-1')}"
    return as_characters(written)


def _first(text: str, name: str) -> str:
    """The first value of a parameter that is not empty, trimmed; "" when there is none."""
    value = first(text, name)
    if value is None:
        return ""
    if trimmed := value.strip(WHITE):
        return trimmed
    return next((one for one in _all(text, name) if one), "")


def _all(text: str, name: str) -> list[str]:
    return [value.strip(WHITE) for value in values(text, name)]


def _users(text: str, first_user: str) -> list[str]:
    """The unique ids that name somebody, in order, each once."""
    plainly = text.count("&u=") + text.startswith("u=")
    sent = [first_user] if plainly == 1 else _all(text, "u")
    return [user for user in dict.fromkeys(sent) if not is_denied(user)]


# --- the event ---------------------------------------------------------------------------------


def _event(request: Request, call: _Call) -> Event:
    endpoint = _ENDPOINTS[request.endpoint]
    given = call.given
    sent = pairs(call.text)
    tm = given["tm"] = _first(call.text, "tm")
    event = Event(
        index=0,
        kind=endpoint.kind,
        name=given.get("e", request.endpoint),
        scope=call.company,
        context=browser_context(request.headers),
        raw={"endpoint": request.endpoint},
    )
    if not is_utf8(call.text):
        event.issues.append(Issue("bad_utf8", "query", "replaced by U+FFFD"))
    if tm:
        _put_time(event, tm, request.received_at)
    _put_identities(event, request, call)
    if endpoint.event_triples is not None:
        found = read_triples(sent, endpoint.event_triples)
        event.properties = found.properties
        _keep(event, found, "")
    if endpoint.visitor_triples is not None:
        found = read_triples(sent, endpoint.visitor_triples)
        event.profile_set = found.properties
        _keep(event, found, "profile_")
        if endpoint.kind == "profile" and not found.properties:
            event.issues.append(Issue("missing_field", "p", "no property"))
    if request.endpoint == "evwidj":
        _put_json_properties(event, call.body)
    extra = _extra(sent, endpoint.known, call)
    if extra:
        event.context["extra"] = extra
    return event


def _keep(event: Event, found: Typed, prefix: str) -> None:
    """Types and repeated triples under the event's raw words, with what was odd."""
    if found.types:
        event.raw[f"{prefix}types"] = found.types
    if found.repeated:
        event.raw[f"{prefix}triples"] = found.repeated
    event.issues += found.issues


_NUMERIC = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?").fullmatch
_TIME_CHARACTERS_MAX = 32


def _put_time(event: Event, text: str, received_at: int) -> None:
    """`tm` is a number of milliseconds, of seconds below 1e11, and never negative. PHP writes a
    large float as 1.58E+12."""
    event.raw["tm"] = text
    if text.startswith("-") or len(text) > _TIME_CHARACTERS_MAX or not _NUMERIC(text):
        event.issues.append(Issue("bad_date", "tm", text[:64]))
        return
    number = int(text) if text.isdecimal() else float(text)
    event.occurred_at, issues = client_time(number, "tm", received_at)
    event.issues += issues


def _put_identities(event: Event, request: Request, call: _Call) -> None:
    """Every id that was sent, and the visitor id of the answer where it is asserted with `u`: in
    /id always, elsewhere when this request made it (identity rule 10)."""
    is_id = request.endpoint == "id"
    sent: list[str] = []
    if "u" in call.given:
        sent = call.users if call.users and not is_id else _all(call.text, "u")
    event.identities = [
        identity("gamooga:user", call.company, user, "strong")
        for user in dict.fromkeys(sent)
        if user
    ]
    visitors = []
    if request.state:
        event.raw["vid"] = request.state
        if is_id or request.created:
            visitors.append(request.state)
    if call.given.get("v"):
        visitors.append(call.given["v"])
    event.identities += [
        identity("gamooga:visitor", call.company, visitor, "weak")
        for visitor in dict.fromkeys(visitors)
    ]
    if is_id and len(call.users) > 1:
        event.raw["alias"] = True


def _put_json_properties(event: Event, body: dict[str, Any]) -> None:
    """Types come from JSON: text s, numbers n, truth values b; null and nested values have none."""
    types: dict[str, str] = {}
    for name, value in body.items():
        if not name.strip():
            event.issues.append(Issue("empty_name", "body"))
            event.raw.setdefault("unnamed", []).append(value)
            continue
        event.properties[name] = value
        if isinstance(value, dict | list):
            event.issues.append(Issue("nested_value", name[:64]))
        elif value is not None:
            types[name] = "b" if isinstance(value, bool) else "s" if isinstance(value, str) else "n"
    if types:
        event.raw["types"] = types


def _extra(sent: list[tuple[str, str]], known: frozenset[str], call: _Call) -> dict[str, Any]:
    """What no parameter of the endpoint names, and further values of those that have one."""
    extra: dict[str, list[str]] = {}
    for name, value in sent:
        if name in known:
            continue
        if name == "c":
            counts = value.strip(WHITE).lower() in ("", call.company)
        elif name == "u" and call.users:
            counts = value.strip(WHITE) in ("", call.users[0])
        else:
            counts = name in call.given and value.strip(WHITE) in ("", call.given[name])
        if not counts:
            extra.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in extra.items()}
