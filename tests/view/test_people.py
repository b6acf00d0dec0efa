"""The console's API on people: who is found, what is changed, and by whom."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from headwater.clock import system_clock
from headwater.errors import NotFound, WrongUse
from headwater.store.questions import people as questions
from headwater.view.access import COOKIE, Access, ConsoleToken, Who
from headwater.view.people import Only, PeopleRoutes
from tests.view.running import TOKEN, Running

#: Name to (scope, accounts).
KEPT = {"reader": ("read", ["acme"]), "stranger": ("admin", ["other"])}
TOKENS = [
    ConsoleToken(
        hashlib.sha256(name.encode()).digest(),
        Who(name, admin=scope == "admin", accounts=frozenset(accounts)),
    )
    for name, (scope, accounts) in KEPT.items()
]


class Somebody:
    """Who answers about people: one person, of the account acme."""

    def __init__(self) -> None:
        self.undone: list[str] = []

    def find(self, text: str, account: str = "", only: Only = None) -> dict[str, Any]:
        return {"people": [{"person_id": "p1", "value": text, "account": account}], "more": False}

    def newest(self, account: str = "", only: Only = None) -> dict[str, Any]:
        return {"people": [{"person_id": "p1", "only": sorted(only or ["all"])}], "more": True}

    def show(self, ident: str, only: Only = None, *, history: bool = False) -> dict[str, Any]:
        self.locate(ident, only)
        return {"person_id": ident, "history": [1] if history else None}

    def timeline(
        self,
        ident: str,
        only: Only = None,
        *,
        before: str = "",
        dialect: str = "",
        kind: str = "",
        name: str = "",
    ) -> dict[str, Any]:
        self.locate(ident, only)
        return {"person_id": ident, "asked": [before, dialect, kind, name]}

    def locate(self, ident: str, only: Only = None) -> tuple[str, str]:
        if ident == "nonsense":
            raise WrongUse("that is no id", remedy="find it")
        if ident != "p1" or (only is not None and "acme" not in only):
            raise NotFound(f"no such person: {ident}", remedy="find it")
        return ident, "acme"

    def export(self, ident: str, only: Only = None) -> Iterator[bytes]:
        self.locate(ident, only)
        yield b'{"person":{}}\n'
        time.sleep(0.1)
        yield b'{"end":{}}\n'

    def merges(self, account: str = "", only: Only = None) -> dict[str, Any]:
        return {"merges": [{"account": account}], "more": False}

    def undo(self, merge: str, only: Only = None) -> dict[str, Any]:
        self.locate("p1", only)
        self.undone.append(merge)
        return {"merge_id": merge, "undone_at": "now"}

    def allow(self, merge: str, only: Only = None) -> dict[str, Any]:
        self.locate("p1", only)
        self.undone.remove(merge)
        return {"merge_id": merge, "undone_at": None}


def erase(person: str, account: str, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    progress({"rows": 1})
    time.sleep(0.2)
    return {"person_id": person, "account": account, "rows": 2}


class Asked(Running):
    """A console that knows somebody."""

    def __init__(self) -> None:
        self.people = Somebody()
        super().__init__(PeopleRoutes(self.people, erase).endpoints(), tokens=TOKENS)


@pytest.fixture(scope="module")
def running() -> Iterator[Asked]:
    console = Asked()
    yield console
    console.stop()


def asked(running: Asked, path: str, method: str = "GET") -> tuple[int, Any]:
    status, _, body = running.ask(method, path)
    return status, msgspec.json.decode(body)


def test_people_are_found_shown_and_listed(running: Asked) -> None:
    assert asked(running, "/api/people?find=email:a%2Bb%40c.d&account=acme") == (
        200,
        {
            "people": [{"person_id": "p1", "value": "email:a+b@c.d", "account": "acme"}],
            "more": False,
            "sql": questions.carriers("email:a+b@c.d", "acme"),
        },
    )
    for path in ("/api/people", "/api/people?find=%20"):
        said = asked(running, path)[1]
        assert said["people"] == [{"person_id": "p1", "only": ["all"]}]
        assert said["sql"] == questions.newest()
    shown = {"person_id": "p1", "history": None, "sql": questions.about("p1")}
    assert asked(running, "/api/people/p1") == (200, shown)
    assert asked(running, "/api/people/p1?history=1")[1]["history"] == [1]
    assert asked(running, "/api/merges?account=acme")[1]["merges"] == [{"account": "acme"}]


def test_a_timeline_is_asked_for_a_page_at_a_time(running: Asked) -> None:
    said = asked(running, "/api/people/p1/events?before=AB&dialect=vaix&name=a%20b")[1]
    assert said["asked"] == ["AB", "vaix", "", "a b"]
    assert said["sql"] == questions.timeline("p1", dialect="vaix", name="a b")
    assert asked(running, "/api/people/p1/events?limit=7")[0] == 400, "no such parameter"


def test_a_token_finds_nobody_of_other_accounts_and_reads_only(running: Asked) -> None:
    def as_(name: str, method: str, path: str) -> int:
        return running.ask(method, path, authorization=f"Bearer {name}")[0]

    for path in ("", "/events", "/export"):
        assert as_("reader", "GET", f"/api/people/p1{path}") == 200
        assert as_("stranger", "GET", f"/api/people/p1{path}") == 404
    for path in ("people/p1/erase", "merges/m1/undo", "merges/m1/allow"):
        assert as_("reader", "POST", f"/api/{path}") == 403
        assert as_("stranger", "POST", f"/api/{path}") == 404
    _, _, body = running.ask("GET", "/api/people", authorization="Bearer reader")
    assert msgspec.json.decode(body)["people"][0]["only"] == ["acme"]
    assert running.people.undone == []


@pytest.mark.parametrize("rest", ["", "/events", "/export"])
def test_nobody_is_404_and_no_id_is_400_with_a_remedy(running: Asked, rest: str) -> None:
    for ident, status in (("p2", 404), ("nonsense", 400)):
        got, said = asked(running, f"/api/people/{ident}{rest}")
        assert got == status
        assert said["error"]
        assert said["remedy"] == "find it"


def test_a_merge_is_undone_and_allowed_by_post_only(running: Asked) -> None:
    assert running.ask("GET", "/api/merges/m1/undo")[0] == 405
    assert asked(running, "/api/merges/m1/undo", "POST")[1]["undone_at"] == "now"
    assert running.people.undone == ["m1"]
    assert asked(running, "/api/merges/m1/allow", "POST")[1]["undone_at"] is None
    assert running.people.undone == []


@pytest.mark.parametrize("path", ["/api/merges/m2/undo", "/api/people/p1/erase"])
def test_a_session_changes_people_from_its_own_origin_only(running: Asked, path: str) -> None:
    cookie = f"{COOKIE}={Access(token=TOKEN, hosts=[], clock=system_clock).session()}"
    for origin, status in (("http://evil.example", 403), (f"http://127.0.0.1:{running.port}", 200)):
        got, _, _ = running.ask("POST", path, authorization="", cookie=cookie, origin=origin)
        assert (origin, got) == (origin, status)
    assert running.ask("POST", path, authorization="")[0] == 401


def test_an_export_is_streamed_and_a_few_run_at_once(running: Asked) -> None:
    status, headers, body = running.ask("GET", "/api/people/p1/export")
    assert (status, body.splitlines()) == (200, [b'{"person":{}}', b'{"end":{}}'])
    assert headers["content-type"].startswith("application/x-ndjson")
    assert headers["cache-control"] == "no-store"
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(running.ask("GET", "/api/people/p1/export")[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 503, 503]
    assert running.ask("GET", "/api/people/p1/export")[0] == 200, "a place is free again"


def test_an_export_that_nobody_waits_for_gives_its_place_back(running: Asked) -> None:
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", running.port)) as gone:
            gone.sendall(
                b"GET /api/people/p1/export HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            )
        time.sleep(0.3)
    assert running.ask("GET", "/api/people/p1/export")[0] == 200


def test_an_erasure_streams_its_progress_and_ends_with_the_receipt(running: Asked) -> None:
    status, _, body = running.ask("POST", "/api/people/p1/erase")
    assert status == 200
    assert [msgspec.json.decode(line) for line in body.splitlines()] == [
        {"progress": {"rows": 1}},
        {"result": {"person_id": "p1", "account": "acme", "rows": 2}},
    ]
    assert running.ask("POST", "/api/people/p2/erase")[0] == 404
    assert running.ask("POST", "/api/people/p1/erase")[0] == 200, "a refusal holds no place"
