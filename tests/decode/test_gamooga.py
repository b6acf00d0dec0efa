"""Gamooga: what the cases in tests/dialects do not reach, and that answer and decode agree."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.accept.request import Identify, Request, Rules
from headwater.decode import gamooga
from headwater.event import Event

RULES = Rules()
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
VID = "k3v9q0t1x7m2b5za"


def request(
    endpoint: str, query: str, *, body: bytes = b"", method: str = "", state: str = ""
) -> Request:
    return Request(
        dialect="gamooga",
        method=method or ("POST" if body or endpoint == "evwidj" else "GET"),
        target=f"/{endpoint}/?{query.replace('c=C', f'c={COMPANY}')}",
        endpoint=endpoint,
        body=body,
        received_at=1_795_226_263_000_000,
        state=state,
    )


def one(asked: Request) -> Event:
    (event,) = gamooga.decode(asked, RULES).events
    return event


def ids(event: Event) -> list[tuple[str, str, str]]:
    return [(found.namespace, found.value, found.strength) for found in event.identities]


# --- who is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["evwid", "evvprwid", "evwidj"])
def test_a_unique_id_is_a_question_to_the_registry(endpoint: str) -> None:
    asked = request(
        endpoint, "c=C&u=+u1+&e=x&v=ignored", body=b"{}" if endpoint == "evwidj" else b""
    )
    answer = gamooga.answer(asked, RULES)
    assert answer.identify == Identify(scope=COMPANY, users=("u1",))
    assert answer.events == 1
    asked.state = VID
    final = gamooga.answer(asked, RULES)
    assert final.identify is None
    assert json.loads(final.body) == {"result": "success", "vid": VID}
    assert final.events == 1


def test_id_asks_with_all_its_unique_ids_and_the_visitor() -> None:
    answer = gamooga.answer(request("id", "c=C&u=b&u=null&u=a&u=b&v=w"), RULES)
    assert answer.identify == Identify(scope=COMPANY, users=("b", "a"), visitor="w")


def test_a_sentinel_visitor_is_not_asked_for() -> None:
    answer = gamooga.answer(request("id", "c=C&u=b&v=null"), RULES)
    assert answer.identify == Identify(scope=COMPANY, users=("b",))


@pytest.mark.parametrize("query", ["c=C&v=w&e=x", "c=C&v=w"])
def test_what_names_a_visitor_asks_nobody(query: str) -> None:
    answer = gamooga.answer(request("ev" if "e=x" in query else "vpr", query), RULES)
    assert answer.identify is None
    assert answer.body == b'{"result":"success"}'


def test_a_visitor_is_asserted_by_the_request_that_made_it() -> None:
    asked = request("evwid", "c=C&u=u1&e=x", state=VID)
    assert ids(one(asked)) == [("gamooga:user", "u1", "strong")]
    asked.created = True
    assert ids(one(asked)) == [("gamooga:user", "u1", "strong"), ("gamooga:visitor", VID, "weak")]


def test_id_asserts_the_answered_visitor_and_the_one_that_was_sent() -> None:
    event = one(request("id", "c=C&u=u1&v=w", state=VID))
    assert ids(event) == [
        ("gamooga:user", "u1", "strong"),
        ("gamooga:visitor", VID, "weak"),
        ("gamooga:visitor", "w", "weak"),
    ]
    assert "alias" not in event.raw


def test_the_same_unique_id_twice_is_no_alias() -> None:
    assert "alias" not in one(request("id", "c=C&u=u1&u=u1", state=VID)).raw
    assert one(request("id", "c=C&u=u1&u=u2", state=VID)).raw["alias"] is True


def test_only_the_first_usable_unique_id_of_an_event_counts() -> None:
    event = one(request("evwid", "c=C&u=null&u=u1&u=u2&e=x", state=VID))
    assert ids(event) == [("gamooga:user", "u1", "strong")]
    assert event.context["extra"] == {"u": ["null", "u2"]}


def test_the_tenant_is_the_company_in_lower_case() -> None:
    assert gamooga.tenant(request("ev", f"v=1&e=x&c=+{COMPANY.upper()}")) == COMPANY
    assert gamooga.tenant(request("ev", "v=1&e=x")) == ""
    assert gamooga.tenant(request("ev", "e=x", body=f"c={COMPANY}".encode())) == COMPANY
    asked = request("newnaconf", "")
    asked.params = {"c": COMPANY.upper()}
    assert gamooga.tenant(asked) == COMPANY


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "query", "missing"),
    [
        ("ev", "", "c"),
        ("ev", "c=&v=1&e=x", "c"),
        ("ev", "c=C", "v"),
        ("ev", "c=C&v=1", "e"),
        ("evwid", "c=C", "u"),
        ("evwid", "c=C&u=1", "e"),
        ("evwidj", "c=C&e=x", "u"),
        ("evvprwid", "c=C&u=+", "u"),
        ("vpr", "c=C&p=a&vl=1", "v"),
        ("id", "c=C&v=1", "u"),
        ("id", "c=C&u=0&u=null", "u"),
    ],
)
def test_the_first_missing_parameter_is_named(endpoint: str, query: str, missing: str) -> None:
    answer = gamooga.answer(request(endpoint, query), RULES)
    assert answer.status == 400
    assert json.loads(answer.body) == {"result": "error", "error": f"missing parameter: {missing}"}
    assert answer.refused
    assert answer.keep == (missing != "c")
    (rejected,) = gamooga.decode(request(endpoint, query), RULES).rejected
    assert rejected.reason == "missing_field"


def test_a_visitor_id_is_measured_in_characters() -> None:
    assert gamooga.answer(request("ev", "c=C&e=x&v=" + "%C3%A9" * 128), RULES).status == 200
    assert gamooga.answer(request("ev", "c=C&e=x&v=" + "%C3%A9" * 129), RULES).status == 400


def test_errors_of_the_collector_have_the_dialects_form() -> None:
    answer = gamooga.error(503, "", None)
    assert json.loads(answer.body) == {"result": "error", "error": "service unavailable"}
    assert (answer.keep, answer.refused) == (False, True)


# --- the event ---------------------------------------------------------------------------------


def test_the_configuration_is_the_host_header_or_the_public_host() -> None:
    asked = request("newnaconf", "")
    asked.headers = {"host": 'a"b:8080'}
    answer = gamooga.answer(asked, RULES)
    assert json.loads(answer.body) == {"evbk": 'a"b:8080'}
    assert (answer.keep, answer.events) == (False, 0)
    answer = gamooga.answer(asked, Rules(public_host="events.example.com"))
    assert json.loads(answer.body) == {"evbk": "events.example.com"}
    assert gamooga.decode(asked, RULES).received == 0


@pytest.mark.parametrize(
    ("tm", "occurred_at", "issues"),
    [
        ("", None, []),
        ("1795226263000", 1_795_226_263_000_000, []),
        ("1795226263", 1_795_226_263_000_000, ["seconds_assumed"]),
        ("+1795226263000.5", 1_795_226_263_000_500, []),
        ("%2B1795226263000", 1_795_226_263_000_000, []),
        ("1.795226263E%2B12", 1_795_226_263_000_000, []),
        ("99999999999", None, ["date_out_of_range"]),  # as seconds, the year 5138
        ("-1", None, ["bad_date"]),
        ("-0", None, ["bad_date"]),
        ("NaN", None, ["bad_date"]),
        ("now", None, ["bad_date"]),
        ("2026-11-21", None, ["bad_date"]),
        ("1e999", None, ["bad_date"]),
        ("9" * 5_000, None, ["bad_date"]),
        ("1795226263000&tm=5", 1_795_226_263_000_000, []),
    ],
)
def test_tm_in_all_its_forms(tm: str, occurred_at: int | None, issues: list[str]) -> None:
    event = one(request("ev", f"c=C&v=1&e=x&tm={tm}"))
    assert event.occurred_at == occurred_at
    assert [issue.code for issue in event.issues] == issues


def test_an_empty_name_in_json_is_no_property_and_not_lost() -> None:
    event = one(request("evwidj", "c=C&u=1&e=x", body=b'{"":1," ":"s","a":null}'))
    assert event.properties == {"a": None}
    assert [issue.code for issue in event.issues] == ["empty_name", "empty_name"]
    assert event.raw["unnamed"] == [1, "s"]


def test_event_and_visitor_properties_do_not_mix() -> None:
    event = one(
        request("evvprwid", "c=C&u=1&e=x&vky=a&vvl=1&vtp=n&eky=a&evl=2&etp=s&ky=b&vl=3&tp=n")
    )
    assert event.properties == {"a": "2"}
    assert event.profile_set == {"a": 1}
    assert event.context["extra"] == {"ky": "b", "vl": "3", "tp": "n"}


def test_a_parameter_of_another_endpoint_is_context() -> None:
    assert one(request("ev", "c=C&v=1&e=x&u=5")).context["extra"] == {"u": "5"}


# --- whatever comes ----------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["c", "u", "v", "e", "tm", "ky", "vl", "tp", "p", "eky", "evl", "vky", "vvl", "x", "%75", ""]
)
_VALUES = st.sampled_from(
    ["", "C", "0", "a", "+", "%FF", "%", "1e400", "-1", "n", "b", "v" * 129, "1580000000000", "é"]
)
_QUERIES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.lists(st.tuples(_NAMES, _VALUES), max_size=12).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
    ),
)
_JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=30),
    _JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    _QUERIES.map(lambda query: query.encode()),
)


@given(
    st.sampled_from(["ev", "evwid", "evwidj", "evvprwid", "vpr", "id"]),
    st.sampled_from(["", "c=C&", "c=C&u=1&v=2&e=3&"]),
    _QUERIES,
    _BODIES,
    st.booleans(),
)
def test_answer_and_decode_agree_whatever_comes(
    endpoint: str, start: str, query: str, body: bytes, created: bool
) -> None:
    asked = request(endpoint, start + query, body=body)
    answer = gamooga.answer(asked, RULES)
    if answer.identify is not None:
        assert answer.identify.users
        assert all(user.strip() == user and user for user in answer.identify.users)
        assert len(answer.identify.visitor) <= 128
        asked.state, asked.created = VID, created
        answer = gamooga.answer(asked, RULES)
        assert answer.identify is None
    decoded = gamooga.decode(asked, RULES)
    assert answer.refused == (answer.status != 200) == bool(decoded.rejected)
    assert decoded.received == 1
    if answer.keep:
        assert answer.events == decoded.received
        assert gamooga.tenant(asked)
    else:
        assert gamooga.tenant(asked) == ""
    msgspec.json.encode(decoded)
    assert gamooga.decode(asked, RULES) == decoded
