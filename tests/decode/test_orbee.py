"""Orbee: what cases cannot say - agreement of answer and decode, keys of trackers, coercions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.accept.request import Request, Rules
from headwater.decode import orbee
from headwater.event import Event

PERMISSIVE = Rules()
RECEIVED_AT = 1_795_226_263_000_000
BASE: dict[str, Any] = {
    "action": "submit",
    "object": "form",
    "vendor": "V",
    "product": "P",
    "instance_id": "abc",
}
UUID = "7B7F3C1E-0000-4000-8000-00000000000A"


def request(body: bytes = b"{}", *, aid: str = "1", tid: str = "2", **headers: str) -> Request:
    return Request(
        dialect="orbee",
        method="POST",
        target=f"/collect/{aid}/{tid}/event",
        params={"aid": aid, "tid": tid},
        headers=headers,
        body=body,
        received_at=RECEIVED_AT,
    )


def event_of(**fields: Any) -> Event:
    """The event of a good body with `fields` besides."""
    (event,) = orbee.decode(request(msgspec.json.encode({**BASE, **fields})), PERMISSIVE).events
    return event


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.text() | st.integers() | JSON
BODIES = st.fixed_dictionaries(
    dict.fromkeys(("action", "object", "vendor", "product"), FIELDS),
    optional=dict.fromkeys(
        (
            *("instance_id", "instanceID", "instanceId", "instanceid", "score", "label"),
            *("element", "email", "duid", "dtm", "timestamp", "custom"),
        ),
        FIELDS,
    ),
)


def judge(body: bytes, lenient: bool) -> None:
    """Assert that answer and decode say the same of one request."""
    rules = Rules(lenient=lenient)
    answer = orbee.answer(request(body), rules)
    decoded = orbee.decode(request(body), rules)
    assert answer.keep
    assert answer.events == decoded.received == 1
    assert answer.refused == (decoded.events == [])
    assert answer.status == (400 if answer.refused and not lenient else 204)
    assert dict(answer.headers) == ({"x-tracked": "0"} if answer.refused and lenient else {})
    assert bool(answer.body) == (answer.status == 400)
    assert orbee.decode(request(body), PERMISSIVE) == decoded
    msgspec.json.encode(decoded)


@given(st.binary(), st.booleans())
def test_answer_and_decode_agree_on_any_bytes(body: bytes, lenient: bool) -> None:
    judge(body, lenient)


@given(BODIES | JSON, st.booleans())
@settings(max_examples=300)
def test_answer_and_decode_agree_on_any_json(body: Any, lenient: bool) -> None:
    judge(msgspec.json.encode(body), lenient)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_leaf_of_the_body_stands_in_the_properties(extra: dict[str, Any]) -> None:
    body = msgspec.json.encode({**extra, **BASE})
    (event,) = orbee.decode(request(body), PERMISSIVE).events
    assert event.properties == msgspec.json.decode(body)


@given(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_score_is_a_finite_number_or_an_issue(text: str, whole: int, real: float) -> None:
    for value in (text, whole, real, str(whole), str(real)):
        event = event_of(score=value)
        score = event.context.get("score")
        assert (score is None) == bool(event.issues)
        if value is not text:
            assert score == pytest.approx(float(value))


@pytest.mark.parametrize(
    ("aid", "tid", "key"),
    [
        ("1", "1", "1/1"),
        ("0012", "3", "0012/3"),
        (UUID, "1", f"{UUID.lower()}/1"),
        ("1", UUID, f"1/{UUID.lower()}"),
    ],
)
def test_numbers_are_kept_exactly_and_uuids_in_lower_case(aid: str, tid: str, key: str) -> None:
    asked = request(aid=aid, tid=tid)
    assert orbee.precheck(asked) is None
    assert orbee.tenant(asked) == key


@pytest.mark.parametrize(
    "wrong", ["abc", "", "-1", "1.0", "1e3", "%31", "١", "1\n", UUID[:-1], UUID.replace("-", "")]
)
def test_an_id_that_is_neither_number_nor_uuid_is_404_and_not_kept(wrong: str) -> None:
    for asked, name in ((request(aid=wrong), "aid"), (request(tid=wrong), "tid")):
        answer = orbee.precheck(asked)
        assert answer is not None
        assert (answer.status, answer.keep) == (404, False)
        assert name.encode() in answer.body


def test_the_instance_is_the_accounts_and_not_the_trackers() -> None:
    body = msgspec.json.encode(BASE)
    web, server = (
        orbee.decode(request(body, aid=UUID, tid=tid), PERMISSIVE).events[0] for tid in ("1", "2")
    )
    assert web.identities == server.identities
    assert web.identities[0].scope == UUID.lower()
    assert (web.scope, server.scope) == (f"{UUID.lower()}/1", f"{UUID.lower()}/2")


def test_vendor_and_product_are_part_of_the_instance() -> None:
    values = {
        event_of(**changed).identities[0].value
        for changed in ({}, {"vendor": "W"}, {"product": "Q"}, {"vendor": "v"})
    }
    assert len(values) == 4


@pytest.mark.parametrize("email", ["none", "", "@", " x@y.z ", "X@Y.Z"])
def test_an_email_needs_an_at_sign_and_only_looks_up(email: str) -> None:
    found = [one for one in event_of(email=email).identities if one.namespace == "email"]
    assert [one.value for one in found] == ([email.strip().lower()] if "@" in email else [])
    assert all(one.strength == "lookup" and one.scope == "" for one in found)


def test_dtm_counts_before_timestamp() -> None:
    event = event_of(timestamp=RECEIVED_AT // 1000 - 5, dtm=RECEIVED_AT // 1000)
    assert event.occurred_at == RECEIVED_AT
    assert event.raw == {
        "action": "submit",
        "object": "form",
        "dtm": RECEIVED_AT // 1000,
        "timestamp": RECEIVED_AT // 1000 - 5,
    }
    assert event.issues == []


@pytest.mark.parametrize("status", [400, 404, 405, 408, 411, 413, 414, 415, 429, 431, 500, 503])
def test_an_error_without_words_says_the_statuss_own(status: int) -> None:
    answer = orbee.error(status, "", None)
    assert answer.status == status
    assert not answer.keep
    assert len(msgspec.json.decode(answer.body)["error"]) > 5
    assert orbee.error(status, "say this", None).body == b'{"error":"say this"}'


def test_success_is_one_shared_answer_without_body() -> None:
    asked = request(msgspec.json.encode(BASE))
    answer = orbee.answer(asked, PERMISSIVE)
    assert answer is orbee.answer(asked, PERMISSIVE)
    assert (answer.body, answer.content_type, answer.headers) == (b"", "", ())
