"""The browser side in Debian's Chromium: a shop's pages on another origin, its PHP server, and a
whole Headwater that both send to. What is believed of events is asked in SQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from tests.browser_side.shop import QUIET_MS, Visitor, named, php, until, visiting
from tests.chromium import chromium
from tests.served import Served

#: A Vibetrace account for each test, so that none sees another's events.
SHOPS = (
    *("cookie", "email", "vtsid", "first", "idle", "moving", "queue", "consent", "refusing"),
    *("gpc", "dnt", "ignoring", "offline", "lease", "leaving", "busy", "bounded", "blocked", "odd"),
    *("proxied", "renamed"),
)
ACCOUNTS = f"""[accounts.acme.vibetrace]
accounts = {json.dumps(SHOPS)}
[accounts.acme.orbee]
trackers = ["1/1", "1/2"]
"""
YEAR_SECONDS = 365 * 86_400


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), ACCOUNTS) as running:
        yield running


@pytest.fixture(scope="module")
def port(served: Served) -> Iterator[int]:
    with php(served.collect) as listening:
        yield listening


@pytest.fixture
def visitor(browser: Browser, served: Served, port: int) -> Iterator[Visitor]:
    with visiting(browser, served, port) as one:
        yield one


def call(page: Page, code: str) -> Any:
    return page.evaluate(f"headwater.{code}")


# --- the three ways of identification, and Orbee's matching ------------------------------------


def test_way_1_the_server_sends_the_ids_of_the_cookie(visitor: Visitor, served: Served) -> None:
    page = visitor.open("cookie", way="cookie")
    page.click("#order button")
    assert page.inner_text("body") == '/**/vt({"status":"ok","received":1});'
    view, order = visitor.events("cookie", 2)
    assert (view["name"], view["kind"], order["name"]) == ("pageview", "page", "confirmation")
    assert view["person_id"] == order["person_id"] != None  # noqa: E711
    assert view["session_id"] == order["session_id"] != None  # noqa: E711
    assert (view["users"], view["sessions"]) == tuple([one] for one in visitor.ids())
    assert view["title"] == "Shop é"
    assert view["url"].startswith(f"http://localhost:{visitor.port}/shop.php?")


def test_way_2_the_server_sends_the_email_of_a_known_user(visitor: Visitor, served: Served) -> None:
    page = visitor.open("email", way="email", email="jane@example.com")
    call(page, "login(' Jane@Example.com', {source: 'popup'})")
    page.click("#order button")
    rows = visitor.events("email", 3)
    assert sorted(row["name"] for row in rows) == ["confirmation", "login", "pageview"]
    assert named(rows, "confirmation")["users"] == []
    (person,) = {row["person_id"] for row in rows}
    found = served.query(
        f"SELECT value FROM identities WHERE person_id = '{person}' AND namespace = 'email'"
    )
    assert found == [{"value": "jane@example.com"}]


def test_way_3_the_server_sends_the_vtsid_that_the_browser_has_bound(
    visitor: Visitor, served: Served
) -> None:
    page = visitor.open("vtsid", way="vtsid")
    vtsid = call(page, "vtsid()")
    page.evaluate("id => { document.querySelector('[name=vtsid]').value = id }", vtsid)
    page.click("#order button")
    assert "received" in page.inner_text("body")
    rows = visitor.events("vtsid", 3)
    assert named(rows, "confirmation")["users"] == []
    assert len({row["person_id"] for row in rows}) == 1
    assert rows[0]["person_id"] is not None
    page.go_back()
    until(page, "!!(window.headwater && headwater.track)")
    assert call(page, "vtsid('basket-7')") == "basket-7"


def test_orbee_a_servers_event_meets_its_browser_by_the_instance(
    visitor: Visitor, served: Served
) -> None:
    page = visitor.open("first", auto="off", orbee="1/1")
    instance = call(page, "instance(document.getElementById('lead'))")
    told = call(
        page,
        "orbee({action: 'view', object: 'form', vendor: 'Chat Co', product: 'Chat', score: 2})",
    )
    assert told == instance
    page.click("#lead button")
    assert page.inner_text("body") == "HTTP/1.1 204 No Content"
    (seen,) = visitor.events("1/1", 1)
    (lead,) = visitor.events("1/2", 1)
    assert (seen["name"], lead["name"]) == ("view:form", "submit:form")
    assert seen["person_id"] == lead["person_id"] != None  # noqa: E711
    identities = served.query(
        f"SELECT namespace, value FROM identities WHERE person_id = '{seen['person_id']}'"
        " ORDER BY namespace"
    )
    assert identities[0] == {"namespace": "orbee:duid", "value": visitor.ids()[0]}
    assert identities[1]["namespace"] == "orbee:instance"
    assert identities[1]["value"].split("\u001f") == ["Chat Co", "Chat", instance]


# --- sessions and pages ------------------------------------------------------------------------


def test_page_views_share_a_session_until_the_visitor_has_been_idle(
    visitor: Visitor, served: Served
) -> None:
    page = visitor.open("idle")
    first = visitor.ids()
    visitor.go(page, "idle")
    assert visitor.ids() == first
    cookie, active = visitor.cookie(), visitor.cookie("_vt_active")
    assert cookie is not None
    assert active is not None
    assert (cookie["path"], cookie["sameSite"], cookie["secure"]) == ("/", "Lax", False)
    assert abs(cookie["expires"] - time.time() - YEAR_SECONDS) < 60
    assert abs(active["expires"] - time.time() - 1_800) < 60
    visitor.events("idle", 2)  # what is sent side by side may come in any order
    visitor.context.clear_cookies(name="_vt_active")  # what 30 minutes do
    call(page, "track('back')")
    user, session = visitor.ids()
    assert user == first[0]
    assert session != first[1]
    rows = visitor.events("idle", 3)
    assert [row["sessions"] for row in rows] == [[first[1]], [first[1]], [session]]
    assert len({row["session_id"] for row in rows}) == 2
    assert len({row["person_id"] for row in rows}) == 1
    assert rows[1]["referrer"] == ""


def test_a_page_that_only_changes_its_address_is_viewed_again(
    visitor: Visitor, served: Served
) -> None:
    page = visitor.open("moving")
    page.evaluate(
        "history.pushState({}, '', '?article=1'); document.title = 'One';"
        " location.hash = 'part'; history.pushState({}, '', '?article=1#other')"
    )
    page.wait_for_timeout(250)
    page.evaluate("history.back(); document.title = 'Shop é'")
    page.wait_for_timeout(50)
    page.evaluate("history.go(-2)")
    rows = visitor.events("moving", 3)
    assert [row["url"].rpartition("?")[2] for row in rows][1] == "article=1"
    assert [row["title"] for row in rows] == ["Shop é", "One", "Shop é"]
    assert [row["referrer"] for row in rows] == ["", rows[0]["url"], rows[1]["url"]]


def test_what_was_pushed_before_the_script_came_is_sent(visitor: Visitor, served: Served) -> None:
    early = (
        "window._vteq = []; _vteq.push({confirmation: {items: [{id: 'a', quantity: 1}],"
        " orderId: 'o1', total: 12.5, userId: 'not me'}});"
        "_vteq.push(() => { window.bound = headwater.vtsid() })"
    )
    page = visitor.open("queue", auto="off", early=early)
    page.evaluate("_vteq.push({viewitem: {n: 1}}, {addtocart: {n: 2}})")
    rows = visitor.events("queue", 4)
    assert {row["name"] for row in rows} == {"confirmation", "vtsid", "viewitem", "addtocart"}
    assert len(page.evaluate("bound")) == 18
    (order,) = served.query(
        "SELECT toJSONString(properties) AS p FROM events WHERE scope = 'queue'"
        " AND name = 'confirmation'"
    )
    properties = json.loads(order["p"])
    assert abs(properties.pop("at") - time.time() * 1000) < 60_000
    assert properties == {
        "items": [{"id": "a", "quantity": 1}],
        "orderId": "o1",
        "total": 12.5,
        "userId": "not me",
    }
    assert named(rows, "confirmation")["users"] == [visitor.ids()[0]]
    assert len(visitor.sent) < 4  # neighbours go together


@pytest.mark.parametrize(
    ("shop", "extra"),
    [
        ("proxied", {"src": "/visits/headwater.js"}),
        ("renamed", {"src": "/visits/v.js", "collect": "/visits"}),
    ],
)
def test_behind_the_shops_own_address_the_script_finds_the_collector(
    visitor: Visitor, served: Served, shop: str, extra: dict[str, str]
) -> None:
    def forward(route: Route) -> None:
        path = route.request.url.partition("/visits")[2].replace("/v.js", "/headwater.js")
        route.fulfill(response=route.fetch(url=served.collect + path))

    visitor.context.route("**/visits/**", forward)
    visitor.open(shop, **extra)
    (view,) = visitor.events(shop, 1)
    assert view["users"] == [visitor.ids()[0]]


# --- consent and refusal -----------------------------------------------------------------------


def nothing(visitor: Visitor, page: Page) -> None:
    """No request, no cookie, no storage."""
    page.wait_for_timeout(QUIET_MS)
    assert visitor.sent == []
    assert visitor.context.cookies() == []
    assert visitor.stored(page) == []


def test_without_consent_nothing_happens_and_with_it_everything(
    visitor: Visitor, served: Served
) -> None:
    page = visitor.open("consent", consent="required")
    call(page, "track('early', {n: 1})")
    nothing(visitor, page)
    call(page, "consent(true)")
    rows = visitor.events("consent", 2)
    assert {row["name"] for row in rows} == {"pageview", "early"}
    assert rows[0]["users"] == [visitor.ids()[0]]
    visitor.context.set_offline(True)
    call(page, "track('queued')")
    until(page, "Object.keys(localStorage).length == 1")
    visitor.sent.clear()
    call(page, "consent(false)")
    visitor.context.set_offline(False)
    call(page, "track('late')")
    assert call(page, "vtsid()") == ""
    nothing(visitor, page)
    assert len(visitor.events("consent", 2)) == 2


def test_a_refusal_is_heard_in_the_visitors_other_tabs(visitor: Visitor, served: Served) -> None:
    one, other = visitor.open("refusing"), visitor.open("refusing")
    visitor.events("refusing", 2)
    call(one, "consent(false)")
    other.wait_for_timeout(QUIET_MS)
    visitor.sent.clear()
    call(other, "track('late')")
    nothing(visitor, other)
    call(one, "consent(true)")
    call(one, "track('again')")
    rows = visitor.events("refusing", 3)
    assert rows[2]["users"] == [visitor.ids()[0]]
    assert rows[2]["users"] != rows[0]["users"]


@pytest.mark.parametrize(
    ("shop", "signal"),
    [
        ("gpc", "Navigator.prototype, 'globalPrivacyControl', {get: () => true}"),
        ("dnt", "Navigator.prototype, 'doNotTrack', {get: () => '1'}"),
    ],
)
def test_who_does_not_want_to_be_followed_is_not(visitor: Visitor, shop: str, signal: str) -> None:
    visitor.context.add_init_script(f"Object.defineProperty({signal})")
    visitor.context.add_cookies(
        [{"name": "_vt_user", "value": "1_2_false_false", "domain": "localhost", "path": "/"}]
    )
    page = visitor.open(shop, orbee="1/1", early="window._vteq = [{login: {email: 'a@b.c'}}]")
    call(page, "consent(true)")
    call(page, "track('x')")
    call(page, "orbee({action: 'view'})")
    assert call(page, "vtsid()") == ""
    page.evaluate("history.pushState({}, '', '?article=2')")
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    nothing(visitor, page)


def test_do_not_track_may_be_overruled_by_the_page(visitor: Visitor, served: Served) -> None:
    visitor.context.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})"
    )
    visitor.open("ignoring", dnt="ignore")
    visitor.events("ignoring", 1)


# --- delivery ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shop", "host"), [("offline", "localhost"), ("lease", "shop.example")], ids=["locks", "lease"]
)
def test_what_was_told_offline_comes_once_whatever_tab_sends_it(
    visitor: Visitor, served: Served, shop: str, host: str
) -> None:
    pages = [visitor.open(shop, host) for _ in range(3)]
    assert pages[0].evaluate("!!navigator.locks") is (host == "localhost")
    visitor.events(shop, 3)
    visitor.context.set_offline(True)
    for n, page in enumerate(pages):
        call(page, f"track('told', {{n: {n}}})")
        page.wait_for_timeout(150)
        call(page, f"track('told', {{n: {n + 10}}})")
    until(pages[0], "Object.keys(localStorage).length == 6")
    pages.pop().close()
    visitor.context.set_offline(False)
    rows = visitor.events(shop, 9)
    assert sorted(int(row["n"]) for row in rows if row["name"] == "told") == [0, 1, 2, 10, 11, 12]
    until(pages[0], "!Object.keys(localStorage).some(key => key.includes('.q.'))")
    pages[0].wait_for_timeout(QUIET_MS)
    visitor.events(shop, 9)


def test_what_was_told_while_leaving_comes(visitor: Visitor, served: Served) -> None:
    early = "addEventListener('pagehide', () => headwater.track('bye', {n: 1}))"
    page = visitor.open("leaving", auto="off", early=early)
    call(page, "track('hello')")  # still waits for its neighbours
    page.goto("about:blank")
    page.close()
    rows = visitor.events("leaving", 2)
    assert {row["name"] for row in rows} == {"hello", "bye"}


def answer_once(context: BrowserContext, pattern: str, status: int, **headers: str) -> list[float]:
    """Let the first POST fail with a status; when each came."""
    times: list[float] = []

    def handle(route: Route) -> None:
        times.append(time.monotonic())
        if len(times) > 1:
            route.continue_()
            return
        allowed = {"access-control-allow-origin": "*", **headers}
        allowed["access-control-expose-headers"] = "retry-after"
        route.fulfill(status=status, headers=allowed)

    context.route(pattern, handle)
    return times


def test_a_busy_collector_is_asked_again_when_it_said(visitor: Visitor, served: Served) -> None:
    times = answer_once(visitor.context, "**/event/busy", 503, **{"retry-after": "1"})
    page = visitor.open("busy")
    until(page, "Object.keys(localStorage).length == 1")
    call(page, "track('meanwhile')")
    visitor.events("busy", 2)
    assert len(times) == 3
    assert times[1] - times[0] >= 1.0
    until(page, "!Object.keys(localStorage).length")


def test_what_is_refused_is_never_sent_again(visitor: Visitor) -> None:
    page = visitor.open("unknown")
    with page.expect_response("**/event/unknown") as answered:
        call(page, "track('x')")
    assert answered.value.status == 404
    page.wait_for_timeout(QUIET_MS)
    assert visitor.stored(page) == []
    page.evaluate("dispatchEvent(new Event('online'))")
    sent = len(visitor.sent)
    page.wait_for_timeout(QUIET_MS)
    assert len(visitor.sent) == sent


def test_the_queue_is_bounded(visitor: Visitor, served: Served) -> None:
    page = visitor.open("bounded")
    visitor.events("bounded", 1)
    visitor.context.set_offline(True)
    page.evaluate(
        "(async () => { for (let n = 0; n < 30; n++) {"
        " headwater.track('told', {n, text: 'x'.repeat(4000)});"
        " dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow')); } })()"
    )
    sizes = page.evaluate("Object.values(localStorage).map(text => text.length)")
    assert 20 <= len(sizes) < 30
    assert sum(sizes) <= 100_000
    visitor.context.set_offline(False)
    rows = visitor.events("bounded", 1 + len(sizes))
    assert sorted(int(row["n"]) for row in rows[1:])[-1] == 29


def test_it_works_where_cookies_and_storage_are_blocked(visitor: Visitor, served: Served) -> None:
    block = "() => { throw new DOMException('blocked', 'SecurityError') }"
    visitor.context.add_init_script(
        f"Object.defineProperty(window, 'localStorage', {{get: {block}}});"
        f"Object.defineProperty(Document.prototype, 'cookie', {{get: {block}, set: {block}}})"
    )
    page = visitor.open("blocked")
    visitor.context.set_offline(True)
    call(page, "track('told', {n: 1})")
    page.wait_for_timeout(200)
    visitor.context.set_offline(False)
    rows = visitor.events("blocked", 2)
    assert len({row["users"][0] for row in rows}) == 1
    assert len({row["person_id"] for row in rows}) == 1


def test_nothing_that_a_page_does_makes_it_throw(visitor: Visitor, served: Served) -> None:
    page = visitor.open("odd", auto="off")
    page.evaluate(
        "() => { const loop = {}; loop.loop = loop;"
        " for (const odd of [undefined, null, 0, 'text', [], loop, Symbol('s'), 1n, () => 1])"
        " for (const name of Object.keys(headwater)) if (name != 'consent') headwater[name](odd);"
        " headwater.track('loop', loop); _vteq.push(null, 5, () => { throw 1 });"
        " headwater.track('good', {n: 1}) }"
    )
    page.wait_for_timeout(QUIET_MS)
    deadline = time.monotonic() + 10
    names: set[str] = set()
    while "good" not in names and time.monotonic() < deadline:
        rows = served.query("SELECT DISTINCT name FROM events WHERE scope = 'odd'")
        names = {row["name"] for row in rows}
    assert "good" in names
    assert "loop" not in names
