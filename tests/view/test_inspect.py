"""A request and what became of it, through a real server: all dialects, both transports."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
import pytest

from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.view.looking import (
    APP,
    COMPANY,
    KEPT,
    READER,
    VAIX,
    Looking,
    field,
    looking,
    places,
    whole,
)

MARKUP = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>{{7*7}}'


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looking]:
    with looking(tmp_path_factory.mktemp("inspect")) as server:
        yield server


def shown(console: Looking, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request of the newest event of some kind, and that event, as the console shows them."""
    row = console.newest(where)
    request = console.got("GET", f"/api/requests/{row['request_id']}")
    (event,) = [one for one in request["events"] if one["event_id"] == row["event_id"]]
    assert event["status"] == "stored"
    assert event["differs"] == []
    assert event["person_id"] == row["person_id"]
    return request, event


def test_vaix_over_http(console: Looking) -> None:
    body = '{"event_type":"clicks:event","user_id":"5","data":{"page":"/live","odds":{"home":2.5}}}'
    headers = {
        "Authorization": f"Bearer {VAIX}",
        "X-Vaix-Client-Id": "group-a",
        "Cookie": "session=secret-of-the-shop; _vt_user=1_2_false_false",
        "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1",
    }
    assert console.send("POST", "/api/tracker/events", body, headers) == 204
    request, event = shown(console, "dialect = 'vaix'")
    text = whole(request["wire"])
    assert text.startswith("POST /api/tracker/events\n")
    assert text.endswith(f"\n\n{body}")
    assert VAIX not in msgspec.json.encode(request).decode()
    assert "secret-of-the-shop" not in msgspec.json.encode(request).decode()
    assert places(request, event, "properties/odds/home") == ["body /data/odds/home"]
    assert places(request, event, "context/ip") == ["the client's address"]
    assert field(event, "properties/odds/home")["value"] == "2.5"
    (issue,) = event["issues"]
    assert (issue["code"], issue["field"]) == ("missing_field", "data.location")
    assert "data.location is missing" in issue["words"]
    assert issue["section"]
    assert issue["page"] == "docs/dialects/vaix.md#what-is-accepted"
    leaf = request["leaves"][field(event, "properties/odds/home")["came_from"][0]]
    assert body[leaf["start"] : leaf["end"]] == "2.5"
    (piece,) = [one for one in request["wire"] if one["text"] == "2.5"]
    assert request["leaves"][piece["leaves"][0]] == leaf


def test_orbee_and_the_event_by_its_own_id(console: Looking) -> None:
    body = (
        '{"action":"submit","object":"form","vendor":"V","product":"P","instance_id":"i-1",'
        '"email":"jane@example.com"}'
    )
    assert console.send("POST", "/collect/1/1/event", body) == 204
    request, event = shown(console, "dialect = 'orbee'")
    found = console.got("GET", f"/api/events/{event['event_id']}")
    assert found["event_id"] == event["event_id"]
    assert found["request"]["request_id"] == request["request_id"]
    assert places(request, event, "identities/orbee:instance")[-1] == "body /instance_id"


def test_nucleus_over_a_websocket_with_a_copy(console: Looking) -> None:
    item = {
        "type": "event",
        "name": "PLAYED",
        "id": 7,
        "date": "2026-11-21T02:00:12.897730",
        "deviceId": "dev-1",
        "sessionId": 4,
        "payload": {"title": "Ünï ☃"},
    }
    text = msgspec.json.encode({"data": [{**item, "id": 6}, item]}).decode()
    console.message(f"/app/{APP}/track", text)
    request, event = shown(console, "dialect = 'nucleus' AND name = 'PLAYED'")
    assert request["transport"] == "websocket"
    assert len(request["events"]) == 2
    assert places(request, event, "properties/title")[0].startswith("body /data/")
    assert [one["code"] for one in event["issues"]] == ["tz_assumed"] * 1 + [
        one["code"] for one in event["issues"][1:]
    ]
    # The same message again: nothing of it is stored, and it says where the first copies are.
    console.message(f"/app/{APP}/track", text)
    console.served.wait_loaded()
    again = console.got("GET", f"/api/events/{event['event_id']}")["request"]
    assert again["request_id"] == request["request_id"]
    (copy,) = [
        one for one in journaled(console, "nucleus") if one["request_id"] != request["request_id"]
    ]
    assert {one["status"] for one in copy["events"]} == {"duplicate"}
    assert {one["copy_of"] for one in copy["events"]} == {request["request_id"]}


def journaled(console: Looking, dialect: str) -> list[dict[str, Any]]:
    """Every request of a dialect in the journal, as the console shows it."""
    reader = SqliteReader(console.served.data / "journal")
    try:
        ids = [
            request.request_id.hex()
            for writer in reader.writers()
            for batch in reader.read(Position(writer, 0), batches_max=1_000, bytes_max=1 << 24)
            for request in batch.requests
            if request.dialect == dialect and request.endpoint != "close"
        ]
    finally:
        reader.close()
    return [console.got("GET", f"/api/requests/{one}") for one in ids]


def test_one_event_of_many_is_shown_when_it_is_asked_for(console: Looking) -> None:
    items = [
        {"type": "event", "name": f"N{n}", "id": n, "date": 1795226263549 + n, "deviceId": "d"}
        for n in range(60)
    ]
    body = msgspec.json.encode({"data": items}).decode()
    assert console.send("POST", f"/app/{APP}/track", body) == 200
    row = console.newest("name = 'N59'")
    request = console.got("GET", f"/api/requests/{row['request_id']}")
    assert len(request["events"]) + request["more_events"] == 60
    assert request["more_events"] > 0
    request = console.got("GET", f"/api/requests/{row['request_id']}?event_id={row['event_id']}")
    (event,) = request["events"]
    assert (event["name"], request["more_events"]) == ("N59", 59)
    assert places(request, event, "name") == ["body /data/59/name"]


def test_vibetrace_in_a_query_and_what_was_rejected(console: Looking) -> None:
    items = [{"type": "login", "email": "jane@example.com", "a": {"b": "c d"}}, 7]
    data = quote(msgspec.json.encode(items))
    assert console.send("GET", f"/event/ACCT123?data={data}&ts=3") == 200
    request, event = shown(console, "dialect = 'vibetrace' AND name = 'login'")
    assert places(request, event, "properties/a/b") == ["parameter data /0/a/b"]
    assert '"b": "c d"' in whole(request["readable"])
    (rejected,) = request["rejected"]
    assert rejected["stored"]
    assert rejected["said"]["code"] == "bad_body"
    assert rejected["said"]["words"] != "bad_body"
    assert rejected["said"]["section"] == "2"


def test_gamooga_and_the_visitor_of_the_answer(console: Looking) -> None:
    target = f"/evwid/?c={COMPANY}&u=cust-9&e=order&ky=price&vl=19.5&tp=n"
    assert console.send("GET", target) == 200
    request, event = shown(console, "dialect = 'gamooga'")
    assert places(request, event, "properties/price") == ["parameter vl", "parameter tp"]
    assert places(request, event, "raw/vid") == ["the answer's visitor id"]


def test_a_compressed_body_is_shown_inflated(console: Looking) -> None:
    body = b'{"action":"a","object":"packed","vendor":"V","product":"P","instance_id":"z"}'
    packed = gzip.compress(body)
    connection = http.client.HTTPConnection("127.0.0.1", console.served.collect_port, timeout=10)
    try:
        connection.request("POST", "/collect/1/1/event", packed, {"Content-Encoding": "gzip"})
        assert connection.getresponse().status == 204
    finally:
        connection.close()
    request, event = shown(console, "name = 'a:packed'")
    assert request["encoding"] == "gzip"
    assert request["body_bytes"] == len(packed)
    assert whole(request["wire"]).endswith(body.decode())
    assert places(request, event, "name") == ["body /action", "body /object"]


def test_a_refused_request_is_shown_with_its_reason(console: Looking) -> None:
    assert console.send("POST", "/collect/1/1/event", '{"action":"x"}') == 400
    console.served.wait_loaded()
    (row,) = console.served.query(
        "SELECT toString(request_id) AS request_id FROM rejected WHERE dialect = 'orbee' "
        "AND reason = 'missing_field'"
    )
    request = console.got("GET", f"/api/requests/{row['request_id']}")
    assert request["refused"]
    assert request["events"] == []
    (rejected,) = request["rejected"]
    assert rejected["stored"]
    assert "instance_id" in rejected["said"]["detail"]


def test_a_hostile_request_in_every_field_is_text_in_json(console: Looking) -> None:
    body = msgspec.json.encode(
        {
            **dict.fromkeys(("action", "object", "vendor", "product", "instance_id"), MARKUP),
            **dict.fromkeys(("label", "email", "dtm", "score", MARKUP), MARKUP),
            "deep": [{MARKUP: [MARKUP, {"\u202e": "\x00\x1b[31m"}]}],
        }
    ).decode()
    headers = {"User-Agent": MARKUP, "Referer": MARKUP, "Origin": MARKUP}
    assert console.send("POST", "/collect/1/1/event", body, headers) == 204
    row = console.newest("startsWith(name, '<img')")
    at = console.got("GET", f"/api/events/{row['event_id']}")["request"]
    assert whole(at["wire"]).endswith(body)
    (event,) = at["events"]
    assert msgspec.json.decode(field(event, "context/user_agent")["value"]) == MARKUP
    assert event["name"] == f"{MARKUP}:{MARKUP}".lower()
    assert event["differs"] == []


def test_another_accounts_request_is_not_there(console: Looking) -> None:
    row = console.newest("account = 'acme'")
    for path in (f"/api/requests/{row['request_id']}", f"/api/events/{row['event_id']}"):
        assert console.ask("GET", path, token=KEPT)[0] == 404
        assert console.ask("GET", path, token=READER)[0] == 200


@pytest.mark.parametrize("what", ["requests", "events"])
def test_what_is_no_id_is_400_and_what_is_nobodys_is_404(console: Looking, what: str) -> None:
    status, said = console.ask("GET", f"/api/{what}/nonsense")
    assert status == 400
    assert said["remedy"]
    assert console.ask("GET", f"/api/{what}/{uuid4()}")[0] == 404


def test_what_the_journal_no_longer_has_is_shown_as_it_is_stored(console: Looking) -> None:
    """As after the journal's retention: the request's files are gone, its rows are there."""
    body = '{"action":"old","object":"one","vendor":"V","product":"P","instance_id":"i-2"}'
    assert console.send("POST", "/collect/1/1/event", body) == 204
    row = console.newest("name = 'old:one'")
    journal = console.served.data / "journal"
    away = console.served.data / "journal-away"
    journal.rename(away)
    try:
        request = console.got("GET", f"/api/requests/{row['request_id']}")
        assert console.ask("GET", f"/api/requests/{row['request_id']}", token=KEPT)[0] == 404
    finally:
        away.rename(journal)
    assert not request["in_journal"]
    assert "no longer keeps" in request["note"]
    (event,) = request["events"]
    assert event["name"] == "old:one"
    assert '"i-2"' in field(event, "properties")["value"]
