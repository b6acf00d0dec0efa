"""F2: the same event said in every dialect, and in every way that one dialect has, is one event.

Promised equal: the name where a dialect lets a client choose it, properties and their types, the
user's identifier, the client's time; and between the ways of one dialect everything, the dedupe key
and so the event's id included.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis.strategies as st
from hypothesis import given, settings

from headwater.accept.request import Request, Rules
from headwater.accept.routes import Router
from headwater.decode.dialects import DIALECTS
from headwater.event import Event
from tests.trust.serving import FULL

RECEIVED_AT = 1_795_226_263_000_000
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
_router = Router(DIALECTS)

names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
users = st.from_regex(r"[A-Za-z0-9@.é☃-]{3,30}", fullmatch=True).map(lambda text: f"user {text}")
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co")), max_size=40)
numbers = st.integers(-(2**53), 2**53) | st.floats(-1e12, 1e12, allow_nan=False).map(
    lambda number: round(number, 6)
)
properties = st.dictionaries(
    st.from_regex(r"key_[a-z]{1,6}", fullmatch=True),
    texts | numbers | st.booleans(),
    max_size=5,
)
common = settings(max_examples=2_000 if FULL else 60, deadline=None, derandomize=not FULL)


def said(
    method: str, target: str, body: bytes = b"", kind: str = "", socket: bool = False
) -> Event:
    """The one event of a request, which its dialect accepts."""
    match = _router.match(target.partition("?")[0])
    assert match is not None
    headers = {"x-vaix-client-id": "g1", **({"content-type": kind} if kind else {})}
    request = Request(
        dialect=match.dialect.NAME,
        method=method,
        target=target,
        endpoint=match.endpoint,
        params=dict(match.params),
        headers=headers,
        body=body,
        transport="websocket" if socket else "http",
        account="acme",
        received_at=RECEIVED_AT,
        request_id=bytes(16),
    )
    answer = match.dialect.answer(request, Rules())
    if answer.identify is not None:
        request.state = "0" * 16
        answer = match.dialect.answer(request, Rules())
    decoded = match.dialect.decode(request, Rules())
    assert answer.status < 300
    assert answer.events == decoded.received == 1
    (event,) = decoded.events
    return event


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def vaix(name: str, user: str, data: dict[str, Any]) -> Event:
    event = {"user_id": user, "event_type": f"object:{name}", "data": data}
    return said("POST", "/api/tracker/events", as_json(event))


def orbee(name: str, user: str, data: dict[str, Any]) -> Event:
    event = {"action": "object", "object": name, "vendor": "v", "product": "p", "duid": user}
    return said("POST", "/collect/1/1/event", as_json({**event, "instance_id": "i", **data}))


def nucleus(name: str, user: str, data: dict[str, Any], *, socket: bool = False) -> Event:
    event = {"type": "event", "name": name, "id": 1, "date": RECEIVED_AT // 1000, "userId": user}
    whole = {"data": [{**event, "deviceId": "d", "sessionId": 1, "payload": data}]}
    return said("GET" if socket else "POST", "/app/a1/track", as_json(whole), socket=socket)


def vibetrace(name: str, user: str, data: dict[str, Any], way: str = "query") -> Event:
    items = [{"type": name, "userId": user, "sessionId": "2", **data}]
    text = as_json(items).decode()
    path = f"/event/ACCT123/{name}"
    if way == "query":
        return said("GET", f"{path}?data={quote(text, safe='')}")
    if way == "raw":
        return said("GET", f"{path}?data={quote(text, safe='{}[]:,')}")
    if way == "form":
        kind = "application/x-www-form-urlencoded"
        return said("POST", path, urlencode({"data": text}).encode(), kind)
    return said("POST", path, as_json({"data": items}), "application/json")


def gamooga(name: str, user: str, data: dict[str, Any], way: str = "query") -> Event:
    head = [("c", COMPANY), ("u", user), ("e", name)]
    if way == "json":
        return said("POST", f"/evwidj/?{urlencode(head)}", as_json(data), "application/json")
    for key, value in data.items():
        kind = "b" if isinstance(value, bool) else "s" if isinstance(value, str) else "n"
        written = json.dumps(value) if kind != "s" else value
        head += [("ky", key), ("vl", written), ("tp", kind)]
    return said("GET", f"/evwid/?{urlencode(head)}")


def values(event: Event) -> set[str]:
    return {identity.value for identity in event.identities}


def own(event: Event, data: dict[str, Any]) -> dict[str, Any]:
    """The properties that the client gave; Orbee keeps its whole body as properties."""
    return {key: value for key, value in event.properties.items() if key in data or "key_" in key}


@common
@given(names, users, properties)
def test_an_event_is_the_same_in_every_dialect(name: str, user: str, data: dict[str, Any]) -> None:
    for say in (vaix, orbee, nucleus, vibetrace, gamooga):
        event = say(name, user, data)
        assert event.name.removeprefix("object:") == name, say.__name__
        assert user in values(event), say.__name__
        found = own(event, data)
        assert found == data, say.__name__
        kinds = {key: type(value) is bool for key, value in found.items()}
        assert kinds == {key: type(value) is bool for key, value in data.items()}, say.__name__


@common
@given(names, users, properties)
def test_every_way_of_a_dialect_says_the_same(name: str, user: str, data: dict[str, Any]) -> None:
    first = nucleus(name, user, data)
    assert first.dedupe is not None
    assert nucleus(name, user, data, socket=True) == first
    again = nucleus(name, user, dict(reversed(data.items())))
    assert again.dedupe == first.dedupe, "the order of keys is none of it"
    plain = vibetrace(name, user, data)
    for way in ("raw", "form", "json"):
        assert vibetrace(name, user, data, way) == plain, way
    triples, whole = gamooga(name, user, data), gamooga(name, user, data, "json")
    assert triples.properties == whole.properties
    assert triples.identities == whole.identities


@common
@given(
    names,
    users,
    st.integers(RECEIVED_AT // 1000 - 86_400_000, RECEIVED_AT // 1000 + 80_000_000),
)
def test_a_time_is_the_same_in_every_dialect_that_has_one(name: str, user: str, at: int) -> None:
    event = {"type": "event", "name": name, "date": at, "sessionId": 1, "deviceId": "d"}
    one = said("POST", "/app/a1/track", as_json({"data": [event]}))
    body = {"action": "a", "object": name, "vendor": "v", "product": "p", "instance_id": "i"}
    two = said("POST", "/collect/1/1/event", as_json({**body, "dtm": at}))
    assert one.occurred_at == two.occurred_at == at * 1_000
