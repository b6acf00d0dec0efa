"""Whether a request carries somebody's identifiers, however they are written."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from headwater.accept.accounts import Accounts
from headwater.accept.request import Request
from headwater.carrying import Carrying
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from headwater.decoding import Judge
from tests.journaled import APP, a_request, nucleus

COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
JUDGE = Judge(
    DIALECTS,
    lambda: Accounts({}, public_host="", clock=system_clock),
    lambda request, decoded: None,
)


def looks_for(*identifiers: tuple[str, str, str], account: str = "acme") -> Carrying:
    return Carrying(account, identifiers, JUDGE)


def is_in(carrying: Carrying, request: Request) -> bool:
    """As an export asks; what the quick look leaves out must not be in it."""
    found = carrying.is_in(request) and request.account == "acme"
    assert carrying.may_be_in(request) or not found
    return found and carrying.may_be_in(request)


def vibetrace(item: dict[str, Any], **escapes: bool) -> Request:
    text = json.dumps([item], **escapes)  # type: ignore[arg-type]
    return a_request(
        "POST", "/event/VA/login", body=text.encode(), headers={"content-type": "application/json"}
    )


def test_an_event_is_judged_by_its_identities() -> None:
    carrying = looks_for(("nucleus:user", APP, "5"))
    assert is_in(carrying, nucleus({"name": "A", "id": 1, "userId": 5}))
    assert is_in(carrying, nucleus({"name": "A", "id": 1, "userId": "5"}))
    assert not is_in(carrying, nucleus({"name": "A", "id": 5, "userId": 55}))
    assert not is_in(carrying, nucleus({"name": "userId: 5", "id": 1, "userId": 6}))
    assert not is_in(looks_for(("nucleus:user", "otherapp", "5")), nucleus({"userId": 5}))
    assert not is_in(carrying, nucleus({"name": "A", "userId": 5}, account="other"))
    assert not is_in(looks_for(), nucleus({"name": "A", "userId": 5}))


@pytest.mark.parametrize(
    "request_",
    [
        a_request("GET", f"/ev/?c={COMPANY}&e=x&v=%C3%BCber%20ich"),
        a_request("GET", f"/ev/?c={COMPANY}&e=x&v=%c3%bcb%65r+ich"),
        a_request("POST", "/ev/", body=f"c={COMPANY}&e=x&v=%C3%BCber+ich".encode()),
    ],
    ids=["percent", "letters too", "form"],
)
def test_escapes_of_a_query_hide_nothing(request_: Request) -> None:
    assert is_in(looks_for(("gamooga:visitor", COMPANY, "über ich")), request_)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_escapes_of_json_hide_nothing(ascii_only: bool) -> None:
    request = vibetrace({"userId": "Ж/1", "sessionId": "s"}, ensure_ascii=ascii_only)
    assert is_in(looks_for(("vibetrace:user", "VA", "Ж/1")), request)
    assert is_in(looks_for(("vibetrace:session", "VA", "s")), request)
    tabbed = nucleus({"name": "A", "id": 1, "userId": "\tn7"})
    assert is_in(looks_for(("nucleus:user", APP, "n7")), tabbed)


def test_a_compressed_body_is_looked_into() -> None:
    body = gzip.compress(nucleus({"name": "A", "id": 1, "userId": "u7"}).body)
    request = nucleus(body=body, headers={"content-encoding": "gzip"})
    assert is_in(looks_for(("nucleus:user", APP, "u7")), request)


def test_a_rejected_request_is_judged_by_its_text() -> None:
    def rejected(text: str) -> Request:
        headers = {"x-vaix-client-id": "g1"}
        return a_request("POST", "/api/tracker/events", body=text.encode(), headers=headers)

    short = looks_for(("vaix:user", "g1", "u1"))
    for text in ('{"user_id":"u1",', '{"user_id" : "u1", "event_type": "no"', "user_id=u1&"):
        assert is_in(short, rejected(text)), text
    for text in ('{"user_id":"u12",', '{"user_id":"u", "n": "u1"', '{"other":"u1"'):
        assert not is_in(short, rejected(text)), text
    assert not is_in(looks_for(("vaix:user", "g2", "u1")), rejected('{"user_id":"u1",'))
    long = looks_for(("vaix:user", "g1", "customer-1048"))
    assert is_in(long, rejected('{"whatever": "customer-1048"'))
    assert not is_in(long, rejected('{"whatever": "customer-10481"'))
    assert not is_in(
        looks_for(("gamooga:user", COMPANY, "customer-1048")),
        rejected('{"user_id": "customer-1048"'),
    ), "another vendor's customer"


def test_an_email_is_looked_for_where_emails_come() -> None:
    jane = looks_for(("email", "", "jane@example.com"))
    assert is_in(jane, vibetrace({"userId": "1", "sessionId": "2", "email": "Jane@Example.com"}))
    broken = a_request("GET", "/event/VA/login?data=%5B%7B%22email%22%3A%22jane%40example.com")
    assert is_in(jane, broken)
    other = a_request("GET", "/event/VA/login?data=%5B%7B%22email%22%3A%22maryjane%40example.com")
    assert not is_in(jane, other)
