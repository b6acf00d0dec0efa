"""Erasing a person: no trace in the data folder, nobody else harmed, nothing comes back."""

from __future__ import annotations

import http.client
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import pytest
from websockets.sync.client import connect

from headwater.resolve.sqlite_erasures import SqliteErasures
from tests.served import HEADWATER, Served
from tests.test_app import ACCOUNTS, COMPANY, TOKEN, send, soon
from tests.trust.serving import FULL

APP = "app1"
AT = 1_795_226_263_000
SHARED = ACCOUNTS.replace(
    "[accounts.acme.vaix]",
    '[accounts.acme]\nshared_user_ids = ["vaix", "nucleus", "gamooga"]\n[accounts.acme.vaix]',
)
#: Whoever finds one of these has found something of the person.
JANE = "caNaryjane"
MAIL = "caNarymail"


# --- what they do -------------------------------------------------------------------------------


def nucleus(served: Served, *events: dict[str, Any]) -> None:
    """A message over the WebSocket, acknowledged, and a clean close."""
    data = [{"type": "event", "sessionId": 4821, **event} for event in events]
    with connect(served.collect.replace("http", "ws", 1) + f"/app/{APP}/track") as socket:
        socket.send(msgspec.json.encode({"data": data}).decode())
        socket.recv(10)


def vaix(served: Served, body: bytes, agent: str) -> int:
    return send(
        served.collect,
        "POST",
        "/api/tracker/events",
        body,
        authorization=f"Bearer {TOKEN}",
        x_vaix_client_id="g1",
        user_agent=agent,
        referer=f"https://shop.example/{agent}",
    )[0]


def click(user: str, word: str, kind: str = "clicks:event") -> bytes:
    return msgspec.json.encode({"user_id": user, "event_type": kind, "data": {"sku": word}})


def gamooga(served: Served, path: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    status, body = send(served.collect, "GET", f"/{path}/?{urlencode([('c', COMPANY), *pairs])}")
    assert status == 200
    answer = msgspec.json.decode(body)
    assert isinstance(answer, dict)
    return answer


def vibetrace(served: Served, *events: dict[str, Any]) -> None:
    data = quote(msgspec.json.encode(list(events)).decode())
    status, _ = send(
        served.collect, "GET", f"/event/ACCT123/login?data={data}", cookie=f"_vt_user={MAIL}-b"
    )
    assert status == 200


def orbee(served: Served, word: str, **fields: str) -> None:
    body = {"action": "view", "object": "form", "vendor": "V", "product": "P", "label": word}
    status, _ = send(
        served.collect, "POST", "/collect/1/1/event", msgspec.json.encode({**body, **fields})
    )
    assert status == 204


def jane(served: Served) -> None:
    """By the user id that three dialects share; in the same messages as Bob."""
    mine = {"userId": f"{JANE}-u", "anonId": f"{JANE}-a", "deviceId": f"{JANE}-d"}
    his = {"userId": "bob-u", "anonId": "bob-a", "deviceId": "bob-d"}
    anonymous = {"anonId": f"{JANE}-a", "deviceId": f"{JANE}-d"}
    message = (
        {"name": f"{JANE}-name", "id": 1, "date": AT, **anonymous, "payload": {"word": JANE}},
        {"name": "BOB", "id": 2, "date": AT, **his, "payload": {"word": "bob"}},
        {"type": "props", "name": "props", "id": 3, "date": AT, **mine, "payload": {JANE: JANE}},
        {"name": "", "id": 4, "date": AT, **mine, "payload": {"word": JANE}},
    )
    nucleus(served, *message)
    nucleus(served, *message)
    nucleus(served, {"type": "heartbeat", "id": 5, "date": AT, **mine})
    assert vaix(served, click(f"{JANE}-u", JANE), JANE) == 204
    assert vaix(served, click("bob-u", "bob"), "bob") == 204
    assert vaix(served, click(f"{JANE}-u", JANE, "no event"), JANE) == 422
    assert vaix(served, b'{"user_id":"%s-u","data":' % JANE.encode(), JANE) == 400
    assert vaix(served, b'{"user_id":"bob-u","data":', "bob") == 400
    gamooga(served, "id", ("u", f"{JANE}-u"), ("v", f"{JANE}-v"))
    gamooga(served, "evwid", ("u", f"{JANE}-u"), ("e", f"{JANE}-e"))
    gamooga(served, "ev", ("v", f"{JANE}-v"), ("e", "view"))
    gamooga(served, "evwid", ("u", "bob-u"), ("e", "view"))


def mail(served: Served) -> None:
    """By an address: a browser of Vibetrace's, Orbee's instance, and what waits before that."""
    vibetrace(served, {"type": "order", "email": f"{MAIL}@example.com"})
    served.wait_loaded()
    mine = {"userId": f"{MAIL}-b", "sessionId": f"{MAIL}-s", "generic": {"word": MAIL}}
    vibetrace(
        served,
        {"type": "login", "email": f"{MAIL}@example.com", "_vtsid": f"{MAIL}-t", **mine},
        {"type": "login", "email": "bob@example.com", "userId": "bob-b"},
    )
    vibetrace(served, {"type": "view", "_vtsid": f"{MAIL}-t"})
    orbee(served, MAIL, instance_id=f"{MAIL}-i", duid=f"{MAIL}-w", email=f"{MAIL}@example.com")
    orbee(served, "bob", instance_id="bob-i")


# --- what is left -------------------------------------------------------------------------------


def traces(served: Served, canary: str) -> set[str]:
    """The files of the data folder in which something of a person is still found."""
    found = set()
    for path in served.data.rglob("*"):
        try:
            text = path.read_bytes().lower() if path.is_file() else b""
        except FileNotFoundError:
            continue  # the store tidies up
        if canary.lower().encode() in text:
            found.add(str(path.relative_to(served.data)))
    return found


def rows(served: Served, canary: str) -> int:
    """Rows in which something of a person is still found."""
    tables = ("events", "rejected", "people", "sessions", "identities", "profile_history", "merges")
    return sum(
        int(
            served.query(
                f"SELECT countIf(positionCaseInsensitive(toString(tuple(*)), '{canary}') > 0) AS n "
                f"FROM {table}"
            )[0]["n"]
        )
        for table in tables
    )


def who(served: Served, value: str) -> str:
    found = served.query(
        f"SELECT DISTINCT toString(person_id) AS id FROM identities WHERE value = '{value}'"
    )
    (one,) = found
    return str(one["id"])


def others(served: Served) -> list[dict[str, Any]]:
    """Everything of the people who stay."""
    return [
        *served.query(
            "SELECT * FROM events WHERE toString(identities) LIKE '%bob%' ORDER BY event_id"
        ),
        *served.query("SELECT * FROM rejected WHERE request LIKE '%bob%' ORDER BY request_id"),
        *served.query(
            "SELECT * EXCEPT over FROM sessions WHERE toString(person_id) IN (SELECT "
            "toString(person_id) FROM identities WHERE value LIKE 'bob%') ORDER BY session_id"
        ),
    ]


def post(served: Served, path: str) -> tuple[int, list[dict[str, Any]]]:
    at = urlsplit(served.console)
    connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=120)
    try:
        connection.request("POST", path, headers={"authorization": f"Bearer {served.token()}"})
        answer = connection.getresponse()
        lines = [msgspec.json.decode(line) for line in answer.read().splitlines()]
        return answer.status, lines
    finally:
        connection.close()


def command(served: Served, ident: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), "erase", ident, "--config", str(served.config), *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, SHARED, workers=2) as running:
        yield running


@pytest.mark.timeout(240)
def test_an_erased_person_leaves_no_trace_and_does_not_come_back(served: Served) -> None:
    jane(served)
    mail(served)
    before = served.wait_loaded()
    kept = others(served)
    assert len(kept) >= 6
    for canary, value in ((JANE, f"{JANE}-u"), (MAIL, f"{MAIL}@example.com".lower())):
        where = {path.split("/")[0] for path in traces(served, canary)}
        assert {"journal", "store"} <= where
        person = who(served, value)
        status, lines = post(served, f"/api/people/{person}/erase")
        assert status == 200
        assert "result" in lines[-1], lines[-1]
        receipt = lines[-1]["result"]
        assert receipt["left"] == []
        assert (receipt["account"], receipt["person_id"]) == ("acme", person)
        assert receipt["counts"]["events"] > 0
        assert receipt["counts"]["requests"] > 0
        assert canary.lower() not in str(receipt).lower()
        assert rows(served, canary) == 0
        assert traces(served, canary) == set(), "while the server runs"
        (row,) = served.query(f"SELECT receipt FROM erasures WHERE person_id = '{person}'")
        assert msgspec.json.decode(row["receipt"]) == receipt
        assert post(served, f"/api/people/{person}/erase")[0] == 404
        assert others(served) == kept
    assert served.accounting() == before, "the books say what was received"
    told = served.run("replay", "--since", "2020-01-01")
    assert re.search(r"changed\D+0\b", told)
    assert re.search(r"added\D+0\b", told)
    assert re.search(r"removed\D+0\b", told)
    assert served.accounting() == before
    assert others(served) == kept
    assert rows(served, JANE) + rows(served, MAIL) == 0
    served.stop()
    assert traces(served, JANE) | traces(served, MAIL) == set(), "after its end"
    served.start()
    assert vaix(served, click(f"{JANE}-u", "again"), "agent") == 204
    visitor = gamooga(served, "id", ("u", f"{JANE}-u"))
    assert JANE not in str(visitor), "it is a new one"
    served.wait_loaded()
    (again,) = served.query(
        "SELECT person_id, events FROM people WHERE toString(identities) LIKE '%-u%' "
        f"AND toString(identities) LIKE '%{JANE}%'"
    )
    assert again["events"] == 2
    assert served.query(f"SELECT 1 FROM erasures WHERE person_id = '{again['person_id']}'") == []


@pytest.mark.timeout(120)
def test_the_command_erases_with_and_without_a_server(tmp_path: Path) -> None:
    with Served(tmp_path, SHARED) as served:
        jane(served)
        served.wait_loaded()
        person = who(served, f"{JANE}-u")
        unsure = command(served, person)
        assert (unsure.returncode, "--yes" in unsure.stderr) == (2, True)
        bob = who(served, "bob-u")
        done = command(served, person, "--yes")
        assert done.returncode == 0, done.stderr
        assert msgspec.json.decode(done.stdout)["person_id"] == person
        assert traces(served, JANE) == set()
        served.stop()
        done = command(served, bob, "--yes")
        assert done.returncode == 0, done.stderr
        assert msgspec.json.decode(done.stdout)["counts"]["events"] > 0
        assert traces(served, "bob-u") == set()
        assert command(served, bob, "--yes").returncode != 0


STEPS = (
    "begun",
    "buried",
    "mappings",
    "events",
    "rejected",
    "beside",
    "journal",
    "registry",
    "receipt",
)


@pytest.mark.timeout(240)
def test_kill_9_after_each_step_and_the_next_start_goes_on(tmp_path: Path) -> None:
    config = tmp_path / "headwater.toml"

    def erasing(step: str, *person: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.erasing_process", str(config), step, *person],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        return [line.split()[0] for line in done.stdout.splitlines()]

    with Served(tmp_path, SHARED) as served:
        jane(served)
        before = served.wait_loaded()
        kept = others(served)
        person = who(served, f"{JANE}-u")
        served.stop()
        seed = random.randrange(2**32)
        print("seed", seed)
        chosen = random.Random(seed).sample(range(len(STEPS)), len(STEPS) if FULL else 3)
        first, *later = (STEPS[place] for place in sorted(chosen))
        assert erasing(first, person)[-1] == first
        for step in later:
            assert erasing(step)[-1] == step
        served.start()
        # What comes in before it is finished is somebody new's.
        assert vaix(served, click(f"{JANE}-u", "again"), "agent") == 204
        assert soon(lambda: len(served.query("SELECT * FROM erasures")) == 1, 60)
        assert soon(lambda: not erasing_begun(served), 60)
        books = served.wait_loaded()
        assert others(served) == kept
        assert books.pop(("acme", "vaix"))["stored"] == before.pop(("acme", "vaix"))["stored"] + 1
        assert books == before
        (new,) = served.query("SELECT events FROM people WHERE toString(identities) LIKE '%aNary%'")
        assert new["events"] == 1
        served.run("replay", "--since", "2020-01-01")
        assert others(served) == kept
        assert rows(served, f"{JANE}-a") == 0
        served.stop()
        assert traces(served, f"{JANE}-a") | traces(served, f"{JANE}-v") == set()


def erasing_begun(served: Served) -> bool:
    """Whether an erasure is not finished."""
    erasures = SqliteErasures(served.data / "registry")
    try:
        return bool(erasures.begun())
    finally:
        erasures.close()
