"""The console's API over a real socket: who may ask, what is answered, and what is bounded."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvicorn

from headwater.clock import system_clock
from headwater.errors import NotFound, QueryRefused, StoreError, WrongUse
from headwater.view.access import COOKIE, SESSION_SECONDS, Access
from headwater.view.console import Console, ReplayOrder
from headwater.view.live import Feed

TOKEN = "console-token-for-this-test"


class Row(msgspec.Struct):
    """A row of the feed."""

    account: str = "acme"
    dialect: str = "vaix"
    name: str = "clicks:event"
    status: str = "stored"


def query(sql: str, form: str) -> bytes:
    if "insert" in sql:
        raise QueryRefused("only SELECT", remedy="ask a question")
    if "down" in sql:
        raise StoreError("the store does not answer", remedy="see its log")
    if "slow" in sql:
        time.sleep(0.3)
    assert form == "JSONCompactEachRowWithNamesAndTypes"
    return b'["sql"]\n["String"]\n["%b"]\n' % sql.encode()


def replay(order: ReplayOrder, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    progress({"requests": 1})
    if order.since == -1:
        raise StoreError("no room", remedy="make some")
    time.sleep(0.2)
    return {"requests": 2}


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


class Running:
    """A console on a free port."""

    def __init__(self) -> None:
        self.reason = ""
        self.people = Somebody()
        self.feed: Feed
        self._started = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.feed = Feed(loop, encode=msgspec.json.encode)
        console = Console(
            access=Access(token=TOKEN, hosts=["headwater.internal"], clock=system_clock),
            query=query,
            replay=replay,
            backup=lambda: {"loaded": {"0": 7}},
            people=self.people,
            erase=erase,
            metrics=lambda: b"headwater_up 1\n",
            ready=lambda: self.reason,
            feed=self.feed,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(console.app(), log_level="warning", lifespan="off")
        )
        task = loop.create_task(self._server.serve([self._socket]))
        while not self._server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        self._started.set()
        await task

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; the token goes along unless `authorization` says otherwise."""
        sent = {"authorization": f"Bearer {TOKEN}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        data = body if isinstance(body, bytes) else msgspec.json.encode(body) if body else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    console = Running()
    yield console
    console.stop()


def test_health_and_metrics_need_no_token(running: Running) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert running.ask("GET", path, authorization="")[0] == 200


def test_readiness_gives_the_reason_why_not(running: Running) -> None:
    running.reason = "the loader stands still"
    try:
        status, _, body = running.ask("GET", "/readyz")
    finally:
        running.reason = ""
    assert (status, body) == (503, b"the loader stands still\n")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/query",
        "/api/live",
        "/api/replay",
        "/api/people?find=x",
        "/api/people/p1",
        "/api/people/p1/export",
        "/api/merges",
        "/nothing",
    ],
)
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic Zm9v", "Bearer"])
def test_everything_else_needs_the_token(running: Running, path: str, authorization: str) -> None:
    status, headers, _ = running.ask("GET", path, authorization=authorization)
    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8081", 200),
        ("localhost", 200),
        ("[::1]:8081", 200),
        ("headwater.internal:8081", 200),
        ("HEADWATER.internal", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("user@evil.example", 421),
    ],
)
def test_the_console_answers_to_its_own_names_only(
    running: Running, host: str, status: int
) -> None:
    assert running.ask("GET", "/healthz", host=host)[0] == status


def test_a_query_is_answered_in_the_format_that_was_asked_for(running: Running) -> None:
    status, headers, body = running.ask("POST", "/api/query", {"sql": "select 1"})
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert msgspec.json.decode(body) == {
        "columns": ["sql"],
        "types": ["String"],
        "rows": [["select 1"]],
    }
    _, _, body = running.ask("POST", "/api/query", {"sql": "select 1", "format": "csv"})
    assert body == b"sql\r\nselect 1\r\n"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"nonsense", 400, "JSON"),
        ({"sql": 3}, 400, "Expected `str`"),
        ({"sql": "x", "format": "xml"}, 400, 'unknown format "xml"'),
        ({"sql": "x", "fromat": "csv"}, 400, "fromat"),
        ({"sql": "insert"}, 400, "only SELECT"),
        ({"sql": "down"}, 503, "does not answer"),
        ({"sql": "x" * 70_000}, 413, "longer than"),
    ],
)
def test_a_query_that_is_refused_says_why_and_what_to_do(
    running: Running, body: object, status: int, said: str
) -> None:
    got, _, answer = running.ask("POST", "/api/query", body)
    error = msgspec.json.decode(answer)
    assert got == status
    assert said in error["error"]
    assert error["remedy"]


def test_too_many_queries_at_once_are_told_to_come_back(running: Running) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(running.ask("POST", "/api/query", {"sql": "slow"})[0])

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 16


def test_the_token_in_the_url_becomes_a_session_that_the_page_cannot_read(
    running: Running,
) -> None:
    status, headers, _ = running.ask("GET", f"/?token={TOKEN}", authorization="")
    assert status == 303
    assert headers["location"] == "/"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert running.ask("GET", "/", authorization="", cookie=pair)[0] == 200
    assert running.ask("GET", "/?token=wrong", authorization="")[0] == 401


def test_a_session_may_ask_from_its_own_origin_and_from_no_other(running: Running) -> None:
    cookie = f"{COOKIE}={Access(token=TOKEN, hosts=[], clock=system_clock).session()}"
    own = f"127.0.0.1:{running.port}"
    question = {"sql": "select 1"}
    for headers, status in (
        ({"origin": f"http://{own}"}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({}, 403),
    ):
        got, _, _ = running.ask(
            "POST", "/api/query", question, authorization="", cookie=cookie, host=own, **headers
        )
        assert (headers, got) == (headers, status)


def test_a_session_ends_and_cannot_be_made_without_the_token() -> None:
    now = system_clock()
    made = Access(token=TOKEN, hosts=[], clock=lambda: now).session()
    assert Access(token=TOKEN, hosts=[], clock=lambda: now).session_right(made)
    later = now + (SESSION_SECONDS + 1) * 1_000_000
    assert not Access(token=TOKEN, hosts=[], clock=lambda: later).session_right(made)
    assert not Access(token="other", hosts=[], clock=lambda: now).session_right(made)
    until, _, signature = made.partition(".")
    longer = f"{int(until) + 1}.{signature}"
    assert not Access(token=TOKEN, hosts=[], clock=lambda: now).session_right(longer)
    for nonsense in ("", ".", "x.y", "²." + signature, f"{until}.é"):
        assert not Access(token=TOKEN, hosts=[], clock=lambda: now).session_right(nonsense)


def test_the_live_feed_streams_rows_that_pass_the_filter(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request(
        "GET", "/api/live?status=rejected", headers={"authorization": f"Bearer {TOKEN}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    assert answer.readline().startswith(b":")
    running.feed.publish([Row(), Row(status="rejected")])
    while not (line := answer.readline()).startswith(b"data: "):
        assert line in (b"\n",)
    assert msgspec.json.decode(line[6:], type=Row) == Row(status="rejected")
    answer.close()
    connection.close()


@pytest.mark.parametrize("asked", ["nmae=x", "status=lost"])
def test_an_unknown_filter_is_refused(running: Running, asked: str) -> None:
    assert running.ask("GET", f"/api/live?{asked}")[0] == 400


def test_a_replay_streams_its_progress_and_ends_with_its_result(running: Running) -> None:
    status, _, body = running.ask("POST", "/api/replay", {"since": 0})
    assert status == 200
    assert [msgspec.json.decode(line) for line in body.splitlines()] == [
        {"progress": {"requests": 1}},
        {"result": {"requests": 2}},
    ]


def test_a_replay_that_fails_ends_with_the_reason(running: Running) -> None:
    _, _, body = running.ask("POST", "/api/replay", {"since": -1})
    assert msgspec.json.decode(body.splitlines()[-1]) == {
        "error": "no room",
        "remedy": "make some",
    }


def test_a_replay_of_nothing_in_particular_is_refused(running: Running) -> None:
    assert running.ask("POST", "/api/replay", {})[0] == 400
    assert running.ask("POST", "/api/replay", b"{")[0] == 400
    assert running.ask("POST", "/api/replay", {"request_id": "no uuid"})[0] == 400


def test_one_replay_runs_at_a_time(running: Running) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(running.ask("POST", "/api/replay", {"since": 0})[0])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]


# --- people --------------------------------------------------------------------------------------


def asked(running: Running, path: str, method: str = "GET") -> tuple[int, Any]:
    status, _, body = running.ask(method, path)
    return status, msgspec.json.decode(body)


def test_people_are_found_shown_and_listed(running: Running) -> None:
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
def test_nobody_is_404_and_no_id_is_400_with_a_remedy(running: Running, rest: str) -> None:
    for ident, status in (("p2", 404), ("nonsense", 400)):
        got, said = asked(running, f"/api/people/{ident}{rest}")
        assert got == status
        assert said["error"]
        assert said["remedy"] == "find it"
    assert asked(running, "/api/people")[0] == 400


def test_a_merge_is_undone_and_allowed_by_post_only(running: Running) -> None:
    assert running.ask("GET", "/api/merges/m1/undo")[0] == 405
    assert asked(running, "/api/merges/m1/undo", "POST")[1]["undone_at"] == "now"
    assert running.people.undone == ["m1"]
    assert asked(running, "/api/merges/m1/allow", "POST")[1]["undone_at"] is None
    assert running.people.undone == []


@pytest.mark.parametrize("path", ["/api/merges/m2/undo", "/api/people/p1/erase"])
def test_a_session_changes_people_from_its_own_origin_only(running: Running, path: str) -> None:
    cookie = f"{COOKIE}={Access(token=TOKEN, hosts=[], clock=system_clock).session()}"
    for origin, status in (("http://evil.example", 403), (f"http://127.0.0.1:{running.port}", 200)):
        got, _, _ = running.ask("POST", path, authorization="", cookie=cookie, origin=origin)
        assert (origin, got) == (origin, status)
    assert running.ask("POST", path, authorization="")[0] == 401


def test_an_export_is_streamed_and_a_few_run_at_once(running: Running) -> None:
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


def test_an_export_that_nobody_waits_for_gives_its_place_back(running: Running) -> None:
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", running.port)) as gone:
            gone.sendall(
                b"GET /api/people/p1/export HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            )
        time.sleep(0.3)
    assert running.ask("GET", "/api/people/p1/export")[0] == 200


def test_an_erasure_streams_its_progress_and_ends_with_the_receipt(running: Running) -> None:
    status, _, body = running.ask("POST", "/api/people/p1/erase")
    assert status == 200
    assert [msgspec.json.decode(line) for line in body.splitlines()] == [
        {"progress": {"rows": 1}},
        {"result": {"person_id": "p1", "account": "acme", "rows": 2}},
    ]
    assert running.ask("POST", "/api/people/p2/erase")[0] == 404
    assert running.ask("POST", "/api/people/p1/erase")[0] == 200, "a refusal holds no place"
