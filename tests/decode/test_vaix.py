"""VAIX: what cases cannot say - agreement of answer and decode, order of checks, error bodies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.accept.request import Request, Rules
from headwater.decode import vaix

PERMISSIVE = Rules()
EVENT = b'{"user_id":"123","event_type":"clicks:event","data":{"page":"/","location":"a:b"}}'


def request(body: bytes = EVENT, **headers: str) -> Request:
    """A request of group g1; header names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        dialect="vaix",
        method="POST",
        target="/api/tracker/events",
        headers={"x-vaix-client-id": "g1", **named},
        body=body,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
EVENT_TYPES = st.sampled_from(["clicks:event", "impressions:x", "bogus", "", "Clicks:event"])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "event_type": EVENT_TYPES | JSON,
        "user_id": st.text() | st.integers() | JSON,
        "data": st.dictionaries(st.sampled_from(["page", "location", "brand", "channel"]), JSON)
        | JSON,
        "other": JSON,
    },
)
RULES = st.builds(
    Rules,
    event_types=st.none() | st.just(frozenset({"clicks:event", "impressions:*"})),
    groups=st.none() | st.sets(st.sampled_from(["g1", "g2"])).map(frozenset),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["x-vaix-client-id", "early-data", "origin", "referer", "user-agent", "accept-language"]
    ),
    st.text(st.characters(max_codepoint=255)),
)


def judge(body: bytes, headers: dict[str, str], rules: Rules) -> None:
    """Assert that answer and decode say the same of one request."""
    asked = Request(
        dialect="vaix", method="POST", target="/api/tracker/events", headers=headers, body=body
    )
    answer = vaix.answer(asked, rules)
    decoded = vaix.decode(asked, rules)
    assert answer.keep
    assert answer.events == decoded.received == 1
    assert answer.refused == (answer.status != 204) == (decoded.events == [])
    assert answer.status in {204, 400, 403, 422, 425}
    msgspec.json.encode(decoded)
    if not answer.refused:
        asked.refused = False
        assert vaix.decode(asked, PERMISSIVE) == decoded


@given(st.binary(), HEADERS, RULES)
def test_answer_and_decode_agree_on_any_bytes(
    body: bytes, headers: dict[str, str], rules: Rules
) -> None:
    judge(body, headers, rules)


@given(BODIES | JSON, HEADERS, RULES)
@settings(max_examples=300)
def test_answer_and_decode_agree_on_any_json(
    body: Any, headers: dict[str, str], rules: Rules
) -> None:
    judge(msgspec.json.encode(body), {"x-vaix-client-id": "g1", **headers}, rules)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_no_float_and_no_boolean_is_a_user_id(user_id: float | bool) -> None:
    body = msgspec.json.encode({"event_type": "clicks:event", "user_id": user_id})
    assert vaix.answer(request(body), PERMISSIVE).status == 422


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_an_integer_user_id_keeps_every_digit(user_id: int) -> None:
    body = b'{"event_type":"clicks:event","user_id":%d}' % user_id
    (event,) = vaix.decode(request(body), PERMISSIVE).events
    (who,) = event.identities
    assert who.value == str(user_id)
    assert who.denied == (user_id in (0, -1))


def test_success_is_one_shared_answer_without_body() -> None:
    answer = vaix.answer(request(), PERMISSIVE)
    assert answer is vaix.answer(request(), PERMISSIVE)
    assert (answer.body, answer.content_type) == (b"", "")


@pytest.mark.parametrize("value", ["1", "0", "", "1, 1", "yes"])
def test_an_early_data_header_means_early_data_whatever_it_says(value: str) -> None:
    assert vaix.answer(request(early_data=value), PERMISSIVE).status == 425


def test_what_is_wrong_first_in_the_vendors_order_is_answered() -> None:
    rules = Rules(groups=frozenset({"g2"}), event_types=frozenset())
    asked = request(b"{", early_data="1", x_vaix_client_id="")
    statuses = [vaix.answer(asked, rules).status]
    for name, value in (("x-vaix-client-id", "g1"), ("x-vaix-client-id", "g2"), ("early-data", "")):
        asked.headers[name] = value
        if not value:
            del asked.headers[name]
        statuses.append(vaix.answer(asked, rules).status)
    asked.body = EVENT
    statuses.append(vaix.answer(asked, rules).status)
    assert statuses == [400, 403, 425, 400, 422]


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/*",
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/html, application/xml;q=0.9, */*;q=0.8",
        "text/html;q=0, application/json;q=0.001",
        "*; q=.2",
        "",
        "whatever",
    ],
)
def test_an_accept_header_with_room_for_json_is_fine(accept: str) -> None:
    assert vaix.precheck(request(accept=accept)) is None


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml",
        "application/json;q=0",
        "*/*, application/*;q=0.0",
        "application/vnd.api+json, text/*",
        "*/*;q=0",
    ],
)
def test_an_accept_header_without_room_for_json_is_406(accept: str) -> None:
    answer = vaix.precheck(request(accept=accept))
    assert answer is not None
    assert (answer.status, answer.keep, answer.refused) == (406, False, True)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 408, 411, 413, 414, 429, 431, 500, 503])
def test_an_error_is_the_vendors_two_strings(status: int) -> None:
    answer = vaix.error(status, "words of ours", None)
    body = msgspec.json.decode(answer.body)
    assert answer.status == status
    assert not answer.keep
    assert answer.refused
    assert body.keys() == {"error", "status"}
    assert body["status"] == "error"
    assert dict(answer.headers) == ({"www-authenticate": "Bearer"} if status == 401 else {})


def test_an_unknown_encoding_is_400_because_the_vendors_table_has_no_415() -> None:
    answer = vaix.error(415, "", None)
    assert answer.status == 400
    assert answer.body == b'{"error":"Bad Request","status":"error"}'


def test_a_rule_only_ever_narrows_what_the_permissive_ones_accept() -> None:
    rules = Rules(event_types=frozenset({"Registration"}))
    asked = request(b'{"event_type":"Registration"}')
    assert vaix.answer(asked, rules).status == 422
    assert vaix.decode(asked, PERMISSIVE).events == []


def test_data_is_handed_on_untouched() -> None:
    body = b'{"event_type":"add:casino_game","data":{"b":1,"a":{"a.b":null},"a.a":[1,"1",1.5]}}'
    (event,) = vaix.decode(request(body, origin="https://x.example"), PERMISSIVE).events
    assert msgspec.json.encode(event.properties) == body[body.index(b'{"b"') : -1]


def test_page_and_location_are_asked_of_clicks_and_impressions_only() -> None:
    issues = [
        [str(issue) for issue in vaix.decode(request(body), PERMISSIVE).events[0].issues]
        for body in (b'{"event_type":"clicks:x"}', b'{"event_type":"statistics:add_bet"}')
    ]
    assert issues == [["missing_field: data.page", "missing_field: data.location"], []]


def test_json_nested_beyond_any_stack_is_refused_in_the_same_way_from_every_depth() -> None:
    def deeper(frames: int, body: bytes) -> int:
        if frames:
            return deeper(frames - 1, body)
        return vaix.answer(request(body), PERMISSIVE).status

    def nested(levels: int) -> bytes:
        inside = b"[" * levels + b"]" * levels
        return b'{"event_type":"add:casino_game","data":{"a":' + inside + b"}}"

    for levels, status in ((398, 204), (399, 400), (900, 400), (100_000, 400)):
        assert deeper(0, nested(levels)) == deeper(200, nested(levels)) == status
