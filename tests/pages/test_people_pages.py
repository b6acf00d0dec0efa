"""People in a real browser: found, looked at, mended, taken away, erased."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.chromium import chromium
from tests.served import Served
from tests.test_app import ACCOUNTS
from tests.test_person import APP, AT, key, nucleus, vaix

EVIL = "<img src=x onerror=document.title=1>"
USER = key("nucleus:user", APP, "page-u")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("people"), ACCOUNTS) as running:
        first = {"type": "init", "name": "init", "id": 1, "date": AT, "anonId": "page-a"}
        more = [
            {"name": f"STEP {n % 3}", "id": 10 + n, "date": AT + 60_000 * n, "anonId": "page-a"}
            for n in range(70)
        ]
        other = {"name": "OTHER", "id": 9, "date": AT, "anonId": "page-b", "userId": "page-u"}
        nucleus(running, first, *more, other)
        running.wait_loaded()
        said = {"date": AT + 9_000_000, "anonId": "page-a", "userId": "page-u"}
        nucleus(
            running,
            {"type": "userid", "name": "userid", "id": 2, **said},
            {"type": "props", "name": "props", "id": 3, **said, "payload": {"plan": EVIL}},
            {"name": EVIL, "id": 4, **said},
        )
        vaix(running, "gone-u")
        running.wait_loaded()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 390, "height": 844})
    opened.set_default_timeout(20_000)
    opened.request.get(f"{served.console}/?token={served.token()}", max_redirects=0)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    assert complaints == []


def test_somebody_is_found_from_the_keyboard_and_looked_at(served: Served, page: Page) -> None:
    page.goto(f"{served.console}/people")
    expect(page.locator("#people")).to_contain_text("page-u")
    field = page.get_by_label("Find")
    expect(field).to_be_focused()
    field.fill("page-a")
    field.press("Enter")
    expect(page.locator("#h-people")).to_contain_text("page-a")
    assert page.url.endswith("?find=page-a")
    page.locator("#people a").first.click()
    expect(page.locator("h1")).to_contain_text("page-u")
    expect(page.locator("#head")).to_contain_text("known")
    expect(page.locator("#identities")).to_contain_text("page-a")
    expect(page.locator("#sessions tbody tr")).to_have_count(1)
    expect(page.locator("#profile")).to_contain_text(EVIL)
    expect(page.locator("#timeline li")).to_have_count(50)
    expect(page.locator("#timeline li").first).to_contain_text(EVIL)
    page.get_by_role("button", name="Older").click()
    expect(page.locator("#timeline li")).to_have_count(75)
    page.get_by_label("Name").select_option("STEP 1")
    expect(page.locator("#timeline li")).to_have_count(23)
    assert "name=STEP+1" in page.url
    page.go_back()
    expect(page.locator("#timeline li")).to_have_count(50)
    page.get_by_text("As it came to be").click()
    expect(page.locator("#history tbody tr")).to_have_count(1)
    link = page.locator("#timeline a").first.get_attribute("href")
    assert link is not None
    assert link.startswith("/events/")
    assert page.title() == "page-u · Headwater", "nothing that was stored ran"
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert page.evaluate(wide) is False, "a phone shows it without moving sideways"


def test_an_export_is_a_file(served: Served, page: Page, tmp_path: Path) -> None:
    page.goto(f"{served.console}/people/{USER}")
    expect(page.locator("#head")).to_contain_text("page-u")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    file = tmp_path / "export.jsonl"
    download.value.save_as(file)
    assert download.value.suggested_filename == f"person-{USER}.jsonl"
    assert msgspec.json.decode(file.read_bytes().splitlines()[-1])["end"]["event"] == 75


def test_a_merge_is_undone_and_allowed_again(served: Served, page: Page) -> None:
    page.goto(f"{served.console}/people/{USER}")
    merges = page.locator("#merges")
    expect(merges).to_contain_text("page-a")
    merges.get_by_role("button", name="Undo").click()
    expect(merges).to_contain_text("undone")
    expect(page.locator("#head")).to_contain_text("Events4")
    merges.get_by_role("button", name="Let it count again").click()
    expect(page.locator("#head")).to_contain_text("Events75")


def test_an_erasure_needs_the_name_and_ends_with_a_receipt(served: Served, page: Page) -> None:
    person = key("vaix:user", "g1", "gone-u")
    page.goto(f"{served.console}/people/{person}")
    expect(page.locator("h1")).to_contain_text("gone-u")
    page.get_by_role("button", name="Erase this person").click()
    go = page.locator("#go")
    expect(go).to_be_disabled()
    page.locator("#typed").fill("gone")
    expect(go).to_be_disabled()
    page.locator("#typed").press("Escape")
    page.get_by_role("button", name="Erase this person").click()
    page.locator("#typed").fill("gone-u")
    expect(go).to_be_enabled()
    page.locator("#typed").press("Enter")
    expect(page.locator("#erased")).to_contain_text("Keep this receipt", timeout=60_000)
    expect(page.locator("h1")).to_have_text("Erased")
    assert served.query(f"SELECT count() AS n FROM erasures WHERE person_id = '{person}'") == [
        {"n": 1}
    ]
    assert served.query("SELECT count() AS n FROM events WHERE dialect = 'vaix'") == [{"n": 0}]
    page.goto(f"{served.console}/people/{person}")
    expect(page.locator("#head")).to_contain_text("was erased at")


def test_nobody_is_said_in_words(served: Served, page: Page) -> None:
    page.goto(f"{served.console}/people?find=never-seen")
    expect(page.locator("#people")).to_contain_text("Nobody carries that")
    page.goto(f"{served.console}/people/00000000-0000-8000-8000-000000000001")
    expect(page.locator("#head")).to_contain_text("no such person")
