"""Every field of every case's event says where it came from, and says it rightly."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import limits
from headwater.accept.request import Dialect, Request, Rules
from headwater.accept.routes import Router
from headwater.decode import words
from headwater.decode.dialects import DIALECTS
from headwater.decode.json_body import BadJson, parse_json
from headwater.decode.json_scan import indented, items_of, scan
from headwater.decode.leaves import Leaves
from headwater.decode.provenance import Trace, trace
from headwater.decode.request_text import as_it_came
from headwater.event import Decoded
from headwater.resolve.enrichment import Enrichment
from tests.dialects.case import STATE, Case, as_bytes, read_cases
from tests.dialects.test_cases import request_of

BY_NAME: dict[str, Dialect] = {dialect.NAME: dialect for dialect in DIALECTS}
CASES = [case for case in read_cases() if case.kept]
TOP = Path(__file__).parents[2]
ENRICHMENT = Enrichment()
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"


def decode(request: Request) -> Decoded:
    """As the loader does, in which a tracking plan has no say."""
    decoded = BY_NAME[request.dialect].decode(request, Rules())
    ENRICHMENT.enrich(request, decoded)
    return decoded


def wire_request(case: Case) -> Request:
    """A case's request with the header texts that arrive over a socket, one byte a character."""
    request = request_of(case)
    request.headers = {k: as_bytes(v).decode("latin-1") for k, v in request.headers.items()}
    request.state = case.state or STATE
    return request


def made(
    dialect: str, target: str, body: bytes = b"", method: str = "POST", **headers: str
) -> Request:
    match = Router(DIALECTS).match(target.partition("?")[0], websocket=False)
    assert match is not None
    return Request(
        dialect=match.dialect.NAME,
        method=method,
        target=target,
        endpoint=match.endpoint,
        params=dict(match.params),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body,
        peer="192.0.2.7",
        received_at=1_795_226_263_000_000,
    )


def traced(request: Request, event: int = 0) -> dict[str, tuple[list[str], list[str], str]]:
    """Each field of an event: where it came from, what decided it, its rule."""
    leaves = Leaves(request, BY_NAME[request.dialect])
    found = trace(leaves, decode, decode(request).events[event], lambda: True)
    assert found.cut == ""
    return {
        field.path: (
            [leaves.leaves[one].words for one in field.came_from],
            [leaves.leaves[one].words for one in field.decided_by],
            field.rule,
        )
        for field in found.fields
    }


# --- every case ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_field_of_every_event_has_a_source_or_a_named_rule(case: Case) -> None:
    request = wire_request(case)
    leaves = Leaves(request, BY_NAME[case.dialect])
    for event in decode(request).events:
        found = trace(leaves, decode, event, lambda: True)
        assert found.cut == ""
        nowhere = [
            field.path
            for field in found.fields
            if not (field.came_from or field.decided_by or field.rule)
        ]
        assert nowhere == []
        traced_names = {
            field.path.split("/")[1].replace("~1", "/").replace("~0", "~")
            for field in found.fields
            if field.path.startswith("properties/")
        }
        assert traced_names == set(event.properties)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_built_from_its_leaves_is_the_request(case: Case) -> None:
    request = wire_request(case)
    leaves = Leaves(request, BY_NAME[case.dialect])
    again = leaves.alone(None)
    request.headers = {k: v for k, v in request.headers.items() if k != "content-encoding"}
    assert again == request
    for number, leaf in enumerate(leaves.leaves):
        if not leaves.is_json(number) and leaf.part != "path":
            assert leaves.changed(number, leaves.raw(number)) == request, leaf
    pieces, left_out = as_it_came(
        request, leaves.leaves, body_bytes_max=limits.inspect_body_bytes_max
    )
    whole = "".join(piece.text for piece in pieces)
    assert left_out == 0
    assert whole.startswith(f"{request.method} ")
    assert whole.endswith(request.body.decode("utf-8", "backslashreplace"))


# --- that it is right ----------------------------------------------------------------------------


def test_vaix_tells_body_headers_and_group_apart() -> None:
    found = traced(
        made(
            "vaix",
            "/api/tracker/events",
            b'{"event_type":"clicks:event","user_id":7,"data":{"page":"/live","n":[1,{"deep":true}]}}',
            x_vaix_client_id="group-a",
            origin="https://shop.example",
            user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1",
        )
    )
    assert found["name"][0] == ["body /event_type"]
    assert found["identities/vaix:user"][0] == ["header x-vaix-client-id", "body /user_id"]
    assert found["properties/n/1/deep"] == (["body /data/n/1/deep"], [], "")
    assert found["context/page"][0] == ["body /data/page"]
    assert found["context/brand"][0] == ["header origin"]
    assert found["context/channel"][1] == ["header user-agent"]
    assert found["context/device/os"][1] == ["header user-agent"]
    assert found["issues/missing_field/data.location"] == (
        [],
        ["body /event_type"],
        "data.location is not in the request",
    )
    assert "received_at" in found["occurred_at"][2]


def test_orbee_finds_the_instance_and_the_number_in_a_text() -> None:
    found = traced(
        made(
            "orbee",
            "/collect/1/2/event",
            b'{"action":"submit","object":"form","vendor":"V","product":"P","instanceID":"i-9",'
            b'"score":"3","email":"Jane@Example.com","dtm":"1795226200000"}',
        )
    )
    assert found["name"][0] == ["body /action", "body /object"]
    assert found["scope"][0] == ["path segment aid", "path segment tid"]
    assert found["identities/orbee:instance"][0] == [
        "path segment aid",
        "body /vendor",
        "body /product",
        "body /instanceID",
    ]
    assert found["identities/email"][0] == ["body /email"]
    assert found["context/score"][0] == ["body /score"]
    assert found["occurred_at"][0] == ["body /dtm"]


def test_nucleus_looks_at_one_event_of_the_list_and_what_all_share() -> None:
    items = b",".join(
        b'{"type":"event","name":"n%d","id":%d,"date":"2026-11-21T02:00:0%d","sessionId":5,'
        b'"machineId":"m","payload":{"x":{"y":%d}}}' % (n, n, n, n)
        for n in range(4)
    )
    request = made("nucleus", "/app/demo/track", b'{"confirmation":"c","data":[%b]}' % items)
    found = traced(request, 2)
    assert found["name"][0] == ["body /data/2/name"]
    assert found["occurred_at"][0] == ["body /data/2/date"]
    assert found["properties/x/y"][0] == ["body /data/2/payload/x/y"]
    assert found["scope"][0] == ["path segment app"]
    assert found["issues/tz_assumed/date"][1] == ["body /data/2/date"]
    places = {place for sources, decided, _ in found.values() for place in sources + decided}
    assert not any("/data/1/" in place or "/data/3/" in place for place in places)


def test_nucleus_says_that_the_type_decides_what_a_payload_is() -> None:
    found = traced(
        made(
            "nucleus",
            "/app/demo/track",
            b'[{"type":"props","payload":{"plan":"pro","gone":null},"deviceId":"d","sessionId":1}]',
        )
    )
    assert found["profile_set/plan"] == (["body /0/payload/plan"], ["body /0/type"], "")
    assert "body /0/payload/gone" in found["profile_unset/gone"][1]
    assert found["kind"][0] == ["body /0/type"]


def test_vibetrace_reads_json_in_a_query_and_the_parts_of_the_cookie() -> None:
    target = (
        "/event/ACCT123/login?data=%5B%7B%22type%22%3A%22login%22%2C%22generic%22%3A%7B%22caf%C3%A9"
        "%22%3A%22a+b%22%7D%7D%5D&ts=4"
    )
    request = made("vibetrace", target, method="GET", cookie="_vt_user=81_25_false_false")
    found = traced(request)
    assert found["properties/café"][0] == ["parameter data /0/generic/café"]
    assert found["session"][0] == ["header cookie"]
    leaves = Leaves(request, BY_NAME["vibetrace"])
    place = next(one for one in leaves.leaves if one.pointer == "/0/generic/café")
    assert target.encode()[place.start : place.end] == b"%22a+b%22"
    cookie = [one for one in leaves.leaves if one.name == "cookie"]
    assert [one.text for one in cookie] == ["81", "25", "false", "false"]
    assert request.headers["cookie"][cookie[1].start : cookie[1].end] == "25"


def test_vibetrace_reads_json_in_a_text_of_a_json_body() -> None:
    found = traced(
        made("vibetrace", "/event/ACCT123", b'{"data":"[{\\"type\\":\\"x\\",\\"a\\":1}]"}')
    )
    assert found["properties/a"][0] == ["body /0/a"]


def test_gamooga_ties_a_property_to_its_three_fields() -> None:
    found = traced(
        made(
            "gamooga",
            f"/evwid?c={COMPANY}&u=cust-1&e=order&ky=price&vl=19.5&tp=n&ky=sku&vl=A1&tp=s&tm=1795226200000",
            method="GET",
        )
    )
    assert found["properties/price"][0] == ["parameter vl", "parameter tp"]
    assert found["properties/price"][1] == ["parameter ky"]
    assert found["occurred_at"][0] == ["parameter tm"]
    assert found["name"][0] == ["parameter e"]


def test_gamoogas_visitor_is_the_answers() -> None:
    request = made("gamooga", f"/id?c={COMPANY}&u=cust-1", method="GET")
    request.state = "k3v9q0t1x7m2b5za"
    assert traced(request)["identities/gamooga:visitor"][0] == [
        "parameter c",
        "the answer's visitor id",
    ]


# --- bounds --------------------------------------------------------------------------------------


def test_it_says_when_there_was_no_time_for_all() -> None:
    request = made(
        "vaix", "/api/tracker/events", b'{"event_type":"a:b","data":{"x":1}}', x_vaix_client_id="g"
    )
    leaves = Leaves(request, BY_NAME["vaix"])
    found: Trace = trace(leaves, decode, decode(request).events[0], lambda: False)
    assert found.cut.startswith("0 of ")
    assert all(field.came_from or field.rule for field in found.fields)


def test_it_says_when_a_body_is_too_large_to_be_told_apart() -> None:
    body = b'{"event_type":"a:b","data":{"x":"%b"}}' % (b"x" * limits.provenance_bytes_max)
    request = made("vaix", "/api/tracker/events", body, x_vaix_client_id="g")
    assert str(limits.provenance_bytes_max) in Leaves(request, BY_NAME["vaix"]).cut


def test_it_says_when_there_are_too_many_values() -> None:
    many = b",".join(b'"k%d":1' % n for n in range(limits.provenance_leaves_max + 10))
    request = made(
        "vaix",
        "/api/tracker/events",
        b'{"event_type":"a:b","data":{%b}}' % many,
        x_vaix_client_id="g",
    )
    leaves = Leaves(request, BY_NAME["vaix"])
    assert len(leaves.leaves) == limits.provenance_leaves_max
    assert leaves.cut


def test_of_a_long_queue_the_event_that_is_asked_for_is_traced() -> None:
    items = b",".join(b'{"name":"n%d","deviceId":"d","sessionId":1}' % n for n in range(1_500))
    request = made("nucleus", "/app/demo/track", b'{"data":[%b]}' % items)
    assert Leaves(request, BY_NAME["nucleus"]).cut
    leaves = Leaves(request, BY_NAME["nucleus"], 1_400)
    found = trace(leaves, decode, decode(request).events[1_400], lambda: True)
    (name,) = [one for one in found.fields if one.path == "name"]
    assert [leaves.leaves[n].words for n in name.came_from] == ["body /data/1400/name"]
    assert found.cut == ""


# --- JSON by its places --------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.booleans())
def test_a_scan_finds_every_value_where_it_stands(value: object, wide: bool) -> None:
    text = json.dumps(value, indent=2 if wide else None, ensure_ascii=wide).encode()
    tokens = scan(text, tokens_max=10_000)
    for token in tokens:
        if token.kind == "leaf":
            at: object = value
            for step in token.pointer.split("/")[1:]:
                name = step.replace("~1", "/").replace("~0", "~")
                at = at[int(name)] if isinstance(at, list) else at[name]  # type: ignore[index]
            assert json.loads(text[token.start : token.end]) == at
    laid_out = b"".join(piece for piece, _ in indented(text, tokens))
    assert json.loads(laid_out) == value
    if isinstance(value, list) and value:
        spans = items_of(tokens, "")
        assert spans is not None
        assert [json.loads(text[start:end]) for start, end in spans] == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ a1', max_size=40).map(str.encode))
def test_a_scan_of_any_bytes_ends_and_takes_all_that_is_json(text: bytes) -> None:
    try:
        parse_json(text)
        valid = True
    except BadJson:
        valid = False
    try:
        tokens = scan(text, tokens_max=1_000)
    except BadJson:
        assert not valid or text.startswith(b"\xef\xbb\xbf")
    else:
        assert all(a.end <= b.start for a, b in itertools.pairwise(tokens))


# --- words ---------------------------------------------------------------------------------------


def codes(pattern: str) -> set[str]:
    source = "\n".join(
        path.read_text()
        for stage in ("decode", "resolve")
        for path in (TOP / "src" / "headwater" / stage).glob("*.py")
        if path.stem != "words"
    )
    source += (TOP / "src" / "headwater" / "decoding.py").read_text()
    return set(re.findall(pattern, source))


def test_every_issue_has_words() -> None:
    found = codes(r'Issue\(\s*"([a-z_0-9]+)"')
    assert len(found) > 15
    for code in found | {"kept_as_text"}:
        assert words.issue("nucleus", f"{code}: a field: detail").words != code, code


def test_every_reason_has_words() -> None:
    found = codes(
        r'(?:BadMessage\(|Refused\(|_refused\(|_unprocessable\(|_Refusal\((?:[^",]*, )?'
        r'|_Asked\(\[\], callback(?: or "")?, |reason=|reason = |REASON = |_rejection\(index, )'
        r'"([a-z_0-9]+)"'
    )
    found |= {reason["reason"] for case in CASES for reason in case.rejected}
    assert len(found) > 10
    for code in found:
        assert words.reason("vaix", code, "detail").words != code, code


def test_the_pages_that_words_lead_to_have_those_headings() -> None:
    said_of = [
        (words._ISSUES, lambda dialect, code: words.issue(dialect, f"{code}: field")),
        (words._REASONS, lambda dialect, code: words.reason(dialect, code, "")),
    ]
    for table, say in said_of:
        for code, entry in table.items():
            for dialect in entry.places:
                said: words.Said = say(dialect, code)  # type: ignore[no-untyped-call]
                path, _, anchor = said.page.partition("#")
                headings = re.findall(r"^#+ (.+)$", (TOP / path).read_text(), re.MULTILINE)
                assert anchor in {one.lower().replace(" ", "-") for one in headings}, said
                assert said.section, said
