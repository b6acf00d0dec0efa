"""Orbee event tracking: POST /collect/{aid}/{tid}/event, one event a request.

`answer` and `decode` share one judgement, `_judge`, so that they cannot disagree.
"""

from __future__ import annotations

import math
import re
import unicodedata
from http import HTTPStatus
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Answer, Bounds, Cors, DialectName, Request, Route, Rules
from headwater.decode.browser import browser_context
from headwater.decode.identifiers import identifier, identity, is_denied
from headwater.decode.json_body import BadJson, parse_json
from headwater.decode.times import client_time
from headwater.event import Decoded, Event, Identity, Issue, Rejection

NAME: DialectName = "orbee"
ROUTES: tuple[Route, ...] = (Route("/collect/{aid}/{tid}/event", "event", ("POST",)),)
BOUNDS = Bounds(
    target_bytes_max=limits.target_bytes_max, body_bytes_max=limits.orbee_body_bytes_max
)
CORS = Cors(methods="POST, OPTIONS")
BEARER = False
ALWAYS: tuple[tuple[str, str], ...] = ()

_JSON = "application/json"
#: Between the parts of an instance's identity; where a part holds it, it is escaped.
_SEPARATOR = "\u001f"
_ESCAPES = str.maketrans({"\u001e": "\u001e0", _SEPARATOR: "\u001e1"})
#: The event-tracking page writes the first, the event specification the second; the first that
#: is not empty counts.
_INSTANCE_KEYS = ("instance_id", "instanceID", "instanceId", "instanceid")
_TIME_KEYS = ("dtm", "timestamp")
_NUMBER = re.compile(r"[0-9]+").fullmatch
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE).fullmatch
_SCORE = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?").fullmatch
_SCORE_CHARACTERS_MAX = 64
_INT64 = range(-(2**63), 2**63)


class _Fields(msgspec.Struct, frozen=True):
    """A body that holds all that is required, and those five as trimmed text."""

    body: dict[str, Any]
    action: str
    object: str
    vendor: str
    product: str
    instance: str


class _Refusal(msgspec.Struct, frozen=True):
    """Why there is no event, in words that the client gets as well."""

    reason: str
    words: str
    detail: str = ""


_TRACKED = Answer(status=204, events=1)
_NOT_TRACKED = Answer(status=204, headers=(("x-tracked", "0"),), events=1, refused=True)


def precheck(request: Request) -> Answer | None:
    """404 when aid or tid is no number and no UUID: no tracker can have such an address."""
    for name in ("aid", "tid"):
        value = request.params.get(name, "")
        if _NUMBER(value) is None and _UUID(value) is None:
            return error(404, f"{name} is not a number or UUID", request)
    return None


def tenant(request: Request) -> str:
    """ "aid/tid", UUIDs in lower case, numbers exactly as sent."""
    return f"{_normal(request, 'aid')}/{_normal(request, 'tid')}"


def answer(request: Request, rules: Rules) -> Answer:
    """204 and nothing else; 400 with what is wrong, or 204 with ``X-Tracked: 0`` when lenient."""
    found = _judge(request)
    if isinstance(found, _Fields):
        return _TRACKED
    if rules.lenient:
        return _NOT_TRACKED
    return Answer(
        status=400, body=_error_body(found.words), content_type=_JSON, events=1, refused=True
    )


def decode(request: Request, rules: Rules) -> Decoded:
    """The one event of the request, or the one reason why there is none."""
    found = _judge(request)
    if isinstance(found, _Fields):
        return Decoded(events=[_event(request, found)])
    return Decoded(
        rejected=[
            Rejection(
                index=0,
                reason=found.reason,
                detail=found.detail or found.words,
                scope=tenant(request),
            )
        ]
    )


def error(status: int, message: str, request: Request | None) -> Answer:
    """``{"error": message}``, the status's own phrase when there is no message."""
    if not message:
        try:
            message = HTTPStatus(status).phrase.lower()
        except ValueError:
            message = "error"
    return Answer(
        status=status, body=_error_body(message), content_type=_JSON, keep=False, refused=True
    )


def _error_body(words: str) -> bytes:
    return msgspec.json.encode({"error": words})


def _normal(request: Request, name: str) -> str:
    value = request.params.get(name, "")
    return value.lower() if _UUID(value) else value


def _judge(request: Request) -> _Fields | _Refusal:
    try:
        body = parse_json(request.body)
    except BadJson as bad:
        return _Refusal("bad_json", "invalid JSON", str(bad))
    if type(body) is not dict:
        return _Refusal("bad_body", "body must be a JSON object")
    fields = _Fields(
        body,
        _text(body.get("action")),
        _text(body.get("object")),
        identifier(body.get("vendor")) or "",
        identifier(body.get("product")) or "",
        _instance(body),
    )
    if fields.action and fields.object and fields.vendor and fields.product and fields.instance:
        return fields
    missing = [
        name
        for name, value in (
            ("action", fields.action),
            ("object", fields.object),
            ("vendor", fields.vendor),
            ("product", fields.product),
            ("instance_id", fields.instance),
        )
        if not value
    ]
    return _Refusal("missing_field", f"missing required: {', '.join(missing)}")


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _instance(body: dict[str, Any]) -> str:
    for key in _INSTANCE_KEYS:
        value = identifier(body.get(key))
        if value:
            return value
    return ""


def _event(request: Request, fields: _Fields) -> Event:
    body = fields.body
    issues: list[Issue] = []
    context = browser_context(request.headers)
    for key in ("label", "element"):
        if body.get(key) is not None:
            context[key] = body[key]
    score = _score(body.get("score"), issues)
    if score is not None:
        context["score"] = score
    raw = {key: body[key] for key in ("action", "object")}
    occurred_at = None
    for key in _TIME_KEYS:
        if body.get(key) is not None:
            raw[key] = body[key]
            if occurred_at is None:
                occurred_at, found = client_time(body[key], key, request.received_at)
                issues += found
    name = f"{fields.action}:{fields.object}".lower()
    return Event(
        index=0,
        kind="page" if name == "view:page" else "track",
        name=name,
        scope=tenant(request),
        occurred_at=occurred_at,
        identities=_identities(request, fields),
        properties=body,
        context=context,
        raw=raw,
        issues=issues,
    )


def _identities(request: Request, fields: _Fields) -> list[Identity]:
    """The instance groups events within the account: web and server trackers of one account
    differ, so the tracker is no part of it."""
    scope = _normal(request, "aid")
    found = [
        Identity(
            "orbee:instance",
            scope,
            _SEPARATOR.join(
                part.translate(_ESCAPES)
                for part in (fields.vendor, fields.product, fields.instance)
            ),
            "correlation",
            is_denied(fields.instance),
        )
    ]
    duid = identifier(fields.body.get("duid"))
    if duid is not None:
        found.append(identity("orbee:duid", scope, duid, "weak"))
    email = fields.body.get("email")
    if isinstance(email, str) and "@" in email:
        address = unicodedata.normalize("NFC", (identifier(email) or "").lower())
        found.append(identity("email", "", address, "lookup"))
    return found


def _score(value: Any, issues: list[Issue]) -> int | float | None:
    """A number, or text that is one; anything else stays in the properties, with an issue."""
    number: int | float | None = None
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _SCORE_CHARACTERS_MAX and _SCORE(text):
            number = int(text) if text.lstrip("+-").isdigit() else float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if isinstance(number, int) and number not in _INT64:
        try:
            number = float(number)
        except OverflowError:
            number = None
    if number is not None and math.isfinite(number):
        return number
    if value is not None:
        issues.append(Issue("bad_type", "score", "expected a number"))
    return None
