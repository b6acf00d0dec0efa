"""Vibetrace: GET /event/{account}/{type}?data=<JSON list>&callback=…&ts=…, JSON or JSONP back.

Also /event/{account}, and POST with the same parameters as a form or as JSON. The list is the
request: what is wrong with one of its items never fails the others, so the answer counts items and
only `decode` looks into them. Both read the request through `_asked`, so they cannot disagree.
"""

from __future__ import annotations

import re
import unicodedata
from http import HTTPStatus
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Answer, Bounds, Cors, DialectName, Request, Route, Rules
from headwater.decode.browser import browser_context, header_text
from headwater.decode.form import as_characters, first, is_utf8, pairs
from headwater.decode.identifiers import identifier, identity, is_denied
from headwater.decode.json_body import BadJson, parse_json
from headwater.event import Decoded, Event, Identity, Issue, Kind, Rejection

NAME: DialectName = "vibetrace"
_METHODS = ("GET", "POST")
ROUTES: tuple[Route, ...] = (
    Route("/event/{account}", "event", _METHODS),
    Route("/event/{account}/{type}", "event", _METHODS),
)
BOUNDS = Bounds(
    target_bytes_max=limits.target_bytes_max_query, body_bytes_max=limits.vibetrace_body_bytes_max
)
CORS = Cors(methods="GET, POST, OPTIONS")
BEARER = False
#: A GET with side effects must not be cached; a script must not be read as anything else.
ALWAYS: tuple[tuple[str, str], ...] = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
)

_JSON = "application/json; charset=utf-8"
_JAVASCRIPT = "application/javascript; charset=utf-8"

#: A function's name or a path of names. Nothing else is echoed: a longer or freer callback lets a
#: caller choose the first bytes of a file that this origin serves (Rosetta Flash).
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*){0,4}").fullmatch
_CALLBACK_CHARACTERS_MAX = 128

#: Statuses that a script tag cannot read: it gets them as JSONP with status 200.
_JSONP_INSTEAD = frozenset({400, 404})

_PHRASES = {status.value: status.phrase.lower() for status in HTTPStatus}

_KINDS: dict[str, Kind] = {"pageview": "page", "login": "identify"}
_PARAMETERS = ("data", "callback", "ts")
_IDENTIFYING = frozenset({"type", "userId", "sessionId", "email", "_vtsid", "generic"})


class _Asked(msgspec.Struct, frozen=True):
    """The parameters of a request: the items of `data`, or why there are none."""

    items: list[Any]
    callback: str
    reason: str = ""
    words: str = ""
    detail: str = ""


def precheck(request: Request) -> Answer | None:
    """Nothing is due before the account is looked up."""
    return None


def tenant(request: Request) -> str:
    """The account id of the path, exactly as it was sent."""
    return request.params.get("account", "")


def answer(request: Request, rules: Rules) -> Answer:
    """How many events were received; 400 when there is no list of events at all."""
    asked = _asked(request)
    if asked.reason:
        return _refusal(400, asked.words, asked.callback, events=1, keep=True)
    count = len(asked.items)
    body = b'{"status":"ok","received":%d}' % count
    if asked.callback and _is_callback(asked.callback):
        return Answer(
            status=200,
            body=b"/**/%s(%s);" % (asked.callback.encode(), body),
            content_type=_JAVASCRIPT,
            events=count,
        )
    return Answer(status=200, body=body, content_type=_JSON, events=count)


def decode(request: Request, rules: Rules) -> Decoded:
    """Every item of the list as an event, or as a rejection of its own."""
    asked = _asked(request)
    scope = tenant(request)
    if asked.reason:
        return Decoded(
            rejected=[
                Rejection(
                    index=0, reason=asked.reason, detail=asked.detail or asked.words, scope=scope
                )
            ]
        )
    decoded = Decoded()
    around = _Around(request)
    for index, item in enumerate(asked.items):
        refused = _refused_item(item, around)
        if refused:
            reason, detail = refused
            piece = msgspec.json.encode(item).decode()
            decoded.rejected.append(
                Rejection(index=index, reason=reason, detail=detail, scope=scope, piece=piece)
            )
        else:
            decoded.events.append(_event(index, item, around))
    return decoded


def error(status: int, message: str, request: Request | None) -> Answer:
    """``{"status":"error","error":message}``; as JSONP with 200 where a script tag asked."""
    callback = "" if request is None else first(as_characters(request.query), "callback") or ""
    words = message or _PHRASES.get(status, "error")
    return _refusal(status, words, callback, events=0, keep=False)


# --- the answer --------------------------------------------------------------------------------


def _refusal(status: int, words: str, callback: str, *, events: int, keep: bool) -> Answer:
    body = msgspec.json.encode({"status": "error", "error": words})
    content_type = _JSON
    if status in _JSONP_INSTEAD and _is_callback(callback):
        status, body, content_type = 200, _jsonp(callback, body), _JAVASCRIPT
    return Answer(
        status=status,
        body=body,
        content_type=content_type,
        events=events,
        keep=keep,
        refused=True,
    )


def _is_callback(callback: str) -> bool:
    return len(callback) <= _CALLBACK_CHARACTERS_MAX and _CALLBACK(callback) is not None


def _jsonp(callback: str, body: bytes) -> bytes:
    """``/**/`` keeps the callback off the first bytes; the three escapes are what JSON allows and
    a script does not: two line ends of JavaScript's own, and the end of an inline script."""
    body = body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return b"/**/%s(%s);" % (callback.encode(), body.replace(b"</", b"<\\/"))


# --- the parameters ----------------------------------------------------------------------------


def _asked(request: Request) -> _Asked:
    query = as_characters(request.query)
    data: Any = first(query, "data")
    callback = first(query, "callback")
    if request.method == "POST" and request.body:
        if _holds_json(request):
            try:
                body = _json_parameters(request.body)
            except BadJson as bad:
                return _Asked([], callback or "", "bad_json", "body is not valid JSON", str(bad))
            if body is None:
                words = "body must be a JSON object or list"
                return _Asked([], callback or "", "bad_body", words)
            data = body.get("data") if data is None else data
            given = body.get("callback")
            callback = given if callback is None and isinstance(given, str) else callback
        else:
            form = as_characters(request.body.decode("latin-1"))
            data = first(form, "data") if data is None else data
            callback = first(form, "callback") if callback is None else callback
    return _items(data, callback or "")


def _items(data: Any, callback: str) -> _Asked:
    if data is None:
        return _Asked([], callback, "missing_field", "missing parameter: data")
    if isinstance(data, str):
        try:
            data = parse_json(data.encode())
        except BadJson as bad:
            return _Asked([], callback, "bad_json", "data is not valid JSON", str(bad))
    if type(data) is list:
        return _Asked(data, callback)
    if type(data) is dict:
        return _Asked([data], callback)
    return _Asked([], callback, "bad_body", "data must be a list of events")


def _holds_json(request: Request) -> bool:
    """By its first byte, since any content type is taken on JSON; a form's is a letter."""
    if request.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return True
    return "json" in request.headers.get("content-type", "").lower()


def _json_parameters(body: bytes) -> dict[str, Any] | None:
    """The parameters in a JSON body; a list is the data itself. None for anything else."""
    value = parse_json(body)
    if type(value) is list:
        return {"data": value}
    return value if type(value) is dict else None


def _extra_parameters(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """What else was sent: the vendor's own words (callback, ts), and what no page names."""
    sent: list[tuple[str, Any]] = list(pairs(as_characters(request.query)))
    if request.method == "POST" and request.body:
        if _holds_json(request):
            sent += (_json_parameters(request.body) or {}).items()
        else:
            sent += pairs(as_characters(request.body.decode("latin-1")))
    raw: dict[str, Any] = {}
    extra: dict[str, list[Any]] = {}
    seen = set()
    for name, value in sent:
        if name in _PARAMETERS and name not in seen:
            seen.add(name)
            if name != "data":
                raw[name] = value
        else:
            extra.setdefault(name, []).append(value)
    return raw, {name: found[0] if len(found) == 1 else found for name, found in extra.items()}


# --- one event ---------------------------------------------------------------------------------


class _Around:
    """What all items of a request share."""

    def __init__(self, request: Request) -> None:
        self.scope = tenant(request)
        self.path_type = request.params.get("type", "").strip()
        self.context = browser_context(request.headers)
        self.raw, extra = _extra_parameters(request)
        if extra:
            self.context["extra"] = extra
        self.cookie = _cookie(header_text(request.headers.get("cookie", "")))
        self.issues: list[Issue] = []
        if not is_utf8(as_characters(request.query)):
            self.issues.append(Issue("bad_utf8", "query", "replaced by U+FFFD"))


def _cookie(header: str) -> str:
    """The value of the pixel's cookie, "" when there is none."""
    for pair in header.split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == "_vt_user":
            return value.strip(' "')
    return ""


def _refused_item(item: Any, around: _Around) -> tuple[str, str] | None:
    if type(item) is not dict:
        return "bad_body", "event is not an object"
    if not around.path_type and not _type_of(item):
        return "missing_name", "neither the path nor the event has a type"
    return None


def _type_of(item: dict[str, Any]) -> str:
    value = item.get("type")
    return value.strip() if isinstance(value, str) else ""


def _event(index: int, item: dict[str, Any], around: _Around) -> Event:
    raw: dict[str, Any] = dict(around.raw)
    issues = list(around.issues)
    name = _name(item, around, raw, issues)
    event = Event(
        index=index,
        kind=_KINDS.get(name.lower(), "track"),
        name=name,
        scope=around.scope,
        context=dict(around.context),
        raw=raw,
        issues=issues,
    )
    event.properties = _properties(item, event)
    _identify(item, event, around)
    return event


def _name(item: dict[str, Any], around: _Around, raw: dict[str, Any], issues: list[Issue]) -> str:
    """The event's own type, else the path's."""
    own = _type_of(item)
    if item.get("type") is not None:
        raw["type"] = item["type"]
        if not isinstance(item["type"], str):
            issues.append(Issue("bad_type", "type", "expected text"))
    if around.path_type:
        raw["path_type"] = around.path_type
        if own and own != around.path_type:
            issues.append(Issue("type_mismatch", "type", f"the path says {around.path_type[:64]}"))
    return own or around.path_type


def _properties(item: dict[str, Any], event: Event) -> dict[str, Any]:
    """`generic` and the free keys beside it as one; where both have a name, the event's own key
    counts and the other is kept raw."""
    free = {key: value for key, value in item.items() if key not in _IDENTIFYING}
    if not isinstance(free.get("items", []), list):
        event.issues.append(Issue("bad_type", "items", "expected a list"))
    generic = item.get("generic")
    if not generic and isinstance(generic, list | None):
        return free  # [] is PHP's empty array
    if not isinstance(generic, dict):
        event.issues.append(Issue("bad_type", "generic", "expected an object"))
        return {**free, "generic": generic}
    clashing = {key: value for key, value in generic.items() if key in free and value != free[key]}
    if clashing:
        event.raw["generic"] = clashing
        event.issues += [Issue("name_conflict", f"generic.{key}"[:64]) for key in clashing]
    return {**generic, **free}


def _identify(item: dict[str, Any], event: Event, around: _Around) -> None:
    scope = around.scope
    user = _id(item, "userId", event)
    session = _id(item, "sessionId", event)
    vtsid = _id(item, "_vtsid", event)
    email = _email(item.get("email"), "email", event)
    if not (_usable(user) or _usable(vtsid) or email) and around.cookie:
        event.raw["cookie"] = around.cookie
        cookie_user, cookie_session = _from_cookie(around.cookie, event)
        if not _usable(user):
            user = cookie_user or user
        if not _usable(session):
            session = cookie_session or session
    if _usable(user) and not _usable(session):
        event.issues.append(Issue("unpaired", "userId", "without sessionId"))
    elif _usable(session) and not _usable(user):
        event.issues.append(Issue("unpaired", "sessionId", "without userId"))
    if _usable(session):
        event.session = session
    found: list[Identity] = []
    if user is not None:
        found.append(identity("vibetrace:user", scope, user, "weak"))
    if session is not None:
        found.append(identity("vibetrace:session", scope, session, "correlation"))
    if vtsid is not None:
        found.append(identity("vibetrace:vtsid", scope, vtsid, "correlation"))
    if email:
        found.append(identity("email", "", email, "strong"))
    generic = item.get("generic")
    if isinstance(generic, dict):
        contact = _address(generic.get("email"))
        if contact and contact != email:
            found.append(identity("email", "", contact, "lookup"))
    event.identities = found


def _usable(value: str | None) -> bool:
    return value is not None and not is_denied(value)


def _id(item: dict[str, Any], key: str, event: Event) -> str | None:
    value = item.get(key)
    if value is None:
        return None
    text = identifier(value)
    if text is None:
        event.raw[key] = value
        event.issues.append(Issue("bad_type", key, "expected text or a number"))
    return text


def _email(value: Any, key: str, event: Event) -> str:
    address = _address(value)
    if value is not None and value != address:
        event.raw[key] = value
        if not address and value != "":
            event.issues.append(Issue("bad_email", key))
    return address


def _address(value: Any) -> str:
    """An address in its one form: trimmed, lower case, NFC. Empty for what has no "@"."""
    if not isinstance(value, str) or "@" not in value:
        return ""
    return unicodedata.normalize("NFC", (identifier(value) or "").lower())


def _from_cookie(cookie: str, event: Event) -> tuple[str | None, str | None]:
    """userId and sessionId of ``8139618027113397_253412802711339765_false_false``."""
    user, _, rest = cookie.partition("_")
    session = rest.partition("_")[0]
    if not user or not session:
        event.issues.append(Issue("bad_cookie", "_vt_user"))
    return identifier(user) or None, identifier(session) or None
