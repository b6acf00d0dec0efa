"""Vibetrace: what the cases in tests/dialects do not reach, and that answer and decode agree."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.accept.request import Request, Rules
from headwater.decode import vibetrace
from headwater.event import Event, Issue

RULES = Rules()


def request(
    data: Any = None, *, query: str = "", kind: str = "x", body: bytes = b"", cookie: str = ""
) -> Request:
    if data is not None:
        query = "data=" + quote(json.dumps(data), safe="") + query
    return Request(
        dialect="vibetrace",
        method="POST" if body else "GET",
        target=f"/event/A/{kind}?{query}",
        endpoint="event",
        params={"account": "A", "type": kind} if kind else {"account": "A"},
        headers={"cookie": cookie} if cookie else {},
        body=body,
        received_at=1_795_226_263_000_000,
    )


def one(item: dict[str, Any], *, kind: str = "x", cookie: str = "") -> Event:
    (event,) = vibetrace.decode(request([item], kind=kind, cookie=cookie), RULES).events
    return event


def body_of(asked: Request) -> bytes:
    return vibetrace.answer(asked, RULES).body


# --- the answer --------------------------------------------------------------------------------


def test_every_answer_says_that_it_is_not_to_be_cached_or_sniffed() -> None:
    assert dict(vibetrace.ALWAYS) == {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }


@pytest.mark.parametrize(
    "callback", ["vt", "_", "$", "a1", "jQuery1_2", "a.b", "a.b.c.d.e", "$.a", "x" * 128]
)
def test_a_callback_that_is_a_name_is_called(callback: str) -> None:
    answer = vibetrace.answer(request([], query=f"&callback={quote(callback)}"), RULES)
    assert answer.body == b'/**/%s({"status":"ok","received":0});' % callback.encode()
    assert answer.content_type == "application/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "callback",
    [
        "",
        "1a",
        "a.",
        ".a",
        "a..b",
        "a.1",
        "a b",
        "a()",
        "a[0]",
        "a;b",
        "a\n",
        "\na",
        "a\u2028",
        "é",
        "<b>",
        "a.b.c.d.e.f",
        "x" * 129,
        "a" * 60_000,
        "a-b",
        "a\x00",
    ],
)
def test_any_other_callback_is_ignored(callback: str) -> None:
    answer = vibetrace.answer(request([], query=f"&callback={quote(callback)}"), RULES)
    assert answer.body == b'{"status":"ok","received":0}'
    assert answer.content_type == "application/json; charset=utf-8"


def test_jsonp_is_escaped_where_a_script_would_read_it_otherwise_than_json() -> None:
    answer = vibetrace.error(400, "a\u2028b\u2029c</script>é", request(query="callback=vt"))
    assert answer.body == (
        '/**/vt({"status":"error","error":"a\\u2028b\\u2029c<\\/script>é"});'.encode()
    )


@pytest.mark.parametrize("status", [400, 404])
def test_a_script_tag_reads_errors_as_jsonp_with_200(status: int) -> None:
    answer = vibetrace.error(status, "no", request(query="callback=vt"))
    assert (answer.status, answer.keep, answer.refused) == (200, False, True)
    assert answer.body == b'/**/vt({"status":"error","error":"no"});'


@pytest.mark.parametrize("status", [405, 413, 414, 429, 500, 503])
def test_other_errors_keep_their_status(status: int) -> None:
    answer = vibetrace.error(status, "", request(query="callback=vt"))
    assert answer.status == status
    assert json.loads(answer.body)["status"] == "error"
    assert json.loads(answer.body)["error"]


def test_an_error_without_a_request_is_plain_json() -> None:
    assert vibetrace.error(404, "no", None).status == 404


def test_an_error_is_kept_and_refused_and_counts_one() -> None:
    answer = vibetrace.answer(request(query="data=x"), RULES)
    assert (answer.status, answer.keep, answer.refused, answer.events) == (400, True, True, 1)


def test_the_first_data_and_callback_count() -> None:
    asked = request([{}], query="&data=[]&callback=a&callback=b")
    assert body_of(asked) == b'/**/a({"status":"ok","received":1});'


def test_the_query_counts_before_the_body() -> None:
    asked = request([{}], query="&callback=a", body=b"data=%5B%5D&callback=b")
    assert body_of(asked) == b'/**/a({"status":"ok","received":1});'


# --- the events --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pageview", "page"),
        ("PageView", "page"),
        ("login", "identify"),
        ("viewitem", "track"),
        ("viewcategory", "track"),
        ("confirmation", "track"),
        ("whatever", "track"),
    ],
)
def test_the_kind_follows_from_the_type(name: str, kind: str) -> None:
    assert one({}, kind=name).kind == kind
    assert one({}, kind=name).name == name


def test_a_type_that_is_no_text_gives_way_to_the_path() -> None:
    event = one({"type": 5}, kind="login")
    assert event.name == "login"
    assert event.raw["type"] == 5
    assert [issue.code for issue in event.issues] == ["bad_type"]


def test_an_event_without_any_type_is_refused_alone_and_shown() -> None:
    decoded = vibetrace.decode(request([{"type": " ", "userId": "1"}], kind=""), RULES)
    assert decoded.events == []
    assert (decoded.rejected[0].reason, decoded.rejected[0].index) == ("missing_name", 0)
    assert json.loads(decoded.rejected[0].piece) == {"type": " ", "userId": "1"}


def test_generic_and_free_keys_are_one_set_of_properties() -> None:
    event = one({"items": [{"id": "a"}], "source": "s", "generic": {"total": 1.5, "userId": "x"}})
    assert event.properties == {
        "items": [{"id": "a"}],
        "source": "s",
        "total": 1.5,
        "userId": "x",
    }
    assert event.identities == []


def test_equal_values_in_generic_and_beside_it_do_not_clash() -> None:
    assert one({"a": 1, "generic": {"a": 1}}).issues == []


def test_generic_email_looks_up_and_stays_a_property() -> None:
    event = one({"generic": {"email": " A@B.c "}})
    assert [tuple(found)[:4] for found in map(msgspec.structs.astuple, event.identities)] == [
        ("email", "", "a@b.c", "lookup")
    ]
    assert event.properties == {"email": " A@B.c "}


def test_a_list_shares_nothing_between_its_events() -> None:
    first, second = vibetrace.decode(request([{}, {}], query="&u=1"), RULES).events
    first.context["x"] = first.raw["x"] = 1
    first.issues.append(Issue("x"))
    assert second.issues == []
    assert "x" not in second.context
    assert "x" not in second.raw


@pytest.mark.parametrize("cookie", ["", "_", "__", "a", "_b", "a_", "a_b", "a_b_c_d_e", "%41"])
def test_any_cookie_is_read_without_failing(cookie: str) -> None:
    event = one({}, cookie=f"_vt_user={cookie}")
    users = [found.value for found in event.identities if found.namespace == "vibetrace:user"]
    assert users == ([cookie.partition("_")[0]] if cookie.partition("_")[0] else [])


def test_a_session_of_the_event_goes_before_the_cookies() -> None:
    event = one({"sessionId": "9"}, cookie="_vt_user=1_2_false_false")
    assert event.session == "9"
    assert [found.value for found in event.identities] == ["1", "9"]


def test_a_denied_user_id_lets_the_cookie_speak() -> None:
    event = one({"userId": "0", "sessionId": "0"}, cookie="_vt_user=1_2_false_false")
    assert [found.value for found in event.identities] == ["1", "2"]
    assert event.session == "2"


# --- whatever comes ----------------------------------------------------------------------------

_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "userId", "sessionId", "email", "_vtsid", "items", "generic", "a", "data"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_TARGETS = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.text(alphabet=st.sampled_from('data=[]{}"%27DB&callbk.,:1é+'), max_size=60),
    _JSON.map(lambda value: "data=" + quote(json.dumps(value))),
    _JSON.map(lambda value: "callback=vt&data=" + json.dumps(value)),
)
_BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=60),
    _JSON.map(lambda value: json.dumps(value).encode()),
    _JSON.map(lambda value: json.dumps({"data": value, "callback": value}).encode()),
    _JSON.map(lambda value: b"data=" + quote(json.dumps(value)).encode()),
)


@given(
    _TARGETS,
    _BODIES,
    st.sampled_from(["", "application/json", "application/x-www-form-urlencoded"]),
    st.sampled_from(["", "login"]),
    st.text(st.characters(max_codepoint=255), max_size=10),
)
def test_answer_and_decode_agree_whatever_comes(
    query: str, body: bytes, content_type: str, kind: str, cookie: str
) -> None:
    asked = request(query=query, body=body, kind=kind, cookie=f"_vt_user={cookie}")
    asked.headers["content-type"] = content_type
    answer = vibetrace.answer(asked, RULES)
    decoded = vibetrace.decode(asked, RULES)
    assert answer.events == decoded.received
    assert answer.keep
    if answer.refused:
        assert decoded.events == []
        assert len(decoded.rejected) == 1
    msgspec.json.encode(decoded)
    assert vibetrace.error(400, "x", asked).body
    assert vibetrace.decode(asked, RULES) == decoded
