"""Every case through the decoder, through a real socket, and through replay, with one result.

The socket runs share one server for each distinct set of rules: all its cases are sent, the hub is
left to load them, and what SQL sees is compared with what the decoder said. Then the journal is
replayed, and SQL must see the same.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.accept.encoding import inflate
from headwater.accept.request import Dialect, Identified, Request
from headwater.accept.routes import Router
from headwater.decode.dialects import DIALECTS
from headwater.event import Decoded
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from headwater.resolve.device import Devices
from tests.dialects.case import (
    RECEIVED_AT,
    STATE,
    Case,
    answer_differs,
    decoded_differs,
    plain,
    read_cases,
    same,
)
from tests.dialects.wire import Answered, send, source_address
from tests.served import Served

CASES = read_cases()
BY_NAME: dict[str, Dialect] = {dialect.NAME: dialect for dialect in DIALECTS}
CASES_MIN = 25
TOKEN = "case-token"  # a test's own
DEVICES = Devices()


# --- the decoder -------------------------------------------------------------------------------


def request_of(case: Case) -> Request:
    """The request as the collector would hand it to the dialect."""
    match = Router(DIALECTS).match(case.target.partition("?")[0], websocket=case.websocket)
    assert match is not None, f"no route for {case.target}"
    headers = case.kept_headers()
    body = case.body
    if "content-encoding" in headers:
        body = inflate(body, headers["content-encoding"], match.dialect.BOUNDS.body_bytes_max)
    return Request(
        dialect=match.dialect.NAME,
        method=case.method,
        target=case.target,
        endpoint=match.endpoint,
        params=dict(match.params),
        headers=headers,
        body=body,
        transport="websocket" if case.websocket else "http",
        peer="127.0.0.1",
        account="acme",
        received_at=RECEIVED_AT,
        request_id=bytes(16),
    )


@pytest.mark.parametrize("case", [case for case in CASES if case.kept], ids=lambda case: case.name)
def test_the_decoder_gives_what_the_case_says(case: Case) -> None:
    dialect = BY_NAME[case.dialect]
    request = request_of(case)
    rules = case.rules_value()
    answer = dialect.answer(request, rules)
    if answer.identify is not None:
        who = Identified(visitor=case.state or STATE, created=not answer.identify.visitor)
        request.state, request.created = who.visitor, who.created
        answer = dialect.answer(request, rules)
    headers = {name.lower(): value for name, value in (*dialect.ALWAYS, *answer.headers)}
    if answer.content_type:
        headers["content-type"] = answer.content_type
    decoded = dialect.decode(request, rules)
    wrong = answer_differs(case, answer.status, _only_own(case, headers), answer.body)
    wrong += decoded_differs(case, decoded)
    if answer.events != decoded.received:
        wrong.append(f"the answer counts {answer.events} events, decode {decoded.received}")
    if answer.refused and decoded.events:
        wrong.append("refused, and yet decode gives events")
    assert not wrong, f"{case.why}\n" + "\n".join(wrong)


def _only_own(case: Case, headers: dict[str, str]) -> dict[str, str]:
    """Headers that accept adds (CORS, Allow, lengths) are compared over the socket only."""
    own = dict(headers)
    for name, value in case.answer.get("headers", {}).items():
        if name.lower().startswith("access-control-") or name.lower() in _ADDED_BY_ACCEPT:
            own[name.lower()] = value
    return own


_ADDED_BY_ACCEPT = frozenset(
    {"vary", "allow", "connection", "content-length", "upgrade", "retry-after", "www-authenticate"}
)


@pytest.mark.parametrize("dialect", sorted(BY_NAME))
def test_a_dialect_has_at_least_25_cases(dialect: str) -> None:
    assert len([case for case in CASES if case.dialect == dialect]) >= CASES_MIN


def test_every_case_says_why() -> None:
    assert [case.name for case in CASES if len(case.why.split()) < 3] == []


# --- sockets and replay ------------------------------------------------------------------------


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one case on a running server, before and after a replay."""

    answered: Answered | None = None
    failure: str = ""
    request: Request | None = None
    fresh: list[bool] = msgspec.field(default_factory=list)
    events: list[dict[str, Any]] = msgspec.field(default_factory=list)
    rejected: list[dict[str, Any]] = msgspec.field(default_factory=list)
    events_replayed: list[dict[str, Any]] = msgspec.field(default_factory=list)
    rejected_replayed: list[dict[str, Any]] = msgspec.field(default_factory=list)


def accounts_for(rules: dict[str, Any]) -> str:
    """The configuration that puts `rules` in force for one account, as TOML."""
    listed = "".join(
        f"{name} = {msgspec.json.encode(list(rules[name])).decode()}\n"
        for name in ("groups", "event_types")
        if rules.get(name) is not None
    )
    return f"""
[accounts.acme.vaix]
tokens = ["sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"]
{listed}
[accounts.acme.orbee]
trackers = ["1/1", "7b7f3c1e-0000-4000-8000-000000000001/1"]
lenient = {"true" if rules.get("lenient") else "false"}
[accounts.acme.nucleus]
apps = ["6387f260fae4a13be78fc664", "app1"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.gamooga]
companies = ["dcaf55cc-b36d-4d0e-9003-f93187c04886"]
"""


_EVENTS = """
SELECT toString(event_id) AS event_id, toString(request_id) AS request_id, account, dialect, scope,
    kind, name, toUnixTimestamp64Micro(occurred_at) AS occurred_us,
    toUnixTimestamp64Micro(received_at) AS received_us, person_id,
    session_id, toJSONString(identities) AS identities, toJSONString(properties) AS properties,
    toJSONString(context) AS context, toJSONString(issues) AS issues, transport
FROM events ORDER BY event_id
"""
_REJECTED = """
SELECT toString(request_id) AS request_id, account, dialect, reason, detail, request
FROM rejected ORDER BY request_id, reason, detail, request
"""


def rows_by_request(served: Served, sql: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in served.query(sql):
        found.setdefault(row["request_id"], []).append(row)
    return found


def journaled(data: Path) -> dict[str, Request]:
    """Everything in the journal, by the address it came from."""
    reader = SqliteReader(data / "journal")
    try:
        found = {}
        for writer in reader.writers():
            after = Position(writer, 0)
            while batches := reader.read(after, batches_max=100, bytes_max=32 * 1024 * 1024):
                found.update(
                    {
                        request.peer: request
                        for batch in batches
                        for request in batch.requests
                        if request.endpoint != "close"  # the end of the case's socket
                    }
                )
                after = batches[-1].position
        return found
    finally:
        reader.close()


def play(folder: Path, cases: list[Case], rules: dict[str, Any]) -> dict[str, Outcome]:
    """Send `cases` to a server of their own, load, replay; what became of each."""
    outcomes = {case.name: Outcome() for case in cases}
    collect = f'public_host = "{rules["public_host"]}"' if rules.get("public_host") else ""
    with Served(folder, accounts_for(rules), collect=collect) as served:
        for number, case in enumerate(cases):
            try:
                outcomes[case.name].answered = send(
                    case, served.collect, token=TOKEN, source=source_address(number)
                )
            except (OSError, AssertionError, ValueError) as failed:
                outcomes[case.name].failure = repr(failed)
        served.wait_loaded()
        requests = journaled(served.data)
        events, rejected = rows_by_request(served, _EVENTS), rows_by_request(served, _REJECTED)
        served.run("replay", "--since", "2020-01-01")
        served.wait_loaded()
        events_again = rows_by_request(served, _EVENTS)
        rejected_again = rows_by_request(served, _REJECTED)
        books = served.accounting()
    seen: set[bytes] = set()
    for number, case in enumerate(cases):
        outcome = outcomes[case.name]
        outcome.request = requests.get(source_address(number))
        if outcome.request is None:
            continue
        decoded = _decoded(outcome.request, case)
        for event in decoded.events:
            outcome.fresh.append(event.dedupe is None or event.dedupe not in seen)
            if event.dedupe is not None:
                seen.add(event.dedupe)
        key = _uuid(outcome.request.request_id)
        outcome.events, outcome.rejected = events.get(key, []), rejected.get(key, [])
        outcome.events_replayed = events_again.get(key, [])
        outcome.rejected_replayed = rejected_again.get(key, [])
    for row in books.values():
        assert row["in_flight"] == 0
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"], books
    return outcomes


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _decoded(request: Request, case: Case) -> Decoded:
    encoding = request.headers.get("content-encoding")
    if encoding:
        bound = BY_NAME[request.dialect].BOUNDS.body_bytes_max
        request = msgspec.structs.replace(request, body=inflate(request.body, encoding, bound))
    return BY_NAME[request.dialect].decode(request, case.rules_value())


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases on running servers: one server for each distinct set of rules."""
    groups: dict[str, list[Case]] = {}
    for case in CASES:
        groups.setdefault(plain(case.rules or {}), []).append(case)

    @functools.cache
    def of_group(key: str) -> dict[str, Outcome]:
        cases = groups[key]
        return play(tmp_path_factory.mktemp("served"), cases, dict(cases[0].rules or {}))

    class Lazily(dict[str, Outcome]):
        """A group is played when the first of its cases is asked for."""

        def __missing__(self, name: str) -> Outcome:
            (key,) = [key for key, cases in groups.items() if name in {one.name for one in cases}]
            self.update(of_group(key))
            return self[name]

    return Lazily()


def stored_differs(
    case: Case, request: Request, fresh: list[bool], rows: list[dict[str, Any]]
) -> list[str]:
    """What is wrong with the rows of a case's request, in words."""
    expected = [event for event, first in zip(case.events, fresh, strict=True) if first]
    if len(rows) != len(expected):
        return [f"{len(rows)} rows in events, expected {len(expected)}: {rows}"]
    wrong = []
    left = list(rows)
    for event in expected:
        differences = [row_differs(event, row, request) for row in left]
        best = min(range(len(left)), key=lambda place: len(differences[place]))
        wrong += differences[best]
        del left[best]
    return wrong


def row_differs(event: dict[str, Any], row: dict[str, Any], request: Request) -> list[str]:
    """What SQL says otherwise than the case about one event, in words."""
    wrong = []

    def compare(field: str, expected: Any, found: Any) -> None:
        if not same(expected, found):
            wrong.append(f"{field} of the row: {found!r}, expected {expected!r}")

    for field in ("kind", "name", "scope"):
        if field in event:
            compare(field, event[field], row[field])
    if "occurred_at" in event:
        at = request.received_at if event["occurred_at"] is None else event["occurred_at"]
        compare("occurred_at", at, int(row["occurred_us"]))
    if "identities" in event:
        pairs = [[one[0], one[2]] for one in event["identities"]]
        compare("identities", pairs, [list(one.values()) for one in _json(row["identities"])])
    if "issues" in event:
        codes = [text.partition(":")[0] for text in _json(row["issues"])]
        missing = [code for code in event["issues"] if code not in codes]
        compare("issues not found", [], missing)
    if "properties" in event:
        compare("properties", as_column(event["properties"]), as_column(_json(row["properties"])))
    if "context" in event:  # the loader adds where it came from, and what its user agent says
        device = DEVICES.of(event["context"].get("user_agent", ""))
        added: dict[str, Any] = {"bot": device.bot}
        if device.fields:
            added["device"] = device.fields
        context = {**added, **event["context"], "ip": request.peer}
        compare("context", as_column(context), as_column(_json(row["context"])))
    compare("dialect", request.dialect, row["dialect"])
    compare("account", request.account, row["account"])
    compare("transport", request.transport, row["transport"])
    return wrong


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else list(map(list, value))


def as_column(value: Any) -> Any:
    """What a JSON column says of a value: no nulls in objects, no empty objects, 2.0 as 2."""
    if isinstance(value, dict):
        kept = {key: as_column(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None and one != {}}
    if isinstance(value, list):
        return [as_column(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_socket_gives_what_the_case_says(case: Case, played: dict[str, Outcome]) -> None:
    outcome = played[case.name]
    assert outcome.answered is not None, f"{case.why}\nno answer: {outcome.failure}"
    wrong = answer_differs(
        case, outcome.answered.status, outcome.answered.headers, outcome.answered.body
    )
    if not case.kept:
        assert outcome.request is None, "it was to be refused before it reaches the journal"
    elif outcome.request is None:
        wrong.append("it is not in the journal")
    else:
        decoded = _decoded(outcome.request, case)
        wrong += decoded_differs(case, decoded)
        if not wrong:
            wrong += stored_differs(case, outcome.request, outcome.fresh, outcome.events)
        wrong += rejected_differs(case, outcome.rejected)
    assert not wrong, f"{case.why}\n" + "\n".join(wrong)


def rejected_differs(case: Case, rows: list[dict[str, Any]]) -> list[str]:
    found = sorted(row["reason"] for row in rows)
    expected = sorted(one["reason"] for one in case.rejected)
    return [] if found == expected else [f"rejected rows {found}, expected {expected}"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", [case for case in CASES if case.kept], ids=lambda case: case.name)
def test_replay_gives_the_same_rows(case: Case, played: dict[str, Outcome]) -> None:
    outcome = played[case.name]
    assert outcome.events_replayed == outcome.events
    assert outcome.rejected_replayed == outcome.rejected
    assert (
        len(outcome.events) + len(outcome.rejected) > 0
        or case.received == case.heartbeats
        or (not any(outcome.fresh))
    )
