"""Nucleus: what cases cannot say - answer and decode agree on any bytes, real queues come through,
copies are known as copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import headwater
from headwater import limits
from headwater.accept.request import Answer, Request, Rules, Transport
from headwater.decode import nucleus, nucleus_message
from headwater.event import Decoded, Event

APP = "6387f260fae4a13be78fc664"
RECEIVED_AT = 1_795_226_263_000_000
RECORDED = Path(headwater.__file__).with_name("demo_traffic")
BASE: dict[str, Any] = {
    "type": "event",
    "name": "A",
    "id": 1,
    "date": 1_795_226_263_549,
    "sessionId": 4821,
    "deviceId": "d41d8c",
}


def request(body: bytes, *, transport: Transport = "websocket", app: str = APP) -> Request:
    return Request(
        dialect="nucleus",
        method="GET" if transport == "websocket" else "POST",
        target=f"/app/{app}/track",
        endpoint="track",
        params={"app": app},
        body=body,
        transport=transport,
        received_at=RECEIVED_AT,
    )


def sent(*events: Any) -> Request:
    return request(msgspec.json.encode({"data": events}))


def only(*events: Any) -> Event:
    (event,) = nucleus.decode(sent(*events), Rules()).events
    return event


def judged(body: bytes, transport: Transport = "websocket") -> tuple[Answer, Decoded]:
    """Answer and decode of some bytes, after everything that must hold for any bytes."""
    asked = request(body, transport=transport)
    answer = nucleus.answer(asked, Rules())
    decoded = nucleus.decode(asked, Rules())
    assert answer.keep
    assert answer.events == decoded.received
    nothing_stored = not decoded.events and not decoded.heartbeats
    assert answer.refused == (nothing_stored and decoded.received > 0)
    told = json.loads(answer.body, parse_int=str)  # an id may have any number of digits
    if transport == "websocket":
        assert set(told) <= {"reportedIds", "confirmation"}
        assert isinstance(told["reportedIds"], list)
    msgspec.json.encode(decoded).decode()  # storable as JSON in UTF-8
    places = [event.index for event in decoded.events] + [one.index for one in decoded.rejected]
    assert len(set(places)) == len(places)
    return answer, decoded


# --- any bytes ---------------------------------------------------------------------------------

_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["init", "event", "error", "error:X", "props", "heartbeat", "nucleus:beacon"]),
    st.sampled_from(["null", "0", "a" * 200, "2026-11-21T01:57:44.019Z", "1e3", "12", "\u0663"]),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXTS,
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    [*sorted(nucleus._READ), "data", "client", "appType", "confirmation", "referrer"]
)
_ITEMS = st.builds(
    lambda given, fields: {**given, **fields},
    st.sampled_from([{}, {"name": "A", "id": 1}, {"type": "userid"}]),
    st.dictionaries(st.one_of(_KEYS, _KEYS, _TEXTS), _VALUES, max_size=7),
)
_MESSAGES = st.one_of(
    st.lists(st.one_of(_ITEMS, _ITEMS, _VALUES), max_size=4),
    st.fixed_dictionaries(
        {"data": st.one_of(st.lists(st.one_of(_ITEMS, _VALUES), max_size=4), _ITEMS, _VALUES)},
        optional={"confirmation": _VALUES},
    ),
)
#: What valid JSON is spoilt, or merely strained, with.
_SPLINTERS = st.sampled_from(
    [
        b"1e400",
        b"9" * 4_400,
        rb'"\ud83d"',
        rb'"\\ud83d\ud83d\ude00"',
        rb'"\uD800\u0041"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"a\nb"',
        b'"\x00"',
        b"[" * 450 + b"]" * 450,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"[" * 500,
        b"NaN",
        b'"',
        b"\\",
        b"{",
        b"]",
        b",",
        b"\xef\xbb\xbf",
        b'{"id":7,"name":"A","id":8}',
    ]
)


@st.composite
def _spoilt(draw: st.DrawFn) -> bytes:
    text = json.dumps(draw(_MESSAGES), ensure_ascii=draw(st.booleans()))
    body = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 4)))
        body = body[:start] + draw(_SPLINTERS) + body[end:]
    return body


@st.composite
def _strained(draw: st.DrawFn) -> bytes:
    """Valid JSON in which some scalars are what a parser may refuse."""
    body = msgspec.json.encode(draw(_MESSAGES))
    for place in ("null", "true", "false", '""'):
        body = body.replace(place.encode(), draw(st.sampled_from([place.encode(), b"1e400"])))
        body = body.replace(b"false", draw(_SPLINTERS))
    return body


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(_spoilt(), _strained(), st.binary(max_size=60)),
    st.sampled_from(["http", "websocket"]),
)
@example(b"", "http")
@example(b'{"data":[{"id":1,"type":1e400}]}', "websocket")
@example(b'{"data":[{"id":1e400,"name":"A"}],"confirmation":1e400}', "websocket")
@example(b'{"data":[],"data":7}', "websocket")
@example(b'{"data":7,"data":[{"name":"A"}]}', "websocket")
def test_answer_and_decode_agree_on_any_bytes(body: bytes, transport: Transport) -> None:
    judged(body, transport)


def test_agreement_does_not_depend_on_the_depth_of_the_callers_stack() -> None:
    depths = [*range(380, 420), 600, 900, 950, 985, 1_000, 5_000]
    bodies = [b'{"data":[{"name":"A","payload":' + b"[" * n + b"]" * n + b"}]}" for n in depths]

    def below(frames: int) -> list[int]:
        if frames:
            return below(frames - 1)
        return [nucleus.decode(request(body), Rules()).received for body in bodies]

    counted = [nucleus.answer(request(body), Rules()).events for body in bodies]
    assert counted == below(300) == [1] * len(bodies)


def test_depth_is_not_hidden_by_brackets_in_strings() -> None:
    inner = b'"]]]]",' * 300
    deep = b"".join(b'["]\\"",' for _ in range(600)) + b"0" + b"]" * 600
    for payload in (deep, b"[" + inner + deep + b"]"):
        _, decoded = judged(b'{"data":[{"id":1,"name":"A","payload":' + payload + b"}]}")
        (event,) = decoded.events
        (text,) = event.properties["payload"]
        assert text == payload.decode()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'["' * 500_000,
        b"[" * 500 + b'"' + b'\\"' * 100_000,
        b'{"data":[' + b"{}," * 300_000 + b"{}]}",
        b"[" + b"1," * 1_500_000 + b"1]",
        b'{"data":["' + rb"\ud800" * 200_000 + b'"]}',
    ],
    ids=["open brackets", "open strings", "an open string", "empty events", "numbers", "halves"],
)
def test_hostile_megabytes_count_as_one(body: bytes) -> None:
    answer, decoded = judged(body)
    assert answer.refused
    assert len(decoded.rejected) == 1


def test_a_message_takes_as_many_events_as_its_bound_and_no_more() -> None:
    most = nucleus_message.ITEMS_MAX
    answer = nucleus.answer(request(b"[" + b'{"name":1},' * (most - 1) + b'{"id":1}]'), Rules())
    assert (answer.events, answer.refused) == (most, False)
    answer, decoded = judged(b"[" + b"{}," * most + b"{}]")
    assert answer.refused
    assert decoded.rejected[0].reason == "bad_body"


# --- real clients ------------------------------------------------------------------------------


def recordings() -> list[Path]:
    return [
        path
        for path in sorted(RECORDED.glob("nucleus-*.json"))
        if msgspec.json.decode(path.read_bytes())["transport"] == "websocket"
    ]


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_recorded_clients_lose_nothing_and_have_every_id_reported(path: Path) -> None:
    messages = msgspec.json.decode(path.read_bytes())["messages"]
    assert messages
    for message in messages:
        answer, decoded = judged(message.encode())
        events = json.loads(message)["data"]
        assert decoded.rejected == []
        assert decoded.received == len(events)
        assert [
            issue
            for event in decoded.events
            for issue in event.issues
            if issue.code != "tz_assumed"
        ] == []
        ids = [event["id"] for event in events if "id" in event]
        assert json.loads(answer.body) == {"reportedIds": ids}
        for event in decoded.events:
            _has_every_leaf(event, events[event.index])


def test_there_is_a_recording_of_each_generation() -> None:
    assert len(recordings()) >= 5


def _has_every_leaf(event: Event, item: dict[str, Any]) -> None:
    """Nothing that a client sent is lost: each value is found again in the event."""
    found = [json.dumps(one) for one in _leaves(msgspec.to_builtins(event))]
    for key, value in item.items():
        if value is None or key == "appId":
            continue
        for leaf in _leaves(value):
            assert json.dumps(leaf) in found or json.dumps(str(leaf)) in found, (key, leaf)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        pairs = [_leaves(one) if one is not None else [key] for key, one in value.items()]
        return [leaf for leaves in pairs for leaf in leaves]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


# --- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"userId": "u1"},
        {"anonId": "a1", "userId": "u2"},
        {"client": "js", "moduleVersion": "2"},
        {"sessionId": "4821"},
        {"appId": "app1"},
    ],
    ids=str,
)
def test_a_copy_is_known_whatever_was_stamped_at_sending(change: dict[str, Any]) -> None:
    assert only(BASE).dedupe == only({**BASE, **change}).dedupe


def test_a_copy_is_known_with_its_payload_in_another_order() -> None:
    one = only({**BASE, "payload": {"a": {"x": 1, "y": 2}, "b": 3}})
    other = only({**BASE, "payload": {"b": 3, "a": {"y": 2, "x": 1}}})
    assert one.dedupe == other.dedupe


@pytest.mark.parametrize(
    "change",
    [
        {"id": 2},
        {"id": "1"},
        {"name": "B"},
        {"type": "nucleus:view"},
        {"date": 1_795_226_263_550},
        {"sessionId": 4822},
        {"deviceId": "d41d8d"},
        {"payload": {"a": 1}},
    ],
    ids=str,
)
def test_another_event_is_no_copy(change: dict[str, Any]) -> None:
    assert only(BASE).dedupe != only({**BASE, **change}).dedupe


def test_neighbouring_fields_do_not_run_into_each_other() -> None:
    one = only({**BASE, "sessionId": "1", "deviceId": "23"})
    other = only({**BASE, "sessionId": "12", "deviceId": "3"})
    assert one.dedupe != other.dedupe


def test_the_same_event_of_two_apps_is_two() -> None:
    body = msgspec.json.encode([BASE])
    one, other = (nucleus.decode(request(body, app=app), Rules()).events[0] for app in ("x", "y"))
    assert one.dedupe != other.dedupe


def test_a_key_is_sixteen_bytes_and_absent_without_id_and_date() -> None:
    assert len(only(BASE).dedupe or b"") == 16
    without_id = {key: value for key, value in BASE.items() if key != "id"}
    assert only(without_id).dedupe is not None
    del without_id["date"]
    assert only(without_id).dedupe is None


# --- who ---------------------------------------------------------------------------------------


def test_each_event_of_a_message_has_its_own_identities() -> None:
    events = nucleus.decode(
        sent(
            {**BASE, "sessionId": 1},
            {**BASE, "sessionId": True},
            {**BASE, "sessionId": 1, "userId": "u1"},
            {**BASE, "sessionId": 1, "userId": "u1"},
            {**BASE, "sessionId": 1},
        ),
        Rules(),
    ).events
    assert [event.session for event in events] == ["1", None, "1", "1", "1"]
    assert [len(event.identities) for event in events] == [1, 1, 2, 2, 1]
    events[2].identities.clear()
    assert len(events[3].identities) == 2


def test_an_init_without_referrer_value_leaves_no_trace_of_it() -> None:
    event = only({**BASE, "type": "init", "payload": {"referrer": None, "plan": "pro"}})
    assert (event.profile_set, event.profile_unset) == ({"plan": "pro"}, [])
    assert "referrer" not in event.context


def test_the_page_that_a_message_came_from_is_context_of_each_event() -> None:
    asked = sent({**BASE, "locale": "de"}, BASE)
    asked.headers = {"user-agent": "UA", "origin": "https://a.example", "accept-language": "en"}
    one, other = nucleus.decode(asked, Rules()).events
    assert one.context == {"user_agent": "UA", "origin": "https://a.example", "locale": "de"}
    assert other.context["locale"] == "en"


# --- the route ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "key"),
    [(APP, APP), ("a-b_C9", "a-b_C9"), ("a" * 128, "a" * 128)]
    + [(bad, "") for bad in ("", "a" * 129, "a.b", "a b", "ä", "a\n", "%41")],
)
def test_an_app_is_named_by_plain_letters(app: str, key: str) -> None:
    assert nucleus.tenant(request(b"", app=app)) == key


def test_only_a_plain_get_is_sent_away() -> None:
    plain = request(b"", transport="http")
    assert nucleus.precheck(plain) is None
    assert nucleus.precheck(request(b"")) is None
    plain.method = "GET"
    answer = nucleus.precheck(plain)
    assert answer is not None
    assert (answer.status, answer.keep, answer.headers) == (426, False, (("upgrade", "websocket"),))


@pytest.mark.parametrize("status", [400, 404, 408, 413, 415, 429, 500, 503])
def test_errors_have_the_shape_that_clients_read(status: int) -> None:
    answer = nucleus.error(status, "why", None)
    assert (answer.status, answer.body) == (status, b'{"error":"why"}')
    assert (answer.keep, answer.refused) == (False, True)


@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_message_never_gets_a_frame_without_reported_ids(status: int) -> None:
    assert nucleus.error(status, "why", request(b"")).body == b'{"reportedIds":[]}'


@pytest.mark.parametrize("status", [404, 429])
def test_a_handshake_is_refused_in_words(status: int) -> None:
    assert nucleus.error(status, "why", request(b"")).body == b'{"error":"why"}'


def test_bounds_stand_in_limits() -> None:
    assert nucleus.BOUNDS.body_bytes_max == limits.nucleus_body_bytes_max


# --- signs of life -------------------------------------------------------------------------------


def close(body: bytes) -> Decoded:
    ended = msgspec.structs.replace(request(body), endpoint="close")
    decoded = nucleus.decode(ended, Rules())
    assert decoded.received == 0
    return decoded


def test_a_heartbeat_is_a_sign_of_its_session_and_no_event() -> None:
    beat = {"type": "heartbeat", "sessionId": 7, "deviceId": "d", "date": 1_795_226_263_549}
    decoded = nucleus.decode(sent(beat, {"event": "nucleus:heartbeat"}, BASE), Rules())
    assert (decoded.heartbeats, len(decoded.events), decoded.received) == (2, 1, 3)
    (sign,) = decoded.signs
    assert (sign.session, sign.scope, sign.closed) == ("7", APP, False)
    assert sign.occurred_at == 1_795_226_263_549_000
    assert [(one.namespace, one.value) for one in sign.identities] == [("nucleus:device", "d")]


@pytest.mark.parametrize(
    ("code", "clean"),
    [(1000, True), (1001, True), (1005, True), (1006, False), (1002, False), (4001, False)],
)
def test_only_a_clean_close_ends_a_session(code: int, clean: bool) -> None:
    body = b'{"code":%d,"silent_ms":0,"data":[{"sessionId":7,"machineId":"m"},{"sessionId":8}]}'
    decoded = close(body % code)
    assert [(one.session, one.closed, one.occurred_at) for one in decoded.signs] == [
        ("7", clean, None),
        ("8", clean, None),
    ]


def test_a_lost_connection_was_alive_until_it_fell_silent() -> None:
    (sign,) = close(b'{"code":1006,"silent_ms":1500,"data":[{"sessionId":7}]}').signs
    assert sign.occurred_at == RECEIVED_AT - 1_500_000


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data":[1]}', b'{"data":[{}]}', b"\xff"])
def test_a_record_that_is_none_says_nothing(body: bytes) -> None:
    assert close(body).signs == []


WHO: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(
            st.sampled_from([1, "1", " 1 ", "null", None, True, 1.5, [], ""]), st.text(max_size=5)
        )
        for name in ("userId", "anonId", "deviceId", "machineId", "sessionId")
    },
)


@given(st.lists(WHO, max_size=6), st.sampled_from(["", " "]))
def test_what_a_message_carries_is_what_its_events_say(
    said: list[dict[str, Any]], space: str
) -> None:
    body = json.dumps(
        {"data": [{"name": "E", **one} for one in said]}, separators=(",", ":" + space)
    )
    carried = nucleus.carried(body.encode())
    decoded = nucleus.decode(request(body.encode()), Rules())

    def owner(one: Any) -> tuple[str, str] | None:
        for namespace in ("nucleus:device", "nucleus:anon", "nucleus:user"):
            for key in one.identities:
                if key.namespace == namespace and not key.denied:
                    return namespace, key.value
        return None

    sessions = {(owner(one), one.session) for one in decoded.events if one.session and owner(one)}
    again = close(b'{"code":1000,"data":[%b]}' % b",".join(carried.sessions.values())).signs
    assert {(owner(one), one.session) for one in again} == sessions
    assert len(carried.sessions) == len(sessions)
    if carried.mark:
        assert carried.mark in body.encode()
        assert len(sessions) == 1


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_whatever_the_bytes_what_they_carry_is_told(body: bytes) -> None:
    nucleus.carried(body)
    close(body)


def test_a_very_long_number_is_no_session() -> None:
    body = b'{"data":[{"sessionId":%b,"deviceId":"d"}]}' % (b"9" * 5_000)
    assert nucleus.carried(body) == ({}, b"")
