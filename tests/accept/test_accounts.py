"""Tokens and tenant ids to accounts; nobody reaches another's (rows S8 and S9)."""

from __future__ import annotations

import msgspec
import pytest

from headwater import config
from headwater.accept.accounts import Accounts, Admission
from headwater.accept.request import Rules
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from tests.accept.harness import ACME, APP, COMPANY, EVENT, client, get, on_loop, post, sha256, site

OTHER_COMPANY = "00000000-0000-4000-8000-000000000002"
OTHER = config.Account(
    name="other",
    vaix=config.VaixAccount(
        tokens=(sha256("other-token"), sha256("spare")),
        groups=("g2",),
        event_types=("clicks:event", "impressions:*"),
    ),
    orbee=config.OrbeeAccount(trackers=("2/2",), lenient=True),
    nucleus=config.NucleusAccount(apps=("app2",)),
    vibetrace=config.VibetraceAccount(accounts=("ACCT2",)),
    gamooga=config.GamoogaAccount(companies=(OTHER_COMPANY,)),
)
ACCOUNTS = Accounts({"acme": ACME, "other": OTHER}, public_host="collect.test", clock=system_clock)


def account_of(authorization: str, method: str = "") -> str | None:
    found = ACCOUNTS.authorize(authorization, method)
    return found.account if isinstance(found, Admission) else found


@pytest.mark.parametrize(
    ("authorization", "account"),
    [
        ("Bearer case-token", "acme"),
        ("bearer  case-token ", "acme"),
        ("Bearer other-token", "other"),
        ("Bearer spare", "other"),
        ("Bearer case-token2", None),
        ("Bearer case-toke", None),
        ("Bearer CASE-TOKEN", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        ("case-token", None),
        ("Basic case-token", None),
        ("Bearer " + sha256("case-token"), None),  # the hash opens nothing
        ("Bearer \xff\u0100", None),
    ],
)
def test_a_token_opens_its_own_account(authorization: str, account: str | None) -> None:
    assert account_of(authorization) == account
    assert account_of(authorization, "vaix") == account


def test_an_unknown_method_counts_only_with_a_bearer() -> None:
    assert account_of("Bearer case-token", "magic") == "bad method"
    assert account_of("Basic x", "magic") is None
    assert account_of("Bearer case-token", "iam") is None


def test_rules_are_the_accounts_own() -> None:
    assert ACCOUNTS.rules("other", "vaix") == Rules(
        event_types=frozenset({"clicks:event", "impressions:*"}), groups=frozenset({"g2"})
    )
    assert ACCOUNTS.rules("acme", "vaix") == Rules()
    assert ACCOUNTS.rules("other", "orbee").lenient
    assert ACCOUNTS.rules("acme", "gamooga").public_host == "collect.test"
    assert ACCOUNTS.rules("gone", "vaix") == Rules()
    found = ACCOUNTS.find("nucleus", "app2")
    assert found is not None
    assert (found.account, found.rules) == ("other", ACCOUNTS.rules("other", "nucleus"))
    assert ACCOUNTS.find("nucleus", "app1x") is None
    assert ACCOUNTS.find("vaix", "case-token") is None


DATA = b'{"data":[{"name":"x","sessionId":1,"deviceId":"d"}]}'
LEAD = b'{"action":"a","object":"o","vendor":"v","product":"p","instance_id":"i"}'


def calls(token: str, tracker: str, app: str, code: str, company: str) -> dict[str, bytes]:
    """A valid request for every route of every dialect, with the keys of one account."""
    tail = f"c={company}&e=x"
    return {
        "vaix events": post("/api/tracker/events", EVENT, token=token),
        "orbee event": post(f"/collect/{tracker}/event", LEAD),
        "nucleus track": post(f"/app/{app}/track", DATA),
        "vibetrace type": get(f"/event/{code}/login?data=%5B%7B%22userId%22%3A%221%22%7D%5D"),
        "vibetrace": get(f"/event/{code}/?data=%5B%7B%22userId%22%3A%221%22%7D%5D"),
        "gamooga ev": get(f"/ev/?{tail}&v=aaaaaaaaaaaaaaaa"),
        "gamooga evwid": get(f"/evwid/?{tail}&u=1"),
        "gamooga evwidj": post(f"/evwidj/?{tail}&u=1", b"{}"),
        "gamooga evvprwid": get(f"/evvprwid/?{tail}&u=1"),
        "gamooga vpr": get(f"/vpr/?c={company}&v=aaaaaaaaaaaaaaaa&p=a&vl=1&tp=n"),
        "gamooga id": get(f"/id/?c={company}&u=1"),
    }


OURS = calls("case-token", "1/1", APP, "ACCT123", COMPANY)
THEIRS = calls("other-token", "2/2", "app2", "ACCT2", OTHER_COMPANY)


@pytest.mark.parametrize("route", OURS)
@on_loop
async def test_a_key_of_another_account_opens_nothing(route: str) -> None:
    """With only `other` configured, acme's keys are unknown; with both, each writes to its own."""
    only_other = Accounts({"other": OTHER}, public_host="", clock=system_clock)
    async with site(accounts=only_other) as at, client(at.port) as c:
        assert (await c.ask(OURS[route])).status in (401, 404)
        assert at.journal.kept == []
    async with site(accounts=ACCOUNTS) as at, client(at.port) as c:
        assert (await c.ask(OURS[route])).status in (200, 204)
        theirs = THEIRS[route].replace(b"client-id: g1", b"client-id: g2")
        assert (await c.ask(theirs)).status in (200, 204)
        assert [kept.account for kept in at.journal.kept] == ["acme", "other"]


def test_every_route_has_such_a_test() -> None:
    """`newnaconf` writes nothing and is told apart by its company too."""
    asked = {name.split()[0]: 0 for name in OURS}
    for name in OURS:
        asked[name.split()[0]] += 1
    for dialect in DIALECTS:
        writing = [
            route for route in dialect.ROUTES if route.methods and "newnaconf" not in route.path
        ]
        assert asked[dialect.NAME] >= len(writing), dialect.NAME


@on_loop
async def test_a_group_that_is_not_the_tokens_is_403() -> None:
    async with site(accounts=ACCOUNTS) as at, client(at.port) as c:
        assert (await c.ask(post(token="other-token"))).status == 403
        assert at.journal.kept[0].refused


@on_loop
async def test_an_unknown_method_is_400_after_401() -> None:
    async with site() as at, client(at.port) as c:
        method = "x-vaix-authentication-method: magic"
        assert (await c.ask(post("/api/tracker/events", EVENT, method))).status == 400
        no_token = get("/api/tracker/events", method, method="POST")
        assert (await c.ask(no_token)).status == 401
        assert at.journal.kept == []
        assert b"case-token" not in msgspec.json.encode(at.journal.kept)
