"""VAIX Tracker (Sportradar personalization): POST /api/tracker/events, one event a request.

`answer` and `decode` share one judgement, `_judge`, so that they cannot disagree. An account's
rules only ever narrow what the permissive ones accept: an allow-list names event types of the
vendor's grammar.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Answer, Bounds, Cors, DialectName, Request, Route, Rules
from headwater.decode.browser import browser_context, channel_of, header_text, site_of
from headwater.decode.identifiers import identifier, identity
from headwater.decode.json_body import BadJson, parse_json
from headwater.event import Decoded, Event, Identity, Issue, Rejection

NAME: DialectName = "vaix"
ROUTES: tuple[Route, ...] = (Route("/api/tracker/events", "events", ("POST",)),)
BOUNDS = Bounds(target_bytes_max=limits.target_bytes_max, body_bytes_max=limits.vaix_body_bytes_max)
CORS = Cors(
    methods="POST, OPTIONS",
    headers="authorization, content-type, accept, x-vaix-client-id, x-vaix-authentication-method",
    echo_origin=True,
)
BEARER = True
ALWAYS: tuple[tuple[str, str], ...] = ()

_JSON = "application/json"
#: The vendor's 400 says what its table has no status for.
_STATUS_INSTEAD = {415: 400}
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*").fullmatch
_WIDGET_TYPE = re.compile(r"[^:\s]+:[^:\s]+").fullmatch
#: Verbs whose data "need to include" page and location.
_SHOWN = frozenset({"clicks", "impressions"})
_BODY_KEYS = frozenset({"event_type", "user_id", "data"})
_BLANK = "can't be blank"
_INVALID = "is invalid"


class _Refusal(msgspec.Struct, frozen=True):
    """Why there is no event, and what the client gets."""

    answer: Answer
    reason: str
    detail: str = ""


def _error_body(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return msgspec.json.encode({"error": phrase, "status": "error"})


def _refused(status: int) -> Answer:
    return Answer(
        status=status, body=_error_body(status), content_type=_JSON, events=1, refused=True
    )


_TRACKED = Answer(status=204, events=1)
_BAD_REQUEST = _refused(400)
_NO_CLIENT_ID = _Refusal(_BAD_REQUEST, "missing_client_id", "x-vaix-client-id is missing or empty")
_NOT_ALLOWED = _refused(403)
_TOO_EARLY = _Refusal(_refused(425), "too_early", "sent in TLS early data (RFC 8470)")
_NOT_ACCEPTABLE = Answer(
    status=406, body=_error_body(406), content_type=_JSON, keep=False, refused=True
)


def precheck(request: Request) -> Answer | None:
    """406 when Accept leaves no room for JSON; None otherwise."""
    accept = request.headers.get("accept")
    if accept is None or _accepts_json(accept):
        return None
    return _NOT_ACCEPTABLE


def tenant(request: Request) -> str:
    """Always "": the bearer token names the account."""
    return ""


def answer(request: Request, rules: Rules) -> Answer:
    """204, or 400, 403, 422, 425 as the vendor's table says; all of them count one event."""
    found = _judge(request, rules)
    return found.answer if isinstance(found, _Refusal) else _TRACKED


def decode(request: Request, rules: Rules) -> Decoded:
    """The one event of the request, or the one reason why there is none."""
    found = _judge(request, rules)
    if isinstance(found, _Refusal):
        return Decoded(
            rejected=[
                Rejection(index=0, reason=found.reason, detail=found.detail, scope=_group(request))
            ]
        )
    return Decoded(events=[_event(request, found)])


def error(status: int, message: str, request: Request | None) -> Answer:
    """The vendor's error schema, two strings and no more, whatever `message` says; 401 with its
    challenge, 415 as 400."""
    status = _STATUS_INSTEAD.get(status, status)
    return Answer(
        status=status,
        body=_error_body(status),
        content_type=_JSON,
        headers=(("www-authenticate", "Bearer"),) if status == 401 else (),
        keep=False,
        refused=True,
    )


def _judge(request: Request, rules: Rules) -> dict[str, Any] | _Refusal:
    """The body of a request that becomes an event, or the first thing that is wrong with it, in
    the vendor's order: 400 (header), 403, 425, 400 (JSON), 422."""
    headers = request.headers
    group = _group(request)
    if not group:
        return _NO_CLIENT_ID
    if rules.groups is not None and group not in rules.groups:
        return _Refusal(_NOT_ALLOWED, "group_not_allowed", group)
    if "early-data" in headers:  # any value counts as 1 (RFC 8470, 5.1)
        return _TOO_EARLY
    try:
        body = parse_json(request.body)
    except BadJson as bad:
        return _Refusal(_BAD_REQUEST, "bad_json", str(bad))
    if type(body) is not dict:
        return _unprocessable("bad_body", {"body": ["must be an object"]})
    event_type = body.get("event_type")
    if type(event_type) is not str or not _is_supported(event_type, rules):
        return _wrong(body, rules)
    user_id = body.get("user_id")
    if user_id is not None and type(user_id) is not str and type(user_id) is not int:
        return _wrong(body, rules)
    data = body.get("data")
    if data is not None and type(data) is not dict:
        return _wrong(body, rules)
    return body


def _is_supported(event_type: str, rules: Rules) -> bool:
    if _EVENT_TYPE(event_type) is None:
        return False
    allowed = rules.event_types
    return (
        allowed is None or event_type in allowed or event_type.partition(":")[0] + ":*" in allowed
    )


def _wrong(body: dict[str, Any], rules: Rules) -> _Refusal:
    """422 with every field that is wrong; the reason is that of the first."""
    errors: dict[str, list[str]] = {}
    reason = "bad_field"
    event_type = body.get("event_type")
    if event_type is None or event_type == "":
        errors["event_type"] = [_BLANK]
        reason = "missing_field"
    elif not isinstance(event_type, str):
        errors["event_type"] = [_INVALID]
    elif not _is_supported(event_type, rules):
        errors["event_type"] = [_INVALID]
        reason = "unknown_event_type"
    if type(body.get("user_id")) not in (str, int, type(None)):
        errors["user_id"] = [_INVALID]
    if type(body.get("data")) not in (dict, type(None)):
        errors["data"] = [_INVALID]
    return _unprocessable(reason, errors)


def _unprocessable(reason: str, errors: dict[str, list[str]]) -> _Refusal:
    return _Refusal(
        Answer(
            status=422,
            body=msgspec.json.encode({"errors": errors}),
            content_type=_JSON,
            events=1,
            refused=True,
        ),
        reason,
        "; ".join(f"{field} {words[0]}" for field, words in errors.items()),
    )


def _group(request: Request) -> str:
    return header_text(request.headers.get("x-vaix-client-id", ""))


def _event(request: Request, body: dict[str, Any]) -> Event:
    event_type: str = body["event_type"]
    data: dict[str, Any] = body.get("data") or {}
    group = _group(request)
    raw: dict[str, Any] = {"event_type": event_type}
    identities: list[Identity] = []
    user_id = body.get("user_id")
    value = identifier(user_id)
    if value is not None:
        identities.append(identity("vaix:user", group, value, "strong"))
        if isinstance(user_id, str) and user_id != value:
            raw["user_id"] = user_id
    context = browser_context(request.headers)
    context["client_group"] = group
    for field in ("page", "location"):
        if isinstance(data.get(field), str):
            context[field] = data[field]
    _put_source(context, data)
    if not body.keys() <= _BODY_KEYS:
        context["extra"] = {key: body[key] for key in body if key not in _BODY_KEYS}
    return Event(
        index=0,
        kind="track",
        name=event_type,
        scope=group,
        identities=identities,
        properties=data,
        context=context,
        raw=raw,
        issues=_place_issues(data) if event_type.partition(":")[0] in _SHOWN else [],
    )


def _put_source(context: dict[str, Any], data: dict[str, Any]) -> None:
    """brand and channel as sent by a backend, else as a frontend's headers show them; `derived`
    names those that were read from headers."""
    derived = []
    for field in ("brand", "channel"):
        value = data.get(field)
        if isinstance(value, str) and value:
            context[field] = value
        elif value is None or value == "":
            value = (
                site_of(context) if field == "brand" else channel_of(context.get("user_agent", ""))
            )
            if value:
                context[field] = value
                derived.append(field)
    if derived:
        context["derived"] = derived


def _place_issues(data: dict[str, Any]) -> list[Issue]:
    """What the vendor asks of clicks and impressions and its own app does not send: noted only."""
    issues = []
    for field in ("page", "location"):
        value = data.get(field)
        if value is None or value == "":
            issues.append(Issue("missing_field", f"data.{field}"))
        elif not isinstance(value, str):
            issues.append(Issue("bad_type", f"data.{field}", "expected text"))
        elif field == "location" and _WIDGET_TYPE(value) is None:
            issues.append(Issue("bad_location", "data.location", "expected widget:type"))
    return issues


@lru_cache(maxsize=256)  # clients send few different values; 256 of 32 KiB at the most
def _accepts_json(accept: str) -> bool:
    """Whether an Accept header admits application/json (RFC 9110, 12.5.1): the most specific
    range that matches decides, q=0 excludes; a header without one readable range excludes
    nothing."""
    verdict, rank, readable = False, -1, False
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        if media == "*":
            media = "*/*"  # as Java's URLConnection sends it
        if "/" not in media:
            continue
        readable = True
        specific = {"*/*": 0, "application/*": 1, _JSON: 2}.get(media, -1)
        if specific > rank:
            verdict, rank = not any(_is_zero(part) for part in parameters), specific
    return verdict or not readable


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and re.fullmatch(r"0(\.0*)?", value.strip()) is not None
