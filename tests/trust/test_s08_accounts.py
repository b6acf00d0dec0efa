"""S8: every route × every kind of key. A row stands under the account of the key, or nowhere."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from headwater.decode.dialects import DIALECTS as TABLE
from tests.served import Served
from tests.trust.dialect_requests import SUCCESS
from tests.trust.routes import ANSWERED, KEEPS_NOTHING, MATRIX, UPGRADE, nucleus_body
from tests.trust.serving import (
    ACME,
    OTHER,
    REVOKED,
    UNKNOWN,
    Answer,
    Keys,
    account,
    ask,
    ask_all,
    bearer,
    journaled,
    kept_from,
    request,
    source,
)

RELOAD_SECONDS_MAX = 5.0
#: The kinds of key, and the account that each names.
KINDS: dict[str, tuple[Keys, str]] = {
    "own": (ACME, "acme"),
    "of another account": (OTHER, "other"),
    "unknown": (UNKNOWN, ""),
    "revoked": (REVOKED, ""),
}
CELLS = [(route, kind) for route in MATRIX for kind in KINDS]


def name(cell: object) -> str:
    return " ".join(cell) if isinstance(cell, tuple) else str(cell)


@pytest.fixture(scope="module")
def reloaded(served: Served) -> None:
    """The account `gone` is in force, is used, and is then taken out by a reload."""
    for route, make in MATRIX.items():
        answer = ask(served.collect_port, make(REVOKED, "early"), source=source(8, 9_000))
        assert answer.status == expected(route, "gone")
    served.config.write_text(served.config.read_text().replace(account("gone", REVOKED), ""))
    served.reload()
    began = time.monotonic()
    while any(
        ask(served.collect_port, make(REVOKED, "waiting")).status == expected(route, "gone")
        for route, make in MATRIX.items()
        if route[2] == "POST"
    ):
        assert time.monotonic() - began < RELOAD_SECONDS_MAX
        time.sleep(0.1)


def expected(route: tuple[str, str, str], owner: str) -> int:
    """The status for a key of `owner`, "" for a key of nobody."""
    dialect, _, method = route
    if route in ANSWERED:
        return ANSWERED[route]
    if not owner:
        return 401 if dialect == "vaix" else 404
    return 101 if method == UPGRADE else SUCCESS[dialect]


@pytest.fixture(scope="module")
def answered(served: Served, reloaded: None) -> dict[Any, tuple[str, Answer]]:
    found = {}
    for number, (route, kind) in enumerate(CELLS):
        address = source(8, number)
        data = MATRIX[route](KINDS[kind][0], f"cell{number}")
        found[route, kind] = address, ask(served.collect_port, data, source=address)
    return found


@pytest.fixture(scope="module")
def rows(served: Served, answered: object) -> dict[str, set[str]]:
    """The accounts that have a row of a request, by the address that it left from."""
    served.wait_loaded()
    found: dict[str, set[str]] = {}
    for peer, kept in kept_from(served, 8).items():
        ids = ", ".join(f"'{one.request_id.hex()}'" for one in kept)
        for table in ("events", "rejected"):
            for row in served.query(
                f"SELECT DISTINCT account FROM {table}"
                f" WHERE replaceAll(toString(request_id), '-', '') IN ({ids})"
            ):
                found.setdefault(peer, set()).add(row["account"])
        assert {one.account for one in kept} == found[peer]
    return found


def test_every_route_has_its_row_in_the_matrix() -> None:
    """Who adds a route adds what it does with another account's key."""
    routes = set()
    for dialect in TABLE:
        for route in dialect.ROUTES:
            methods = (*route.methods, *([UPGRADE] if route.websocket else []))
            routes |= {(str(dialect.NAME), route.path, method) for method in methods}
    assert routes == set(MATRIX)


@pytest.mark.parametrize(("route", "kind"), CELLS, ids=name)
def test_a_key_opens_its_own_account_and_no_other(
    route: tuple[str, str, str],
    kind: str,
    answered: dict[Any, tuple[str, Answer]],
    rows: dict[str, set[str]],
) -> None:
    address, answer = answered[route, kind]
    owner = KINDS[kind][1]
    assert answer.status == expected(route, owner)
    keeps = owner and route not in KEEPS_NOTHING
    assert rows.get(address, set()) == ({owner} if keeps else set())


# --- keys that are nearly somebody's -----------------------------------------------------------


def variants(key: str) -> dict[str, str]:
    """A key written otherwise; none of them is the key."""
    return {
        "in other case": key.swapcase() if key.swapcase() != key else key + "x",
        "cut": key[:-1],
        "longer": key + "0",
        "with a NUL": key + "%00",
        "with a space": key + "%20",
        "with a dot": key + ".",
        "escaped twice": "%25" + f"{ord(key[0]):02x}" + key[1:],
        "a star": "*",
        "a percent sign": "%25",
        "two keys": key + "," + OTHER.app,
        "up and down": "x%2f..%2f" + key,
        "a quote": key + "'%20OR%20'1'='1",
        "full-width": "".join(f"%EF%BC%{0x90 + int(c):02X}" if c.isdigit() else c for c in key),
        "bad UTF-8": key + "%ff",
    }


NEARLY = [
    (dialect, case)
    for dialect in ("nucleus", "vibetrace", "orbee", "gamooga")
    for case in variants("a1")
]
#: A company is compared as a UUID: trimmed, in lower case.
SAME = {("gamooga", "in other case"), ("gamooga", "with a space")}


@pytest.mark.parametrize(("dialect", "case"), NEARLY)
def test_a_key_written_otherwise_is_nobodys(dialect: str, case: str, served: Served) -> None:
    address = source(8, 2_000 + NEARLY.index((dialect, case)))
    if dialect == "nucleus":
        aim = f"/app/{variants(ACME.app)[case]}/track"
        data = request("POST", aim, body=nucleus_body("nearly"))
    elif dialect == "vibetrace":
        data = request("GET", f"/event/{variants(ACME.shop)[case]}/nearly?data=%5B%7B%7D%5D")
    elif dialect == "orbee":
        body = b'{"action":"n","object":"n","vendor":"v","product":"p","instance_id":"i"}'
        data = request("POST", f"/collect/1/{variants('1')[case]}/event", body=body)
    else:
        key = variants(ACME.company)[case]
        data = request("GET", f"/evwid/?c={key}&u=u1&e=nearly")
    answer = ask(served.collect_port, data, source=address)
    if (dialect, case) in SAME:
        assert answer.status == 200
        return
    assert answer.status == 404
    assert address not in kept_from(served, 8)


TOKENS = {
    "none": (),
    "empty": ("Authorization:",),
    "no scheme": (f"Authorization: {ACME.token}",),
    "Basic": (f"Authorization: Basic {ACME.token}",),
    "two tokens": (f"Authorization: Bearer {ACME.token} {OTHER.token}",),
    "two lines": (f"Authorization: Bearer {UNKNOWN.token}", f"Authorization: Bearer {ACME.token}"),
    "its hash": ("Authorization: Bearer sha256:" + "0" * 64,),
    "in another field": (f"X-Authorization: Bearer {ACME.token}",),
    "in a cookie": (f"Cookie: token={ACME.token}",),
    "in other case": (f"Authorization: Bearer {ACME.token.upper()}",),
    "longer": (f"Authorization: Bearer {ACME.token}x",),
    "a NUL's escape": (f"Authorization: Bearer {ACME.token}%00",),
    "8,000 letters": ("Authorization: Bearer " + "x" * 8_000,),
    "an unsigned JWT": (
        "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJhIn0.",
        "x-vaix-authentication-method: iam",
    ),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_token_that_is_none_is_refused(case: str, served: Served) -> None:
    address = source(8, 3_000 + list(TOKENS).index(case))
    body = b'{"event_type":"matrix:token"}'
    fields = ("x-vaix-client-id: g1", *TOKENS[case])
    answer = ask(
        served.collect_port,
        request("POST", f"/api/tracker/events?token={ACME.token}", *fields, body=body),
        source=address,
    )
    assert answer.status == (400 if case == "two lines" else 401)
    assert address not in kept_from(served, 8)


# --- one key outside, another within -----------------------------------------------------------

#: A request under a key of acme's that claims to be other's wherever a client may write.
CLAIMS = {
    "nucleus, in its body": request(
        "POST", f"/app/{ACME.app}/track", body=nucleus_body("claim", OTHER.app)
    ),
    "nucleus, in the query": request(
        "POST", f"/app/{ACME.app}/track?appId={OTHER.app}&app={OTHER.app}", body=nucleus_body("q")
    ),
    "vibetrace, in the query": request(
        "GET", f"/event/{ACME.shop}/claim?account={OTHER.shop}&data=%5B%7B%7D%5D"
    ),
    "vibetrace, in the data": request(
        "POST",
        f"/event/{ACME.shop}/claim",
        body=b'{"account":"OTHER9","data":[{"account":"other"}]}',
    ),
    "orbee, in its body": request(
        "POST",
        f"/collect/{ACME.tracker}/event",
        body=b'{"action":"a","object":"claim","vendor":"v","product":"p","instance_id":"i",'
        b'"aid":2,"tid":7,"account":"other"}',
    ),
    "gamooga, a second c": request(
        "GET", f"/evwid/?c={ACME.company}&c={OTHER.company}&u=u1&e=claim"
    ),
    "gamooga, c in the form as well": request(
        "POST", f"/evwid/?c={ACME.company}", body=f"c={OTHER.company}&u=u1&e=claim".encode()
    ),
    "gamooga, an escaped c": request(
        "GET", f"/evwid/?c={ACME.company}&%63={OTHER.company}&u=u1&e=claim"
    ),
    "gamooga, an escaped c first": request(
        "GET", f"/evwid/?%63={OTHER.company}&c={ACME.company}&u=u1&e=claim"
    ),
    "gamooga, in the JSON": request(
        "POST",
        f"/evwidj/?c={ACME.company}&u=u1&e=claim",
        body=msgspec.json.encode({"c": OTHER.company}),
    ),
    "vaix, in its body": request(
        "POST",
        f"/api/tracker/events?account=other&token={OTHER.token}",
        *bearer(ACME.token),
        f"Cookie: token={OTHER.token}",
        body=b'{"event_type":"matrix:claim","account":"other","data":{"account":"other"}}',
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_what_a_request_claims_within_counts_for_nothing(case: str, served: Served) -> None:
    address = source(8, 4_000 + list(CLAIMS).index(case))
    answer = ask(served.collect_port, CLAIMS[case], source=address)
    assert answer.status in (200, 204)
    (kept,) = kept_from(served, 8)[address]
    assert kept.account == "acme"
    served.wait_loaded()
    found = served.query(
        "SELECT DISTINCT account, scope FROM events"
        f" WHERE replaceAll(toString(request_id), '-', '') = '{kept.request_id.hex()}'"
    )
    assert [row["account"] for row in found] == ["acme"]
    assert OTHER.company not in found[0]["scope"]


def test_one_connection_may_carry_several_accounts_and_mixes_none(served: Served) -> None:
    """A header block that is remembered brings its own key, and no one else's."""
    port, address = served.collect_port, source(8, 5_000)
    route = ("vaix", "/api/tracker/events", "POST")
    turns = [ACME, OTHER, UNKNOWN, ACME, ACME, OTHER, REVOKED, OTHER, ACME, UNKNOWN] * 5
    data = [MATRIX[route](keys, "turns") for keys in turns]
    answers = ask_all(port, data, source=address)
    assert [one.status for one in answers] == [204 if k in (ACME, OTHER) else 401 for k in turns]
    kept = [one.account for one in kept_from(served, 8)[address]]
    assert kept == ["acme" if k is ACME else "other" for k in turns if k in (ACME, OTHER)]


@pytest.mark.parametrize("path", ["/app/{}/track", "/{}", "/{}/"])
def test_messages_stand_under_the_app_of_the_handshake(path: str, served: Served) -> None:
    number = ["/app/{}/track", "/{}", "/{}/"].index(path)
    base = f"ws://127.0.0.1:{served.collect_port}"
    for keys, owner in ((ACME, "acme"), (OTHER, "other")):
        mark = f"socket{number}{owner}"
        with connect(base + path.format(keys.app)) as wire:
            wire.send(nucleus_body(mark, (OTHER if keys is ACME else ACME).app).decode())
            assert msgspec.json.decode(wire.recv(10)) == {"reportedIds": [mark]}
        served.wait_loaded()
        found = served.query(f"SELECT account FROM events WHERE name = '{mark}'")
        assert [row["account"] for row in found] == [owner]
    for keys in (UNKNOWN, REVOKED):
        with pytest.raises(InvalidStatus) as refused, connect(base + path.format(keys.app)):
            pass
        assert refused.value.response.status_code == 404


def test_a_visitor_of_one_account_is_none_of_another(served: Served) -> None:
    """The same user asked for under two companies has two visitors."""

    def visitor(keys: Keys) -> str:
        answer = ask(served.collect_port, request("GET", f"/id/?c={keys.company}&u=same-user"))
        found: str = msgspec.json.decode(answer.body)["vid"]
        return found

    assert visitor(ACME) != visitor(OTHER)
    assert visitor(ACME) == visitor(ACME)


def test_no_token_is_in_the_journal_and_none_of_nobodys_requests(served: Served) -> None:
    for kept in journaled(served.data).values():
        for one in kept:
            assert one.account in ("acme", "other", "gone")
            assert "authorization" not in one.headers
