"""Nucleus (nucleus.sh, later Astrolytics): batches over WebSocket or HTTP, acknowledged by id.

A dozen clients speak it, each with spellings of its own; `_event` is where they become one.
``nucleus_message`` reads the bytes and says why one bad event never holds back a queue. The page
for users is docs/dialects/nucleus.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Answer, Bounds, Cors, DialectName, Request, Route, Rules
from headwater.decode.browser import browser_context
from headwater.decode.identifiers import identifier
from headwater.decode.nucleus_close import CLOSE, sessions_carried, signs_of_close
from headwater.decode.nucleus_message import BadMessage, Head, heads, reply, value_of, values
from headwater.decode.nucleus_who import NOBODY, WHO_FIELDS, Who, who_of
from headwater.decode.times import client_time
from headwater.event import Decoded, Event, Issue, Kind, Rejection, Sign

NAME: DialectName = "nucleus"
#: GET is here to be answered 426. `/{app}` is the documented address, which no client of the vendor
#: uses; the router keeps the other dialects' first segments out of it.
ROUTES: tuple[Route, ...] = (
    Route("/app/{app}/track", "track", ("GET", "POST"), websocket=True),
    Route("/{app}", "track", websocket=True),
)
BOUNDS = Bounds(
    target_bytes_max=limits.target_bytes_max, body_bytes_max=limits.nucleus_body_bytes_max
)
CORS = Cors(methods="POST, OPTIONS")
BEARER = False
ALWAYS: tuple[tuple[str, str], ...] = ()
#: Which sessions a message is of: what a WebSocket has carried when it ends (accept.liveness).
carried = sessions_carried

_JSON = "application/json"
#: What can be wrong with a message, after the handshake.
_TO_MESSAGE = frozenset({400, 500, 503})
_NOTHING_REPORTED = b'{"reportedIds":[]}'
_APP = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)

_encode = msgspec.json.Encoder().encode
_encode_canonical = msgspec.json.Encoder(order="sorted").encode


# --- the answer --------------------------------------------------------------------------------


def precheck(request: Request) -> Answer | None:
    """426 for a GET that asks for no upgrade."""
    if request.method == "POST" or request.transport == "websocket":
        return None
    return error(426, "connect with a WebSocket, or POST", request)


def tenant(request: Request) -> str:
    """The appId of the path; what a body says counts for nothing here."""
    app = request.params.get("app", "")
    return app if _APP.fullmatch(app) else ""


def answer(request: Request, rules: Rules) -> Answer:
    """``{"reportedIds": [...]}`` for every event that has an id, the rejected ones too: what is not
    acknowledged is sent again for ever (card, section 4)."""
    try:
        found, confirmation = heads(request.body)
    except BadMessage as bad:
        refusal = error(400, bad.detail, request)
        return msgspec.structs.replace(refusal, events=1, keep=True)
    return Answer(
        status=200,
        body=reply(found, confirmation),
        content_type=_JSON,
        events=len(found),
        refused=bool(found) and not any(map(_is_stored, found)),
    )


def error(status: int, text: str, request: Request | None) -> Answer:
    """``{"error": text}``, the shape that a client's callbacks read. To a WebSocket message the
    empty acknowledgement: the Swift client ends its process over a frame without ``reportedIds``.
    Its handshake is refused like any request."""
    to_message = request is not None and request.transport == "websocket" and status in _TO_MESSAGE
    return Answer(
        status=status,
        body=_NOTHING_REPORTED if to_message else _encode({"error": text}),
        content_type=_JSON,
        headers=(("upgrade", "websocket"),) if status == 426 else (),
        keep=False,
        refused=True,
    )


def _is_stored(head: Head | None) -> bool:
    if head is None:
        return False
    word, name = _words(value_of(head.type), value_of(head.name), value_of(head.event))
    return name is not None or word not in _NEED_NAME


# --- type and name -----------------------------------------------------------------------------

_KINDS: Mapping[str, Kind] = {
    "init": "session_start",
    "event": "track",
    "error": "error",
    "userid": "identify",
    "identify": "identify",
    "props": "profile",
    "nucleus:view": "page",
    "$pageview": "page",
    "pageview": "page",
}
#: Their payload is the user's properties, not the event's.
_PROFILE_TYPES = frozenset({"init", "userid", "identify", "props"})
_NEED_NAME = frozenset({"event", "error"})
#: Clients before 2.0 have no `type`: the word stands in `event`.
_LEGACY_TYPES = {
    "init": "init",
    "nucleus:heartbeat": "heartbeat",
    "nucleus:userid": "userid",
    "nucleus:props": "props",
    "nucleus:beacon": "userid",
}
_LEGACY_ERROR = "error:"


def _words(raw_type: Any, raw_name: Any, raw_event: Any) -> tuple[str, str | None]:
    """What an event calls itself: its type as of today's clients, and its name, None for none. A
    name that is no text is given as the text of it."""
    name = _name(raw_name)
    word = raw_type if isinstance(raw_type, str) else identifier(raw_type)
    if word:
        return word, name if name is not None else _name(raw_event)
    if name is not None:
        return "event", name
    if isinstance(raw_event, str):
        if raw_event in _LEGACY_TYPES:
            return _LEGACY_TYPES[raw_event], None
        if raw_event.startswith(_LEGACY_ERROR):
            return "error", _name(raw_event[len(_LEGACY_ERROR) :])
    return "event", _name(raw_event)


def _name(value: Any) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None:
        return None
    return identifier(value) or _encode(value).decode()


# --- the events --------------------------------------------------------------------------------

#: What `_event` reads; every other key is context.
_READ = frozenset(
    {
        "type",
        "name",
        "event",
        "id",
        "date",
        "sessionId",
        "deviceId",
        "machineId",
        "anonId",
        "userId",
        "payload",
        "appId",
        "locale",
        "language",
    }
)


def decode(request: Request, rules: Rules) -> Decoded:
    """Everything in the message; heartbeats are counted and no events. The end of a WebSocket holds
    nothing but signs of life."""
    app = request.params.get("app", "")
    if request.endpoint == CLOSE:
        return Decoded(signs=signs_of_close(request, app))
    decoded = Decoded()
    try:
        items, changed = values(request.body)
    except BadMessage as bad:
        decoded.rejected.append(Rejection(index=0, reason=bad.reason, detail=bad.detail, scope=app))
        return decoded
    context = browser_context(request.headers)
    who = NOBODY
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            decoded.rejected.append(_rejection(index, "bad_body", "no object", app, item))
            continue
        word, name = _words(item.get("type"), item.get("name"), item.get("event"))
        if name is None and word in _NEED_NAME:
            detail = f"an {word} needs a name"
            decoded.rejected.append(_rejection(index, "missing_name", detail, app, item))
            continue
        said = [item.get(field) for field in WHO_FIELDS]
        if said != who.said or True in said or False in said:  # 1 == True, and "1" is an id
            who = who_of(said, app)
        if word == "heartbeat":
            decoded.heartbeats += 1
            if who.session is not None:
                decoded.signs.append(_sign(item, who, app, request.received_at))
        else:
            event = _event(index, item, word, name or word, app, who, context, request.received_at)
            if changed:
                event.issues += changed.get(index, ())
            decoded.events.append(event)
    return decoded


def _sign(item: dict[str, Any], who: Who, app: str, received_at: int) -> Sign:
    return Sign(
        session=who.session or "",
        scope=app,
        identities=who.identities.copy(),
        occurred_at=client_time(item.get("date"), "date", received_at)[0],
    )


def _rejection(index: int, reason: str, detail: str, app: str, item: Any) -> Rejection:
    piece = _encode(item).decode()
    return Rejection(index=index, reason=reason, detail=detail, scope=app, piece=piece)


def _event(
    index: int,
    item: dict[str, Any],
    word: str,
    name: str,
    app: str,
    who: Who,
    http_context: dict[str, Any],
    received_at: int,
) -> Event:
    get = item.get
    issues = who.issues.copy()
    context = {**http_context, **who.context}
    if not _READ.issuperset(item):
        for key, value in item.items():
            if key not in _READ and value is not None:
                context[key] = value

    # type and name
    raw_type, raw_name, raw_event = get("type"), get("name"), get("event")
    date, own_id = get("date"), get("id")
    raw: dict[str, Any] = {}
    if raw_type is not None:
        raw["type"] = raw_type
        if not isinstance(raw_type, str):
            issues.append(Issue("bad_type", "type"))
    if raw_event is not None and (raw_type is None or raw_event != name):
        raw["event"] = raw_event
    if raw_name is None:
        raw_name = raw_event
    if raw_name is not None and not isinstance(raw_name, str):
        raw["name"] = raw_name
        issues.append(Issue("bad_type", "name"))
    if date is not None:
        raw["date"] = date
    if own_id is not None:
        raw["id"] = own_id

    # when
    occurred_at, odd = client_time(date, "date", received_at)
    issues += odd
    if get("appType") == "electron" and isinstance(date, str) and date.endswith("Z"):
        issues.append(Issue("local_as_utc", "date"))

    # what
    payload = get("payload")
    if word == "props" and isinstance(get("data"), dict) and not _is_filled(payload):
        if payload is not None and payload != {}:
            context["payload"] = payload
        payload = context.pop("data")
    dedupe = None
    if date is not None or own_id is not None:  # else two clicks in a session look the same
        dedupe = _dedupe_key(
            app, who.device, who.session, raw_type, raw_name, date, own_id, payload
        )
    event = Event(
        index=index,
        kind=_KINDS.get(word, "track"),
        name=name,
        scope=app,
        occurred_at=occurred_at,
        identities=who.identities.copy(),
        session=who.session,
        context=context,
        raw=raw,
        issues=issues,
        dedupe=dedupe,
    )
    if isinstance(payload, dict):
        if word in _PROFILE_TYPES:
            if word == "init" and get("referrer") is None:  # the browser's page, no property
                referrer = payload.pop("referrer", None)
                if referrer is not None:
                    context["referrer"] = referrer
            _set_profile(event, payload)
        else:
            event.properties = payload
    elif payload is not None:
        event.properties = {"payload": payload}
        issues.append(Issue("payload_not_object", "payload"))

    # where
    locale, language = get("locale"), get("language")
    if locale is None:
        locale = language
    if locale is not None:
        context["locale"] = locale
        if language is not None and language != locale:
            context["language"] = language
    app_id = get("appId")
    if app_id is not None and app_id != app:
        raw["appId"] = app_id
    return event


def _is_filled(payload: Any) -> bool:
    return isinstance(payload, dict) and bool(payload)


def _set_profile(event: Event, payload: dict[str, Any]) -> None:
    """Merge by key; null unsets."""
    for key, value in payload.items():
        if value is None:
            event.profile_unset.append(key)
        else:
            event.profile_set[key] = value


def _dedupe_key(*parts: Any) -> bytes:
    """What makes an event the same one when it is sent again: the first half of a SHA-256 over app,
    device, session, type, name, date, id and payload, as JSON with sorted keys.

    Not among them: userId and anonId, which clients stamp when they send (card, section 3). The
    client's `id` alone would not do, it is a random number below 10^4.
    """
    return sha256(_encode_canonical(parts)).digest()[:16]
