"""S8 on the private port: every endpoint of the console, asked with a token of another account.

The table must have a row for each operation of the API's own description, so an endpoint that is
added without a row fails here. Each row is asked twice: with a token that is kept to one account,
which must see nothing of the other, and with the console's own, which must see it where there is
something to be seen: otherwise the test would prove nothing.
"""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from bench.traffic import Wire
from tests.pages import shop
from tests.served import Served

SECRET = "of-the-others"
TOKEN = "kept-to-the-shop"
TABLES = f"""
[console.tokens.kept]
hash = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
accounts = ["shop"]
"""
SQL = quote(f"SELECT * FROM events WHERE toJSONString(properties) LIKE '%{SECRET}%'")
NAME = f"{SECRET}:form"
STEP = quote(f'["{NAME}"]')
ALL = quote("SELECT account, count() FROM events GROUP BY account")


class Row(msgspec.Struct, frozen=True):
    """An operation, asked for what is the other account's. `sees`: the console's own token finds
    the secret there. `statuses` are the answers that the kept token may get."""

    method: str
    path: str
    asked: str
    body: object = None
    sees: bool = False
    statuses: tuple[int, ...] = (200,)


READ_ONLY = (403,)
NOT_THERE = (404,)
#: {person}, {event}, {request}, {merge} and {account} are the other account's.
MATRIX = [
    Row("get", "/api/live", "/api/live?account=other"),
    Row("get", "/api/openapi.json", "/api/openapi.json"),
    Row("get", "/api/health", "/api/health"),
    Row("get", "/api/schema", "/api/schema"),
    Row("post", "/api/query", "/api/query", body={"sql": "SELECT * FROM events"}, sees=True),
    Row("get", "/api/query", f"/api/query?sql={SQL}", sees=True),
    Row("get", "/api/query", f"/api/query?sql={ALL}"),
    Row("get", "/api/queries", "/api/queries"),
    Row("put", "/api/queries/{name}", "/api/queries/x", body={"sql": "x"}, statuses=READ_ONLY),
    Row("delete", "/api/queries/{name}", "/api/queries/x", statuses=READ_ONLY),
    Row("post", "/api/replay", "/api/replay", body={"since": 0}, statuses=READ_ONLY),
    Row("post", "/api/backup", "/api/backup", statuses=READ_ONLY),
    Row("get", "/api/people", f"/api/people?find={SECRET}@x.example"),
    Row("get", "/api/people/{ident}", "/api/people/{person}", sees=True, statuses=NOT_THERE),
    Row(
        "get",
        "/api/people/{ident}/export",
        "/api/people/{person}/export",
        sees=True,
        statuses=NOT_THERE,
    ),
    Row("post", "/api/people/{ident}/erase", "/api/people/{person}/erase", statuses=READ_ONLY),
    Row("get", "/api/merges", "/api/merges?account=other"),
    Row("post", "/api/merges/{ident}/undo", "/api/merges/{event}/undo", statuses=READ_ONLY),
    Row("post", "/api/merges/{ident}/allow", "/api/merges/{event}/allow", statuses=READ_ONLY),
    Row(
        "get",
        "/api/requests/{request_id}",
        "/api/requests/{request}",
        sees=True,
        statuses=NOT_THERE,
    ),
    Row("get", "/api/events/{event_id}", "/api/events/{event}", sees=True, statuses=NOT_THERE),
    Row("get", "/api/try/examples", "/api/try/examples?account=other", statuses=(200, 404)),
    Row("post", "/api/try", "/api/try", body={}, statuses=READ_ONLY),
    Row(
        "get",
        "/api/people/{ident}/events",
        "/api/people/{person}/events",
        sees=True,
        statuses=NOT_THERE,
    ),
    Row("get", "/api/explore", "/api/explore?by=name&account=other", sees=True),
    Row("get", "/api/explore/top", "/api/explore/top?by=name", sees=True),
    Row("get", "/api/explore/fields", "/api/explore/fields?account=other", sees=True),
    Row("get", "/api/explore/values", "/api/explore/values?by=properties.label", sees=True),
    Row(
        "get", "/api/funnel", f"/api/funnel?step={STEP}&step={STEP}&by=properties.label", sees=True
    ),
    Row("get", "/api/retention", f"/api/retention?start={STEP}&account=other"),
    Row("get", "/api/errors", "/api/errors?account=other"),
    Row(
        "get", "/api/errors/one", "/api/errors/one?error=x&account=other", statuses=(200, 400, 404)
    ),
    Row("get", "/api/quality/books", "/api/quality/books?account=other"),
    Row("get", "/api/quality/draft", "/api/quality/draft?account=other", statuses=(200, 404)),
    Row("get", "/api/quality/issues", "/api/quality/issues?account=other"),
    Row("get", "/api/quality/issues/samples", "/api/quality/issues/samples?account=other&issue=x"),
    Row("get", "/api/quality/names", "/api/quality/names", sees=True),
    Row("get", "/api/quality/plan", "/api/quality/plan?account=other", statuses=(200, 404)),
    Row("get", "/api/quality/properties", f"/api/quality/properties?name={NAME}"),
    Row("get", "/api/quality/rejected", "/api/quality/rejected?account=other"),
    Row(
        "get",
        "/api/quality/rejected/samples",
        "/api/quality/rejected/samples?reason=missing_field",
        sees=True,
    ),
    Row(
        "get",
        "/api/quality/request",
        "/api/quality/request?request_id={refused}&at={at}",
        sees=True,
    ),
    Row("get", "/api/quality/violations", "/api/quality/violations?account=other"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kept")
    with Served(folder, shop.accounts(), tables=TABLES) as running:
        lead = dict.fromkeys(("vendor", "product", "instance_id", "label"), SECRET)
        body = msgspec.json.encode(
            {**lead, "action": SECRET, "object": "form", "email": f"{SECRET}@x.example"}
        )
        headers = (("Content-Type", "application/json"),)
        theirs = Wire(method="POST", target="/collect/2/2/event", headers=headers, body=body)
        wrong = msgspec.json.encode({"action": SECRET, "object": SECRET})
        refused = Wire(method="POST", target="/collect/2/2/event", headers=headers, body=wrong)
        wires = shop.requests(time.time(), people=3)
        assert set(shop.send(running.collect_port, [theirs, refused, *wires])) >= {204, 400}
        running.wait_loaded()
        yield running


@pytest.fixture(scope="module")
def theirs(served: Served) -> dict[str, str]:
    (row,) = served.query(
        "SELECT person_id, event_id, request_id FROM events WHERE account = 'other'"
    )
    (refused,) = served.query(
        "SELECT request_id, received_at FROM rejected WHERE account = 'other'"
    )
    found = {name.removesuffix("_id"): str(value) for name, value in row.items()}
    return found | {"refused": str(refused["request_id"]), "at": refused["received_at"]}


def ask(served: Served, row: Row, theirs: dict[str, str], token: str) -> tuple[int, bytes]:
    """The answer; of the live feed, what it says before anything happens."""
    at = urlsplit(served.console)
    assert at.hostname is not None
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
    try:
        connection.request(
            row.method.upper(),
            row.asked.format(**theirs) if "{" in row.asked else row.asked,
            None if row.body is None else msgspec.json.encode(row.body),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        return answer.status, answer.fp.readline() if "/live" in row.path else answer.read()
    finally:
        connection.close()


def test_every_operation_of_the_api_has_a_row(served: Served) -> None:
    _, text = ask(served, Row("get", "", "/api/openapi.json"), {}, served.token())
    described: dict[str, Any] = msgspec.json.decode(text)
    there = {(method, path) for path, ways in described["paths"].items() for method in ways}
    assert there == {(row.method, row.path) for row in MATRIX}


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: f"{row.method} {row.asked[:60]}")
def test_a_token_of_one_account_sees_nothing_of_another(
    served: Served, theirs: dict[str, str], row: Row
) -> None:
    status, said = ask(served, row, theirs, TOKEN)
    assert status in row.statuses, said
    assert SECRET not in shown(said)
    if row.sees:
        status, said = ask(served, row, theirs, served.token())
        assert (status, SECRET in shown(said)) == (200, True), said


def shown(said: bytes) -> str:
    """What an answer tells: not the question that it repeats. An account's name in its rows counts
    as the secret."""
    try:
        answer = msgspec.json.decode(said)
    except ValueError:
        return said.decode()
    if not isinstance(answer, dict):
        return str(answer)
    told = {name: value for name, value in answer.items() if name not in ("sql", "before", "asked")}
    cells = [cell for row in told.get("rows", []) for cell in row]
    return f"{told}{SECRET if 'other' in cells else ''}"


def test_sql_of_a_kept_token_sees_no_table_of_another_account(served: Served) -> None:
    for table in ("events", "people", "sessions", "identities", "rejected", "accounting"):
        sql = f"SELECT DISTINCT account FROM {table}"
        row = Row("post", "", "/api/query", body={"sql": sql})
        assert msgspec.json.decode(ask(served, row, {}, TOKEN)[1])["rows"] == [["shop"]], table
        all_rows = msgspec.json.decode(ask(served, row, {}, served.token())[1])["rows"]
        assert sorted(all_rows) == [["other"], ["shop"]], table
    for sql in (
        "SELECT count() FROM events SETTINGS additional_table_filters = {}",
        "SELECT count() FROM headwater_store.events_rows",
        "SELECT getSetting('additional_table_filters')",
        "SELECT * FROM merge('headwater', '.*')",
        "SELECT * FROM view(SELECT * FROM headwater_store.events_rows)",
    ):
        status, said = ask(served, Row("post", "", "/api/query", body={"sql": sql}), {}, TOKEN)
        assert (sql, status) == (sql, 400), said
