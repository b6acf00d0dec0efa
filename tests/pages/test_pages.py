"""The console in a real browser: every page, stored text stays text, the login, the live view."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    expect,
)

from bench.traffic import nucleus
from headwater.view.pages import PAGES
from tests.chromium import chromium
from tests.pages import hostile, shop
from tests.served import Served

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
#: How long a page may take to show what it asked for, on a machine that has other tests to run.
SHOWN_MS = 20_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("console"), shop.accounts()) as running:
        assert set(shop.send(running.collect_port, shop.requests_now())) >= {200, 204}
        shop.send(running.collect_port, hostile.requests())
        running.wait_loaded()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport=DESKTOP)
    opened.request.get(f"{served.console}/?token={served.token()}", max_redirects=0)
    yield opened
    opened.close()


class Complaints:
    """What a page says to its console, and the errors that nobody caught."""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        page.on("console", self._told)
        page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))

    def _told(self, told: ConsoleMessage) -> None:
        if told.type == "error":
            self.said.append(told.text)


def addresses(served: Served) -> list[str]:
    """Of every page there is; a page of one thing, of the one with the most hostile name."""
    (event,) = served.query(
        "SELECT event_id FROM events WHERE name LIKE '%onerror%' AND kind = 'error' LIMIT 1"
    )
    (person,) = served.query(
        "SELECT person_id FROM events WHERE name LIKE '%onerror%' AND person_id IS NOT NULL"
        " GROUP BY person_id ORDER BY max(length(name)) DESC, count() DESC, person_id LIMIT 1"
    )
    idents = {"/people/{ident}": person["person_id"], "/events/{ident}": event["event_id"]}
    return [page.path.replace("{ident}", idents.get(page.path, "")) for page in PAGES]


def settled(page: Page) -> None:
    """Wait until nothing is on its way any more (the live feed always is)."""
    page.wait_for_function(
        "() => !document.querySelector('[aria-busy=true]')"
        " && document.querySelector('main').innerText.length > 60",
        timeout=SHOWN_MS,
    )
    page.wait_for_timeout(250)


def test_every_page_shows_itself_without_a_complaint_and_runs_nothing_that_was_stored(
    browser: Browser, served: Served
) -> None:
    opened = browser.new_context(viewport=DESKTOP, color_scheme="light")
    opened.request.get(f"{served.console}/?token={served.token()}", max_redirects=0)
    for path in addresses(served):
        page = opened.new_page()
        complaints = Complaints(page)
        page.goto(f"{served.console}{path}")
        settled(page)
        _look_over(page, path, DESKTOP)
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(250)
        _look_over(page, path, PHONE)
        page.close()
        assert (path, complaints.said) == (path, [])
    opened.close()


def _look_over(page: Page, path: str, size: ViewportSize) -> None:
    seen = page.evaluate(
        """() => ({
            pwned: window.pwned,
            made: document.querySelectorAll(
                'img[src="x"], svg[onload], a[href^="javascript"], main script').length,
            width: document.documentElement.scrollWidth,
            refused: [...document.querySelectorAll('.refusal')].map(one => one.innerText),
            heading: document.querySelector('main h1')?.innerText || '',
            nameless: [...document.querySelectorAll(
                    'main input, main select, main textarea')]
                .filter(one => one.type !== 'hidden' && !one.hidden && !one.labels?.length
                    && !one.getAttribute('aria-label')).map(one => one.outerHTML),
        })"""
    )
    assert seen["pwned"] is None, path
    assert (path, seen["made"]) == (path, 0)
    assert (path, seen["refused"]) == (path, [])
    assert (path, seen["width"]) == (path, size["width"])
    assert (path, bool(seen["heading"])) == (path, True)
    assert (path, seen["nameless"]) == (path, [])


def test_a_browser_signs_in_and_out(browser: Browser, served: Served) -> None:
    opened = browser.new_context(viewport=DESKTOP)
    page = opened.new_page()
    page.goto(f"{served.console}/sql?sql=SELECT+41%2B1+AS+answer")
    assert page.url.startswith(f"{served.console}/login")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not a token")
    page.get_by_label("Token").fill(served.token())
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("cell", name="42")).to_be_visible()
    (cookie,) = opened.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    assert page.url == f"{served.console}/login"
    page.goto(f"{served.console}/sql")
    assert page.url.startswith(f"{served.console}/login")
    opened.close()


def test_a_page_elsewhere_can_neither_frame_nor_change_the_console(
    context: BrowserContext, served: Served
) -> None:
    page = context.new_page()
    elsewhere = served.console.replace("127.0.0.1", "elsewhere.example")
    page.route(
        "http://elsewhere.example/**",
        lambda route: route.fulfill(body="<p>elsewhere</p>", content_type="text/html"),
    )
    page.goto("http://elsewhere.example/")
    got = page.evaluate(
        """async (console) => {
            const tried = [];
            for (const init of [{method: 'POST'}, {method: 'POST', mode: 'no-cors'}])
                try {
                    await fetch(console + '/api/backup', {credentials: 'include', ...init});
                    tried.push('sent');
                } catch { tried.push('refused'); }
            return tried;
        }""",
        served.console,
    )
    assert got[0] == "refused"
    assert "a backup" not in served.log.read_text()
    # The name leads here, but it is not the console's: a page that points its own name at this
    # machine gets nothing (DNS rebinding).
    answer = page.goto(f"{elsewhere}/api/health")
    assert answer is not None
    assert answer.status == 421


def test_what_is_acknowledged_is_on_the_live_page_within_a_second(
    context: BrowserContext, served: Served
) -> None:
    page = context.new_page()
    page.goto(f"{served.console}/")
    expect(page.locator("#state")).to_have_text("live", timeout=SHOWN_MS)
    waits = []
    for number in range(7):
        name = f"seen-{number}"
        wire = nucleus(1)(900_000 + number)
        body = wire.body.replace(b"PLAYED_TRACK", name.encode())
        assert shop.send(served.collect_port, [_with(wire, body)]) == [200]
        began = time.monotonic()
        page.wait_for_function(
            "name => [...document.querySelectorAll('#events td')]"
            ".some(cell => cell.innerText === name)",
            arg=name,
            timeout=SHOWN_MS,
            polling=20,
        )
        waits.append(time.monotonic() - began)
    assert statistics.median(waits) < 1.0, waits


def _with(wire: Any, body: bytes) -> Any:
    return type(wire)(method=wire.method, target=wire.target, headers=wire.headers, body=body)


def test_the_live_page_keeps_up_with_a_thousand_events_a_second(
    context: BrowserContext, served: Served
) -> None:
    page = context.new_page()
    complaints = Complaints(page)
    page.goto(f"{served.console}/")
    expect(page.locator("#state")).to_have_text("live", timeout=SHOWN_MS)
    seconds, a_second = 6, 100
    make = nucleus(10)
    sent = 0

    def load() -> None:
        nonlocal sent
        until = time.monotonic() + seconds
        for number in range(seconds * a_second):
            shop.send(served.collect_port, [make(1_000_000 + number)])
            sent += 10
            time.sleep(max(0.0, until - seconds + number / a_second - time.monotonic()))

    thread = threading.Thread(target=load)
    thread.start()
    page.wait_for_timeout(seconds * 1_000 - 1_500)
    shown = page.evaluate(
        """() => new Promise(done => {
            const began = performance.now();
            let frames = 0;
            const tick = () => {
                frames += 1;
                if (performance.now() - began < 1000) requestAnimationFrame(tick);
                else done({frames, rows: document.querySelectorAll('#events tbody tr').length,
                           rate: document.getElementById('rate').innerText});
            };
            requestAnimationFrame(tick);
        })"""
    )
    thread.join()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text("paused")
    assert shown["rows"] <= 200
    assert shown["frames"] >= 5, "the page is stuck"
    rate = shown["rate"].split(" ")[0]
    seen = float(rate.removesuffix("K")) * (1_000 if rate.endswith("K") else 1)
    assert seen > 0.5 * sent / seconds, (shown, sent)
    assert complaints.said == []


def test_the_pages_work_by_keyboard(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(f"{served.console}/sql")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("Query").focus()
    page.get_by_label("Query").fill("SELECT count() AS n FROM events WHERE dialect = 'orbee'")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result table")).to_be_visible(timeout=SHOWN_MS)
    assert "sql=SELECT" in page.url
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Query")).not_to_be_focused()


def test_a_query_is_kept_as_a_file_and_drawn(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(f"{served.console}/sql")
    page.get_by_label("Query").fill(
        "SELECT dialect, count() AS events FROM events GROUP BY dialect"
    )
    page.get_by_role("button", name="Run").click()
    page.get_by_label("as a chart").check()
    expect(page.locator("#result .chart .main-svg").first).to_be_visible(timeout=SHOWN_MS)
    page.get_by_label("Name").fill("by dialect")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("button", name="by dialect", exact=True)).to_be_visible()
    assert (served.data / "queries" / "by dialect.sql").read_text().startswith("SELECT dialect")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove by dialect").click()
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_the_first_page_is_painted_in_a_second(context: BrowserContext, served: Served) -> None:
    waits = []
    for _ in range(3):
        page = context.new_page()
        page.goto(f"{served.console}/", wait_until="commit")
        page.wait_for_function(
            "() => performance.getEntriesByName('first-contentful-paint').length"
        )
        waits.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        page.close()
    assert statistics.median(waits) < 1_000, waits
