"""docs/one-event.md, executed: its request, its answer, its questions and their rows."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from headwater.accept.request import Request
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.served import Served

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "one-event.md").read_text()
BLOCKS = re.findall(r"^```(http|json|sql)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ACCOUNTS = '[accounts.acme.nucleus]\napps = ["6387f260fae4a13be78fc664"]'


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("one-event"), ACCOUNTS) as running:
        yield running


@pytest.fixture(scope="module")
def answer(served: Served) -> tuple[int, bytes]:
    """Send the page's request as it stands."""
    (text,) = blocks("http")
    head, _, body = text.partition("\n\n")
    body = body.rstrip("\n")
    lines = [*head.splitlines(), f"Content-Length: {len(body.encode())}"]
    with socket.create_connection(("127.0.0.1", served.collect_port), 10) as connection:
        connection.sendall("\r\n".join([*lines, "", body]).encode())
        got = HTTPResponse(connection)
        got.begin()
        return got.status, got.read()


def test_the_answer_is_the_pages(answer: tuple[int, bytes]) -> None:
    status, body = answer
    assert status == 200
    assert json.loads(body) == json.loads(blocks("json")[0])


@pytest.mark.usefixtures("answer")
def test_the_journal_holds_the_request_as_it_came(served: Served) -> None:
    reader = SqliteReader(served.data / "journal")
    try:
        (writer,) = reader.writers()
        (batch,) = reader.read(Position(writer, 0), batches_max=10, bytes_max=1_000_000)
    finally:
        reader.close()
    (request,) = batch.requests
    assert isinstance(request, Request)
    assert (request.account, request.dialect, request.method) == ("acme", "nucleus", "POST")
    assert request.body.decode() == blocks("http")[0].partition("\n\n")[2].rstrip("\n")
    assert batch.counts == {("acme", "nucleus"): 2}


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("number", range(len(blocks("sql"))))
def test_sql_gives_the_rows_of_the_page(served: Served, number: int) -> None:
    served.wait_loaded()
    expected = json.loads(blocks("json")[number + 1])
    assert served.query(blocks("sql")[number]) == expected


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:[a-z]+/)*[a-z0-9_-]+\.(?:py|sql))`", PAGE))
    found = {name for name in named if (TOP / "src" / "headwater" / name).exists()}
    found |= {name for name in named if (TOP / name).exists()}
    assert named - found == set()
    assert len(named) > 12


@pytest.mark.usefixtures("answer")
@pytest.mark.timeout(180)
def test_a_store_that_was_deleted_is_loaded_anew_from_the_journal(
    served: Served,
) -> None:
    """docs/operating.md says so, under Backup."""
    served.wait_loaded()
    sql = "SELECT * FROM events"
    before = served.query(sql)
    served.stop()
    shutil.rmtree(served.data / "store")
    served.start()
    served.wait_loaded()
    assert served.query(sql) == before
