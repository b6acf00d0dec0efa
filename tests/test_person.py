"""`headwater person` and `/api/people`: real requests in, and what is then known of who it was."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import pytest
from websockets.sync.client import connect

from headwater.resolve.keys import key_id
from headwater.store.rows import uuid_text
from tests.served import HEADWATER, Served
from tests.test_app import ACCOUNTS, COMPANY, TOKEN, send

APP = "app1"
ODD = 'o\'Brien\\ "{}" %41 \x1b[2Jü'
AT = 1_795_226_263_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("person"), ACCOUNTS) as running:
        yield running


def nucleus(served: Served, *events: dict[str, Any]) -> None:
    """A message over the WebSocket, acknowledged; each event a second after the one before."""
    data = [{"type": "event", "sessionId": 4821, "deviceId": "d1", **event} for event in events]
    with connect(served.collect.replace("http", "ws", 1) + f"/app/{APP}/track") as socket:
        socket.send(msgspec.json.encode({"data": data}).decode())
        reply = msgspec.json.decode(socket.recv(10))
    assert reply["reportedIds"] == [event["id"] for event in events]


def vaix(served: Served, user: str, event_type: str = "clicks:event") -> None:
    send(
        served.collect,
        "POST",
        "/api/tracker/events",
        msgspec.json.encode({"user_id": user, "event_type": event_type, "data": {"n": 1}}),
        authorization=f"Bearer {TOKEN}",
        x_vaix_client_id="g1",
    )


def gamooga(served: Served, path: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    status, body = send(served.collect, "GET", f"/{path}/?{urlencode([('c', COMPANY), *pairs])}")
    assert status == 200
    found = msgspec.json.decode(body)
    assert isinstance(found, dict)
    return found


def api(served: Served, method: str, path: str) -> tuple[int, bytes]:
    at = urlsplit(served.console)
    connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=60)
    try:
        connection.request(method, path, headers={"authorization": f"Bearer {served.token()}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def person(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), "person", *arguments, "--config", str(served.config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def found(served: Served, *arguments: str) -> dict[str, Any]:
    done = person(served, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer = msgspec.json.decode(done.stdout)
    assert isinstance(answer, dict)
    return answer


def sought(served: Served, **asked: str) -> list[dict[str, Any]]:
    status, body = api(served, "GET", f"/api/people?{urlencode(asked)}")
    assert status == 200, body
    return msgspec.json.decode(body, type=dict[str, Any])["people"]  # type: ignore[no-any-return]


def key(namespace: str, scope: str, value: str, account: str = "acme") -> str:
    return uuid_text(key_id(account, namespace, scope, value))


Journey = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def late(served: Served) -> dict[str, str]:
    """Late identification (scenario 1) with a profile: anonymous on a browser, then known."""
    nucleus(
        served,
        {
            "type": "init",
            "name": "init",
            "id": 1,
            "date": AT,
            "anonId": "late-a",
            "payload": {"plan": "free", "beta": 1},
        },
        {"name": "CLICK", "id": 2, "date": AT + 1_000, "anonId": "late-a"},
        {
            "name": "OTHER",
            "id": 3,
            "date": AT + 2_000,
            "anonId": "other-a",
            "deviceId": "d9",
            "userId": "late-u",
        },
    )
    served.wait_loaded()
    nucleus(
        served,
        {
            "type": "userid",
            "name": "userid",
            "id": 4,
            "date": AT + 3_000,
            "anonId": "late-a",
            "userId": "late-u",
        },
        {
            "type": "props",
            "name": "props",
            "id": 5,
            "date": AT + 4_000,
            "anonId": "late-a",
            "userId": "late-u",
            "payload": {"plan": "pro", "beta": None},
        },
    )
    served.wait_loaded()
    return {
        "person": key("nucleus:user", APP, "late-u"),
        "anonymous": key("nucleus:anon", APP, "late-a"),
    }


def test_a_person_is_found_by_an_identifier_in_every_way_of_writing_it(
    served: Served, late: dict[str, str]
) -> None:
    for text in ("nucleus:user:late-u", "late-u", "user:late-u", " late-u "):
        (one,) = sought(served, find=text)
        assert one["person_id"] == late["person"], text
        assert (one["account"], one["namespace"], one["scope"]) == ("acme", "nucleus:user", APP)
    assert found(served, "find", "late-u", "--account", "acme")["people"] == [one]
    assert sought(served, find="late-u", account="other") == []
    assert sought(served, find="gamooga:user:late-u") == []
    assert sought(served, find="late-") == [], "no part of one"
    assert "nobody" in person(served, "find", "never-seen").stdout


def test_show_says_who_why_and_since_when(served: Served, late: dict[str, str]) -> None:
    shown = found(served, "show", late["person"], "--history")
    assert (shown["person_id"], shown["account"], shown["events"]) == (late["person"], "acme", 5)
    events = {
        row["name"]: row
        for row in served.query(
            f"SELECT name, event_id, session_id FROM events WHERE person_id = '{late['person']}'"
        )
    }
    identities = {one["value"]: one for one in shown["identities"]}
    assert set(identities) == {"late-u", "late-a", "other-a"}
    assert identities["late-u"]["strength"] == "strong"
    assert identities["late-u"]["asserted_by"] == events["OTHER"]["event_id"]
    assert identities["late-a"]["strength"] == "weak"
    assert identities["late-a"]["scope"] == APP
    assert identities["late-a"]["shared"] is False
    assert identities["late-a"]["asserted_by"] == events["init"]["event_id"]
    assert identities["late-a"]["first_seen"] < identities["late-a"]["last_seen"]
    assert shown["counts"]["sessions"] == len(shown["sessions"]) == 2
    assert {one["session_id"] for one in shown["sessions"]} == {
        row["session_id"] for row in events.values()
    }
    (plan,) = shown["profile"]
    assert (plan["key"], plan["value"]) == ("plan", '"pro"')
    assert plan["event_id"] == events["props"]["event_id"]
    assert [(one["key"], one["value"]) for one in shown["history"]] == [
        ("beta", None),
        ("plan", '"pro"'),
        ("beta", "1"),
        ("plan", '"free"'),
    ]
    (merge,) = shown["merges"]
    assert (merge["kept"], merge["gone"]) == (late["person"], late["anonymous"])
    assert merge["cause"] == events["userid"]["event_id"]
    assert merge["undone_at"] is None
    assert {one["value"] for one in merge["pair"]} == {"late-a", "late-u"}


def test_the_views_say_the_same(served: Served, late: dict[str, str]) -> None:
    shown = found(served, "show", late["person"], "--history")
    where = f"WHERE person_id = '{late['person']}'"
    identities = served.query(f"SELECT * FROM identities {where}")
    columns = set(identities[0]) - {"account", "person_id"}
    assert sorted(identities, key=lambda one: one["value"]) == [
        {"account": "acme", "person_id": late["person"]} | {name: one[name] for name in columns}
        for one in sorted(shown["identities"], key=lambda one: str(one["value"]))
    ]
    history = served.query(f"SELECT key, value, at, event_id, dialect FROM profile_history {where}")
    assert sorted(map(str, history)) == sorted(map(str, shown["history"]))
    (row,) = served.query(f"SELECT first_seen, last_seen, properties FROM people {where}")
    assert (row["first_seen"], row["last_seen"]) == (shown["first_seen"], shown["last_seen"])
    assert row["properties"] == {"plan": "pro"}
    sessions = served.query(
        f"SELECT * EXCEPT (account, person_id) FROM sessions {where} ORDER BY started_at DESC"
    )
    for session in sessions + shown["sessions"]:
        session.pop("over")  # it may end between the two questions
    assert sessions == shown["sessions"]


def whole(served: Served, path: str) -> dict[str, Any]:
    status, body = api(served, "GET", path)
    assert status == 200, body
    return msgspec.json.decode(body, type=dict[str, Any])


def test_what_the_page_shows_is_what_its_sql_says(served: Served, late: dict[str, str]) -> None:
    shown = whole(served, f"/api/people/{late['anonymous']}?history=1")
    for name, key in (("identities", "value"), ("sessions", "session_id"), ("history", "event_id")):
        said = served.query(shown["sql"][name])
        assert said, name
        assert sorted(row[key] for row in said) == sorted(row[key] for row in shown[name]), name
    (row,) = served.query(shown["sql"]["person"])
    assert {name: shown[name] for name in row} == row
    assert [row["merge_id"] for row in served.query(shown["sql"]["merges"])] == [
        row["merge_id"] for row in shown["merges"]
    ]
    newest = whole(served, "/api/people")
    assert served.query(newest["sql"]) == [
        {name: value for name, value in one.items() if name != "identities"}
        for one in newest["people"]
    ]
    assert newest["people"][0]["last_seen"] == max(one["last_seen"] for one in newest["people"])
    (one,) = [one for one in newest["people"] if one["person_id"] == late["person"]]
    assert one["identities"][0] == {"namespace": "nucleus:user", "value": "late-u"}
    assert len(one["identities"]) == 3
    of = whole(served, "/api/people?find=late-u")
    assert [row["person_id"] for row in served.query(of["sql"])] == [late["person"]]


def test_the_timeline_goes_back_page_by_page(
    served: Served, late: dict[str, str], tmp_path: Path
) -> None:
    nucleus(
        served,
        *(
            {"name": f"T{n % 3}", "id": 9_000 + n, "date": AT + n // 4, "userId": "long-u"}
            for n in range(120)
        ),
    )
    vaix(served, "long-u")
    served.wait_loaded()
    person = key("nucleus:user", APP, "long-u")
    path = f"/api/people/{person}/events"
    seen: list[dict[str, Any]] = []
    before, pages = "", 0
    while True:
        page = whole(served, f"{path}?before={before}")
        seen += page["events"]
        pages += 1
        assert bool(page["names"]) == (before == ""), "what to choose from: once"
        before = page["next"]
        if not before:
            break
    assert (pages, len(seen)) == (3, 120)
    expected = served.query(
        f"SELECT event_id FROM events WHERE person_id = '{person}'"
        " ORDER BY occurred_at, received_at, request_id, toInt64(substring(name, 2)) IS NULL"
    )
    assert {row["event_id"] for row in expected} == {row["event_id"] for row in seen}
    assert [one["at"] for one in seen] == sorted((one["at"] for one in seen), reverse=True)
    first = whole(served, path)
    assert [row["event_id"] for row in served.query(first["sql"])][:1]
    assert {(one["name"], one["events"]) for one in first["names"]} == {
        ("T0", 40),
        ("T1", 40),
        ("T2", 40),
    }
    some = whole(served, f"{path}?name=T1&dialect=nucleus&kind=track")
    assert {one["name"] for one in some["events"]} == {"T1"}
    assert (len(some["events"]), some["next"]) == (40, "")
    assert whole(served, f"{path}?dialect=vaix")["events"] == []
    late_line = whole(served, f"/api/people/{late['person']}/events")["events"][-1]
    assert (late_line["name"], late_line["kind"]) == ("init", "session_start")
    assert late_line["session_id"]
    for wrong in ("x", "AB", "0" * 71, "%27"):
        assert api(served, "GET", f"{path}?before={wrong}")[0] == 400


def test_ids_of_events_and_sessions_find_whose_they_are(
    served: Served, late: dict[str, str]
) -> None:
    (event,) = served.query(
        f"SELECT event_id, session_id FROM events WHERE person_id = '{late['person']}'"
        " AND name = 'CLICK'"
    )
    for what, ident in (
        ("person", late["anonymous"]),
        ("event", event["event_id"]),
        ("session", event["session_id"]),
    ):
        (one,) = sought(served, find=f" {ident} ")
        assert (one["namespace"], one["value"], one["person_id"], one["events"]) == (
            what,
            ident,
            late["person"],
            5,
        )
        assert sought(served, find=ident, account="other") == []
    vaix(served, "derived-u")
    served.wait_loaded()
    (row,) = served.query(
        "SELECT session_id, person_id FROM sessions WHERE person_id = "
        f"'{key('vaix:user', 'g1', 'derived-u')}'"
    )
    (one,) = sought(served, find=row["session_id"])
    assert (one["namespace"], one["scope"], one["person_id"]) == (
        "session",
        "vaix",
        row["person_id"],
    )
    assert sought(served, find="00000000-0000-8000-8000-000000000001") == []


def test_every_id_that_was_ever_shown_leads_to_the_person(
    served: Served, late: dict[str, str]
) -> None:
    for ident in (late["anonymous"], key("nucleus:anon", APP, "other-a"), late["person"].upper()):
        shown = found(served, "show", ident)
        assert shown["person_id"] == late["person"]
        assert shown["asked"] == ident
    assert late["anonymous"] in person(served, "show", late["anonymous"]).stdout


def test_nobody_is_an_error_with_a_remedy(served: Served) -> None:
    nobody = "00000000-0000-8000-8000-000000000001"
    for command in ("show", "export"):
        done = person(served, command, nobody)
        assert done.returncode == 1
        assert f"no such person: {nobody}" in done.stderr
        assert "headwater person find" in done.stderr
        assert done.stdout == ""
        done = person(served, command, "jane@example.com")
        assert done.returncode == 2
        assert "is no id of a person" in done.stderr
    done = person(served, "undo", nobody)
    assert done.returncode == 1
    assert "headwater person merges" in done.stderr
    for path in (f"people/{nobody}", f"people/{nobody}/export", f"people/{quote('../x', safe='')}"):
        status, body = api(served, "GET", f"/api/{path}")
        assert status == (404 if nobody in path or "%2F" in path else 400)
        assert b"error" in body or status == 404


def test_odd_identifiers_are_bound_and_cannot_steer_a_terminal(served: Served) -> None:
    vaix(served, ODD)
    served.wait_loaded()
    for text in (ODD, f"vaix:user:{ODD}"):
        (one,) = sought(served, find=text)
        assert one["value"] == ODD
    for probe in ("'", "\\", "{x:String}", "' OR 1 --", "%s", "\\N", "\n", "$x$", "{}"):
        for asked in ({"find": f"a{probe}"}, {"find": ODD, "account": probe}):
            assert sought(served, **asked) == [], asked
    assert found(served, "find", "' OR 1 --", "--account", "\\'")["people"] == []
    for done in (person(served, "find", ODD), person(served, "show", one["person_id"])):
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "\\u001b[2J" in done.stdout


def test_an_email_is_found_however_it_is_written(served: Served) -> None:
    item = {"userId": "vt-1", "sessionId": "s-1", "email": "Jane@Example.com"}
    data = quote(msgspec.json.encode([item]).decode())
    assert send(served.collect, "GET", f"/event/ACCT123/login?data={data}")[0] == 200
    served.wait_loaded()
    ids = set()
    for text in ("email:jane@example.com", "email:JANE@example.com ", "Jane@Example.com"):
        ids |= {one["person_id"] for one in sought(served, find=text)}
    (ident,) = ids
    assert found(served, "show", ident)["events"] == 1


def test_a_shared_identifier_says_so(served: Served) -> None:
    nucleus(
        served,
        {"name": "A", "id": 10, "date": AT, "anonId": "shared-a", "userId": "shared-1"},
        {"name": "B", "id": 11, "date": AT + 1_000, "anonId": "shared-a", "userId": "shared-2"},
        {"name": "C", "id": 12, "date": AT + 2_000, "anonId": "shared-a"},
    )
    served.wait_loaded()
    one = found(served, "show", key("nucleus:user", APP, "shared-1"))
    two = found(served, "show", key("nucleus:user", APP, "shared-2"))
    assert (one["events"], two["events"]) == (1, 2)
    for shown in (one, two):
        shared = {each["value"]: each["shared"] for each in shown["identities"]}
        assert shared["shared-a"] is True
        assert list(shared.values()).count(False) == 1


def test_a_merge_is_undone_and_allowed_again(served: Served) -> None:
    gamooga(served, "ev", ("v", "und-v"), ("e", "seen"), ("tm", str(AT)))
    gamooga(served, "id", ("u", "und-u"), ("v", "und-w"), ("tm", str(AT)))
    served.wait_loaded()
    gamooga(served, "id", ("u", "und-u"), ("v", "und-v"), ("tm", str(AT + 1_000)))
    served.wait_loaded()
    user = key("gamooga:user", COMPANY, "und-u")
    visitor = key("gamooga:visitor", COMPANY, "und-v")

    def people() -> set[str]:
        rows = served.query(
            "SELECT DISTINCT person_id FROM events WHERE dialect = 'gamooga' AND name = 'seen'"
        )
        return {str(row["person_id"]) for row in rows}

    assert people() == {user}
    (merge,) = [one for one in found(served, "merges")["merges"] if one["gone"] == visitor]
    assert merge["kept"] == user

    done = person(served, "undo", merge["merge_id"])
    assert done.returncode == 0, done.stderr
    assert "two people" in done.stdout
    assert people() == {visitor}
    assert found(served, "show", visitor)["person_id"] == visitor
    (undone,) = [one for one in found(served, "merges")["merges"] if one["gone"] == visitor]
    assert undone["undone_at"] is not None
    assert undone["merge_id"] == merge["merge_id"]
    again = found(served, "undo", visitor)
    assert again["undone_at"] == undone["undone_at"], "twice is as good as once"

    gamooga(served, "id", ("u", "und-u"), ("v", "und-v"), ("tm", str(AT + 2_000)))
    served.wait_loaded()
    assert people() == {visitor}, "it stays undone, whoever sends the pair"
    served.run("replay", "--since", "1h")
    assert people() == {visitor}, "after a replay too"

    status, body = api(served, "POST", f"/api/merges/{merge['cause']}/allow")
    assert status == 200
    assert msgspec.json.decode(body)["undone_at"] is None
    assert people() == {user}
    status, body = api(served, "POST", f"/api/merges/{visitor}/undo")
    assert (status, people()) == (200, {visitor})
    assert found(served, "allow", merge["merge_id"])["undone_at"] is None
    assert people() == {user}


def test_an_export_holds_everything_and_nothing_of_anybody_else(served: Served) -> None:
    vaix(served, "export-me-1")
    vaix(served, "export-me-1", "no-such-type")
    vaix(served, "export-me-12")
    vaix(served, "export-me-12", "no-such-type")
    first = {"name": "E", "id": 31, "date": AT, "anonId": "export-a", "deviceId": "export-d"}
    nucleus(served, first)
    nucleus(served, first)  # a copy
    nucleus(served, {"name": "F", "id": 32, "date": AT + 1, "anonId": "export-a"})
    served.wait_loaded()

    def export(ident: str) -> list[dict[str, Any]]:
        done = person(served, "export", ident)
        assert done.returncode == 0, done.stderr
        return [msgspec.json.decode(line) for line in done.stdout.splitlines()]

    def of(lines: list[dict[str, Any]], what: str) -> list[Any]:
        return [line[what] for line in lines if what in line]

    lines = export(key("vaix:user", "g1", "export-me-1"))
    text = str(lines)
    assert "person" in lines[0]
    assert "end" in lines[-1]
    assert lines[-1]["end"] == {"person": 1, "identity": 1, "session": 1, "event": 1} | {
        "rejected": 1,
        "request": 2,
    }
    assert "export-me-12" not in text
    (event,) = of(lines, "event")
    (row,) = served.query(
        f"SELECT event_id, session_id FROM events WHERE event_id = '{event['event_id']}'"
    )
    assert event["session_id"] == row["session_id"]
    assert event["properties"]
    assert event["context"]["ip"] == "127.0.0.1"
    (rejected,) = of(lines, "rejected")
    assert rejected["reason"] == "unknown_event_type"
    assert all("export-me-1" in one["request"] for one in of(lines, "request"))
    assert all(one["request"].startswith("POST /api/tracker") for one in of(lines, "request"))

    lines = export(key("nucleus:anon", APP, "export-a"))
    assert len(of(lines, "event")) == 2
    requests = [one["request"] for one in of(lines, "request")]
    assert sum('"id":31' in one for one in requests) == 2, "the copy is held too"
    assert sum('"id":32' in one for one in requests) == 1
    assert all("export-a" in one for one in requests), requests
    status, body = api(served, "GET", f"/api/people/{key('nucleus:anon', APP, 'export-a')}/export")
    assert status == 200
    again = [msgspec.json.decode(line) for line in body.splitlines()]
    for session in of(again, "session") + of(lines, "session"):
        session.pop("over")  # it ends meanwhile
    assert again == lines


def test_an_export_to_a_file_is_its_owners_alone(served: Served, tmp_path: Path) -> None:
    vaix(served, "file-1")
    served.wait_loaded()
    ident = key("vaix:user", "g1", "file-1")
    file = tmp_path / "one.jsonl"
    done = person(served, "export", ident, "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert f"lines in {file}" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().splitlines()[-1].startswith('{"end":')
    nowhere = tmp_path / "no" / "such"
    done = person(served, "export", ident, "-o", str(nowhere))
    assert done.returncode == 1
    assert "a file that can be written" in done.stderr
    assert person(served, "export", key("email", "", "no@b.c"), "-o", str(nowhere)).returncode == 1
    assert sorted(tmp_path.iterdir()) == [file], "nothing half-written is left"


def test_tables_show_every_part(served: Served, late: dict[str, str]) -> None:
    done = person(served, "show", late["person"], "--history")
    for part in ("Person", "Identities", "Sessions", "Profile", "as it came to be", "Merges"):
        assert part in done.stdout
    assert re.search(r"joined by.*nucleus:anon late-a and nucleus:user late-u", done.stdout)
    for ident in (late["person"], late["anonymous"]):
        assert ident in done.stdout, "whole, to be copied"
    done = person(served, "merges", "--account", "nobody")
    assert done.stdout.strip() == "no merges"


def test_it_all_works_without_a_server(tmp_path: Path) -> None:
    with Served(tmp_path, ACCOUNTS) as served:
        nucleus(
            served,
            {"name": "A", "id": 1, "date": AT, "anonId": "a"},
            {"name": "B", "id": 2, "date": AT + 1_000, "anonId": "b", "userId": "u"},
        )
        served.wait_loaded()
        nucleus(served, {"name": "C", "id": 3, "date": AT + 2_000, "anonId": "a", "userId": "u"})
        served.wait_loaded()
    user, visitor = key("nucleus:user", APP, "u"), key("nucleus:anon", APP, "a")
    assert found(served, "show", visitor)["person_id"] == user
    lines = person(served, "export", user).stdout.splitlines()
    assert msgspec.json.decode(lines[-1])["end"]["event"] == 3
    merge = found(served, "undo", visitor)
    assert (merge["gone"], merge["undone_at"] is not None) == (visitor, True)
    assert found(served, "show", visitor)["events"] == 1
    assert found(served, "allow", visitor)["undone_at"] is None
