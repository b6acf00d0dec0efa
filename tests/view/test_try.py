"""Trying a request: dry and for real, in every dialect, through a real server."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from headwater import limits
from headwater.config import (
    Account,
    GamoogaAccount,
    NucleusAccount,
    OrbeeAccount,
    VaixAccount,
    VibetraceAccount,
)
from headwater.errors import WrongUse
from headwater.try_examples import changes, curl, examples
from headwater.try_sending import check_head, clean_target
from tests.view.looking import APP, COMPANY, KEPT, READER, VAIX, Looking, field, looking, places

DOCS = Path(__file__).parents[2] / "docs"
EVERY = examples(
    Account(
        name="acme",
        vaix=VaixAccount(tokens=()),
        orbee=OrbeeAccount(trackers=("1/1",)),
        nucleus=NucleusAccount(apps=(APP,)),
        vibetrace=VibetraceAccount(accounts=("ACCT123",)),
        gamooga=GamoogaAccount(companies=(COMPANY,)),
    ),
    1_795_226_263_000_000,
)
#: Those that are there to be refused.
REFUSED = {"An event type of another form": 422, "Something is missing": 400}


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looking]:
    with looking(tmp_path_factory.mktemp("try")) as server:
        yield server


def attempt(example: dict[str, Any], mode: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": mode,
        "token": VAIX,
        **{name: example[name] for name in ("method", "target", "transport", "headers", "body")},
        **more,
    }


@pytest.mark.parametrize("example", EVERY, ids=lambda one: f"{one.dialect}-{one.title}")
def test_every_example_does_what_it_says_dry_and_sent(console: Looking, example: Any) -> None:
    offered = console.got("GET", f"/api/try/examples?dialect={example.dialect}&account=acme")
    (given,) = [one for one in offered["examples"] if one["title"] == example.title]
    assert given["account"] == "acme"
    dry = console.got("POST", "/api/try", attempt(given, "dry"))
    sent = console.got("POST", "/api/try", attempt(given, "send"))
    for found in (dry, sent):
        assert found["account"] == "acme"
        assert found["dialect"] == found["request"]["dialect"] == example.dialect
        assert VAIX not in msgspec.json.encode(found).decode()
    assert (dry["status"], dry["reason"]) == (sent["status"], sent["reason"])
    if "vid" not in sent["body"]:
        assert dry["body"] == sent["body"]
    rejected = [one["said"] for one in sent["request"]["rejected"]]
    assert [one["said"] for one in dry["request"]["rejected"]] == rejected
    if example.title in REFUSED:
        assert sent["status"] == REFUSED[example.title]
        assert sent["request"]["events"] == dry["request"]["events"] == []
        assert len(rejected) == 1
        return
    assert sent["status"] in ((101,) if example.transport == "websocket" else (200, 204))
    assert sent["request"]["events"]
    for one, other in zip(dry["request"]["events"], sent["request"]["events"], strict=True):
        assert (one["status"], other["status"]) == ("dry run", "stored")
        for name in ("kind", "name", "scope", "issues"):
            assert one[name] == other[name]
        assert other["differs"] == []
        assert all(
            each["came_from"] or each["decided_by"] or each["rule"]
            for each in one["fields"] + other["fields"]
        )


def test_a_dry_run_leaves_nothing_behind(console: Looking) -> None:
    before = console.served.wait_loaded()
    body = '{"action":"dry","object":"run","vendor":"V","product":"P","instance_id":"never-kept"}'
    found = console.got(
        "POST",
        "/api/try",
        {"method": "POST", "target": "/collect/1/1/event", "headers": {}, "body": body},
    )
    assert found["status"] == 204
    (event,) = found["request"]["events"]
    assert places(found["request"], event, "name") == ["body /action", "body /object"]
    assert console.served.wait_loaded() == before


def test_it_says_who_carries_an_identifier_today(console: Looking) -> None:
    target = f"/evwid/?c={COMPANY}&u=cust-known&e=first"
    tried = {"method": "GET", "target": target, "headers": {}}
    (new,) = console.got("POST", "/api/try", tried)["attribution"]
    assert new["person_id"] is None
    assert "new person" in new["words"]
    sent = console.got("POST", "/api/try", {**tried, "mode": "send"})
    (event,) = sent["request"]["events"]
    assert event["person_id"]
    again = console.got("POST", "/api/try", tried)
    known = [one for one in again["attribution"] if one["namespace"] == "gamooga:user"]
    assert [one["person_id"] for one in known] == [event["person_id"]]
    assert msgspec.json.decode(again["body"])["vid"] == msgspec.json.decode(sent["body"])["vid"]
    nobody = console.got(
        "POST", "/api/try", {**tried, "target": f"/evwid/?c={COMPANY}&u=null&e=first"}
    )
    assert [one["words"] for one in nobody["attribution"]] == [
        "a value that means nobody: kept, and it identifies nobody"
    ]


@pytest.mark.parametrize("mode", ["dry", "send"])
def test_what_nobody_answers_is_said(console: Looking, mode: str) -> None:
    for method, target, status in (
        ("POST", "/collect/9/9/event", 404),
        ("POST", "/no/such/path", 404),
        ("PUT", "/collect/1/1/event", 405),
        ("POST", "/api/tracker/events", 401),
    ):
        found = console.got(
            "POST",
            "/api/try",
            {"mode": mode, "method": method, "target": target, "headers": {}, "body": "{}"},
        )
        assert (found["status"], found["request"]) == (status, None), target
        if status in (401, 404):
            assert found["note"]


def test_trying_takes_an_admin(console: Looking) -> None:
    tried = {"method": "POST", "target": "/collect/2/2/event", "headers": {}, "body": "{}"}
    for token in (READER, KEPT):
        assert console.ask("POST", "/api/try", tried, token=token)[0] == 403
    offered = console.ask("GET", "/api/try/examples", token=KEPT)[1]
    assert {one["account"] for one in offered["examples"]} == {"other"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"target": "http://192.0.2.1/collect/1/1/event"}, "path"),
        ({"target": "@192.0.2.1/x"}, "path"),
        ({"headers": {"content-length": "5"}}, "content-length"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "Transfer-Encoding"),
        ({"headers": {"x": "a\r\nhost: elsewhere"}}, "control"),
        ({"headers": {"a b": "c"}}, "header"),
        ({"method": "GET / HTTP/1.1\r\nx:"}, "method"),
        ({"mode": "dry-ish"}, "mode"),
        ({"host": "192.0.2.1"}, "host"),
    ],
)
def test_nothing_but_a_request_to_this_collector_is_sent(
    console: Looking, wrong: dict[str, Any], words: str
) -> None:
    tried = {
        "mode": "send",
        "method": "POST",
        "target": "/collect/1/1/event",
        "headers": {},
        "body": "{}",
        **wrong,
    }
    status, said = console.ask("POST", "/api/try", tried)
    assert status == 400
    assert words in said["error"]


def test_an_address_in_the_target_stays_a_path(console: Looking) -> None:
    for target in ("//192.0.2.1/collect/1/1/event", "/http://192.0.2.1/", "/\\192.0.2.1", "/a b#c"):
        found = console.got(
            "POST",
            "/api/try",
            {"mode": "send", "method": "POST", "target": target, "headers": {}, "body": "{}"},
        )
        assert found["status"] == 404


def test_the_api_describes_what_it_gives(console: Looking) -> None:
    described = console.got("GET", "/api/openapi.json")
    for path in ("/api/try", "/api/try/examples", "/api/requests/{request_id}"):
        assert path in described["paths"]
    assert described["paths"]["/api/try"]["post"]["security"][0] == {"token": ["admin"]}
    shown = described["components"]["schemas"]["RequestShown"]["properties"]
    assert {"wire", "leaves", "events", "rejected"} <= set(shown)


def test_a_target_is_cleaned_and_kept() -> None:
    assert clean_target("/a b?x=[1]&y=é#z%20") == "/a%20b?x=[1]&y=%C3%A9%23z%20"
    with pytest.raises(WrongUse):
        clean_target("")
    with pytest.raises(WrongUse):
        check_head("GET", {f"h{n}": "" for n in range(limits.header_count_max + 1)})


def test_a_hostile_body_comes_back_as_text(console: Looking) -> None:
    markup = "</script><img src=x onerror=alert(1)>"
    target = f"/event/ACCT123/{quote(markup, safe='')}?data=" + quote(
        msgspec.json.encode([{"type": markup, markup: markup}])
    )
    found = console.got(
        "POST", "/api/try", {"method": "GET", "target": target, "headers": {"referer": markup}}
    )
    (event,) = found["request"]["events"]
    assert event["name"] == markup
    path = f"properties/{markup.replace('/', '~1')}"
    assert msgspec.json.decode(field(event, path)["value"]) == markup


# --- the curl line, and the change ---------------------------------------------------------------


def ran(line: str, tmp_path: Path) -> list[str]:
    """The arguments that a shell hands to the program, which is replaced by one that prints."""
    program = tmp_path / "curl"
    program.write_text('#!/bin/sh\nfor one in "$@"; do printf "%s\\0" "$one"; done\n')
    program.chmod(0o700)
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TOKEN": "the token"},
        capture_output=True,
        check=True,
        timeout=10,
        cwd=tmp_path,
    )
    return done.stdout.decode().split("\0")[:-1]


HOSTILE = "'; touch pwned; $(touch pwned) `touch pwned` \" \\ \n@/etc/passwd *"


def test_the_curl_line_hands_over_what_was_written_and_runs_nothing(tmp_path: Path) -> None:
    line = curl(
        "http://127.0.0.1:8080",
        "POST",
        f"/x?y={quote(HOSTILE, safe='')}[1]",
        {"authorization": "Bearer secret", "x-odd": HOSTILE.replace("\n", " ")},
        "@" + HOSTILE,
        websocket=False,
    )
    assert "secret" not in line
    arguments = ran(line, tmp_path)
    assert not (tmp_path / "pwned").exists()
    assert arguments[-1] == "@" + HOSTILE
    assert arguments[-2] == "--data-raw"
    assert "authorization: Bearer the token" in arguments
    assert f"x-odd: {HOSTILE.replace(chr(10), ' ')}" in arguments


def test_the_line_for_a_websocket_quotes_as_well() -> None:
    line = curl(
        "http://127.0.0.1:8080", "GET", "/app/x/track", {}, f'{{"a":"{HOSTILE}"}}', websocket=True
    )
    words = shlex.split(line.replace("\\\n", " "), posix=True)
    assert words[:3] == ["printf", "%s", f'{{"a":"{HOSTILE}"}}']
    assert words[-1] == "ws://127.0.0.1:8080/app/x/track"


def test_the_changes_are_those_of_the_documentation(console: Looking) -> None:
    offered = console.got("GET", "/api/try/examples")
    assert offered["collector"] == console.served.collect
    assert {one["dialect"] for one in offered["changes"]} == {
        *("vaix", "orbee", "nucleus", "vibetrace", "gamooga")
    }
    for one in changes("http://127.0.0.1:1", "events.example.com"):
        path, _, anchor = one.page.partition("#")
        page = (DOCS.parent / path).read_text()
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert anchor in {text.lower().replace(" ", "-") for text in headings}
        for old in one.old:
            assert old.partition("://")[2] in page, old
        assert "events.example.com" in one.new
