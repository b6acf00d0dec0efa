"""The console's API on people: who is found, what is changed, and by whom."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from headwater.clock import system_clock
from headwater.errors import NotFound, WrongUse
from headwater.view.access import COOKIE, Access
from headwater.view.people import PeopleRoutes
from tests.view.running import TOKEN, Running


class Somebody:
    """Who answers about people."""

    def __init__(self) -> None:
        self.undone: list[str] = []

    def find(self, text: str, account: str = "") -> dict[str, Any]:
        return {"people": [{"person_id": "p1", "value": text, "account": account}], "more": False}

    def show(self, ident: str, *, history: bool = False) -> dict[str, Any]:
        self.locate(ident)
        return {"person_id": ident, "history": [1] if history else None}

    def locate(self, ident: str) -> tuple[str, str]:
        if ident == "nonsense":
            raise WrongUse("that is no id", remedy="find it")
        if ident != "p1":
            raise NotFound(f"no such person: {ident}", remedy="find it")
        return ident, "acme"

    def export(self, ident: str) -> Iterator[bytes]:
        self.locate(ident)
        yield b'{"person":{}}\n'
        time.sleep(0.1)
        yield b'{"end":{}}\n'

    def merges(self, account: str = "") -> dict[str, Any]:
        return {"merges": [{"account": account}], "more": False}

    def undo(self, merge: str) -> dict[str, Any]:
        self.undone.append(merge)
        return {"merge_id": merge, "undone_at": "now"}

    def allow(self, merge: str) -> dict[str, Any]:
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
        super().__init__(PeopleRoutes(self.people, erase).endpoints())


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
        },
    )
    assert asked(running, "/api/people/p1") == (200, {"person_id": "p1", "history": None})
    assert asked(running, "/api/people/p1?history=1")[1]["history"] == [1]
    assert asked(running, "/api/merges?account=acme")[1]["merges"] == [{"account": "acme"}]


@pytest.mark.parametrize("rest", ["", "/export"])
def test_nobody_is_404_and_no_id_is_400_with_a_remedy(running: Asked, rest: str) -> None:
    for ident, status in (("p2", 404), ("nonsense", 400)):
        got, said = asked(running, f"/api/people/{ident}{rest}")
        assert got == status
        assert said["error"]
        assert said["remedy"] == "find it"
    assert asked(running, "/api/people")[0] == 400


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
