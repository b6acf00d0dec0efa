"""The console over a real socket: who may ask, what is answered, and what is bounded."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import re
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import msgspec
import pytest

from headwater.clock import system_clock
from headwater.errors import QueryRefused, StoreError
from headwater.view.access import COOKIE, OWNER, SESSION_SECONDS, Access, ConsoleToken, Who
from headwater.view.pages import PAGES
from headwater.view.sql import SqlRoutes
from tests.view.batches import Row, Rows
from tests.view.running import TOKEN, Running

READER, KEPT, ADMIN = "reader-token", "kept-to-acme-token", "admin-token"
TOKENS = [
    ConsoleToken(hashlib.sha256(token.encode()).digest(), who)
    for token, who in (
        (READER, Who("reader", admin=False)),
        (KEPT, Who("kept", admin=False, accounts=frozenset({"acme"}))),
        (ADMIN, Who("second", admin=True)),
    )
]


def query(sql: str, form: str, who: Who) -> bytes:
    if "insert" in sql:
        raise QueryRefused("only SELECT", remedy="ask a question")
    if "down" in sql:
        raise StoreError("the store does not answer", remedy="see its log")
    if "slow" in sql:
        time.sleep(0.3)
    assert form == "JSONCompactEachRowWithNamesAndTypes"
    if "whose" in sql:
        sql = ",".join(sorted(who.accounts)) if who.accounts is not None else "all"
    return b'["sql"]\n["String"]\n["%b"]\n' % sql.encode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    sql = SqlRoutes(
        query=query,
        tables=lambda: {"events": [("event_id", "UUID")]},
        folder=tmp_path_factory.mktemp("data") / "queries",
    )
    console = Running(sql.endpoints(), TOKENS)
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
        "/api/openapi.json",
        "/api/queries",
        "/explore",
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

    def access(token: str = TOKEN, *, at: int = now) -> Access:
        return Access(token=token, hosts=[], clock=lambda: at, tokens=TOKENS)

    made = access().session()
    assert access().session_of(made) == OWNER
    assert access(at=now + (SESSION_SECONDS + 1) * 1_000_000).session_of(made) is None
    assert access("other").session_of(made) is None
    until, _, signature = made.partition(".")
    longer = f"{int(until) + 1}.{signature}"
    assert access().session_of(longer) is None
    for nonsense in ("", ".", "x.y", "²." + signature, f"{until}.é", f"{made}second", made[:-2]):
        assert access().session_of(nonsense) is None


def test_a_session_is_its_tokens_and_ends_with_it() -> None:
    access = Access(token=TOKEN, hosts=[], clock=system_clock, tokens=TOKENS)
    made = access.session(TOKENS[0].who)
    assert access.session_of(made) == TOKENS[0].who
    assert access.session_of(made.replace("reader", "second")) is None
    replaced = ConsoleToken(hashlib.sha256(b"another").digest(), TOKENS[0].who)
    access.use(hosts=[], tokens=[replaced])
    assert access.session_of(made) is None
    access.use(hosts=[], tokens=[])
    assert access.session_of(made) is None
    assert access.who_has(READER) is None


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_reader_changes_nothing(running: Running) -> None:
    for method, path, body in (
        ("POST", "/api/replay", {"since": 0}),
        ("POST", "/api/backup", None),
        ("PUT", "/api/queries/x", {"sql": "select 1"}),
        ("DELETE", "/api/queries/x", None),
    ):
        status, _, said = running.ask(method, path, body, **bearer(READER))
        assert (path, status) == (path, 403)
        assert b"admin" in said
    assert running.ask("POST", "/api/query", {"sql": "select 1"}, **bearer(READER))[0] == 200
    assert running.ask("POST", "/api/backup", **bearer(ADMIN))[0] == 200


def test_a_token_of_one_account_asks_about_that_account(running: Running) -> None:
    for token, seen in ((KEPT, "acme"), (READER, "all"), (TOKEN, "all")):
        for method, path, body in (
            ("POST", "/api/query", {"sql": "whose"}),
            ("GET", "/api/query?sql=whose", None),
        ):
            _, _, answer = running.ask(method, path, body, **bearer(token))
            assert msgspec.json.decode(answer)["rows"] == [[seen]]
    page = running.ask("GET", "/", **bearer(KEPT))[2]
    assert b"acme" in page
    assert b"other" not in page
    assert b"other" in running.ask("GET", "/")[2]


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def test_a_browser_without_a_session_is_asked_for_a_token(running: Running) -> None:
    own = {"origin": f"http://127.0.0.1:{running.port}", "authorization": ""}
    status, headers, _ = running.ask(
        "GET", "/explore?by=name", authorization="", accept="text/html"
    )
    assert (status, headers["location"]) == (303, "/login?next=/explore%3Fby%3Dname")
    status, headers, page = running.ask("GET", headers["location"], authorization="")
    assert status == 200
    assert b'name="next" value="/explore?by=name"' in page
    status, headers, page = running.ask("POST", "/login", form(token="wrong", next="/sql"), **own)
    assert (status, "set-cookie" in headers) == (401, False)
    assert b"not a token" in page
    status, headers, _ = running.ask("POST", "/login", form(token=READER, next="/sql"), **own)
    assert (status, headers["location"]) == (303, "/sql")
    cookie = headers["set-cookie"].partition(";")[0]
    assert running.ask("GET", "/sql", authorization="", cookie=cookie)[0] == 200
    status, headers, _ = running.ask("POST", "/logout", cookie=cookie, **own)
    assert status == 303
    assert 'headwater_session=""' in headers["set-cookie"]


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", ""]
)
def test_a_login_leads_nowhere_else(running: Running, onward: str) -> None:
    own = {"origin": f"http://127.0.0.1:{running.port}", "authorization": ""}
    _, headers, _ = running.ask("POST", "/login", form(token=TOKEN, next=onward), **own)
    assert headers["location"] == "/"


def test_nobody_signs_a_browser_in_from_another_site(running: Running) -> None:
    for headers in ({"origin": "http://evil.example"}, {}):
        sent = {"authorization": "", **headers}
        assert running.ask("POST", "/login", form(token=TOKEN, next="/"), **sent)[0] == 403


def test_every_answer_carries_the_headers_that_keep_a_page_to_itself(running: Running) -> None:
    for path in ("/", "/login", "/static/frame.js", "/api/openapi.json", "/nothing", "/healthz"):
        _, headers, _ = running.ask("GET", path)
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_every_page_there_is_answers_with_its_own_script(running: Running) -> None:
    for page in PAGES:
        status, headers, text = running.ask("GET", page.path.replace("{ident}", "x"))
        assert (page.path, status) == (page.path, 200)
        assert headers["cache-control"] == "no-store"
        script = re.search(rb'src="(/static/%b\.js\?\w+)"' % page.name.encode(), text)
        assert script is not None
        status, headers, _ = running.ask("GET", script[1].decode(), authorization="")
        assert (status, "immutable" in headers["cache-control"]) == (200, True)


def test_a_file_is_sent_once_and_compressed(running: Running) -> None:
    _, headers, plain = running.ask("GET", "/static/plotly.js")
    assert b"plotly.js v" in plain[:200]
    _, packed_headers, packed = running.ask("GET", "/static/plotly.js", accept_encoding="gzip")
    assert gzip.decompress(packed) == plain
    assert packed_headers["content-encoding"] == "gzip"
    status, _, body = running.ask("GET", "/static/plotly.js", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    for name in ("../console.py", "%2e%2e/console.py", "nothing.js", ""):
        assert running.ask("GET", f"/static/{name}")[0] == 404


def test_the_description_names_every_endpoint_with_its_scope(running: Running) -> None:
    described = msgspec.json.decode(running.ask("GET", "/api/openapi.json")[2])
    assert described["openapi"] == "3.1.0"
    query_ = described["paths"]["/api/query"]["post"]
    assert query_["security"][0] == {"token": ["read"]}
    assert described["paths"]["/api/replay"]["post"]["security"][0] == {"token": ["admin"]}
    name = described["paths"]["/api/queries/{name}"]["put"]["parameters"][0]
    assert (name["name"], name["in"]) == ("name", "path")
    text = msgspec.json.encode(described).decode()
    named = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert named <= set(described["components"]["schemas"])


def test_queries_are_kept_as_files(running: Running) -> None:
    kept = running.ask("PUT", "/api/queries/last%20hour", {"sql": "select 'é'"})
    assert (kept[0], msgspec.json.decode(kept[2])["name"]) == (200, "last hour")
    listed = msgspec.json.decode(running.ask("GET", "/api/queries")[2])
    assert {"name": "last hour", "sql": "select 'é'"} in listed
    assert running.ask("DELETE", "/api/queries/last%20hour")[0] == 200
    assert running.ask("DELETE", "/api/queries/last%20hour")[0] == 404
    for name in ("..", ".hidden", "a%2Fb", "a%00b", "x" * 65):
        status, _, _ = running.ask("PUT", f"/api/queries/{name}", {"sql": "select 1"})
        assert (name, status in (400, 404)) == (name, True)


def test_an_unknown_parameter_is_refused_and_named(running: Running) -> None:
    status, _, said = running.ask("GET", "/api/query?sgl=x")
    assert (status, b"sgl" in said, b"sql" in said) == (400, True, True)


def test_the_live_feed_streams_rows_that_pass_the_filter(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request(
        "GET", "/api/live?status=rejected", headers={"authorization": f"Bearer {TOKEN}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    assert answer.readline().startswith(b":")
    running.feed.publish(Rows([Row(), Row(status="rejected")]))
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
