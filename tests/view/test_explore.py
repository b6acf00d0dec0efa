"""Explore, funnels, retention and errors over the real path: events of several dialects through a
served Headwater, the API's figures against plain SQL, and the pages in a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from headwater.view.access import Who
from headwater.view.api import Answer
from headwater.view.question import Which, period_of
from tests.chromium import chromium
from tests.view.looking import APP, KEPT, VAIX, Looking, looking

EVIL = "<img src=x onerror=\"document.title='hit'\">"
NUCLEUS = 14
EVENTS = NUCLEUS + 5
STACK = "TypeError: boom\n    at run (/app/a.js:11:46)\n    at listOnTimeout (node:timers:581:17)"


def nucleus(minutes_ago: float, user: str, name: str, **given: Any) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return {
        "type": "event",
        "name": name,
        "date": at.isoformat(),
        "userId": user,
        "deviceId": f"device-{user}",
        "sessionId": 1,
        "id": hash((minutes_ago, user, name)) & 0xFFFFFF,
        "version": "1.2",
        **given,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looking]:
    with looking(tmp_path_factory.mktemp("explore")) as site:
        events = [
            *(
                nucleus(50, f"u{n}", "view", payload={"plan": "pro" if n < 4 else EVIL})
                for n in range(6)
            ),
            *(nucleus(30, f"u{n}", "cart", payload={"total": n + 0.5}) for n in range(3)),
            nucleus(20, "u0", "pay"),
            nucleus(60 * 24 * 8, "u1", "view"),
            nucleus(
                5, "u1", "TypeError", type="error", payload={"message": "boom", "stack": STACK}
            ),
            nucleus(
                4, "u2", "TypeError", type="error", payload={"message": "boom", "stack": STACK}
            ),
            nucleus(3, "u3", EVIL, type="error", payload={"message": EVIL, "stack": EVIL}),
        ]
        body = json.dumps({"data": events})
        assert site.send("POST", f"/app/{APP}/track", body) == 200
        for page in ("https://shop.example/a?x=1", "https://shop.example/a?x=2", EVIL):
            data = json.dumps(
                [{"type": "pageview", "userId": "7", "sessionId": "8", "generic": {"url": page}}]
            )
            assert site.send("GET", f"/event/ACCT123/pageview?{urlencode({'data': data})}") == 200
        click = {"user_id": "5", "event_type": "clicks:event", "data": {"page": "/home"}}
        headers = {"authorization": f"Bearer {VAIX}", "x-vaix-client-id": "group-a"}
        assert site.send("POST", "/api/tracker/events", json.dumps(click), headers) == 204
        form = {
            "action": "view",
            "object": "form",
            "vendor": "V",
            "product": "P",
            "instance_id": "i",
        }
        assert site.send("POST", "/collect/2/2/event", json.dumps(form)) == 204
        site.served.wait_loaded()
        yield site


def asked(site: Looking, path: str, **query: Any) -> Any:
    return site.got("GET", f"{path}?{urlencode(query, doseq=True)}")


def total(site: Looking, sql: str) -> Any:
    ((value,),) = (row.values() for row in site.served.query(sql))
    return value


def where(*parts: str) -> str:
    return json.dumps(parts)


# --- from when to when ----------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "first", "last", "since", "until"),
    [
        ({}, "2026-01-01T00:00:00Z", "2026-11-21T11:00:00Z", NOW - timedelta(days=1), NOW),
        # A demo of last week: the page has something to show.
        (
            {},
            "2026-11-10T00:00:00Z",
            "2026-11-12T10:00:00Z",
            datetime(2026, 11, 10, tzinfo=UTC),
            datetime(2026, 11, 12, 10, tzinfo=UTC) + timedelta(microseconds=1),
        ),
        (
            {"range": "all"},
            "2026-11-10T00:00:00Z",
            "2026-11-12T10:00:00Z",
            datetime(2026, 11, 10, tzinfo=UTC),
            NOW,
        ),
        # A client's clock is ahead.
        (
            {"range": "all"},
            "2026-11-21T12:00:05Z",
            "2026-11-21T12:00:05Z",
            datetime(2026, 11, 21, 12, 0, 4, 1, tzinfo=UTC),
            datetime(2026, 11, 21, 12, 0, 5, 1, tzinfo=UTC),
        ),
        ({}, None, None, NOW - timedelta(days=1), NOW),
        ({"range": "90min"}, None, None, NOW - timedelta(minutes=90), NOW),
        (
            {"since": "2026-11-21T01:00:00+01:00"},
            None,
            None,
            datetime(2026, 11, 21, tzinfo=UTC),
            NOW,
        ),
        (
            {"since": "2026-11-01", "until": "2026-11-02T00:00"},
            None,
            None,
            datetime(2026, 11, 1, tzinfo=UTC),
            datetime(2026, 11, 2, tzinfo=UTC),
        ),
    ],
)
def test_the_time_that_is_meant(
    given: dict[str, Any], first: str | None, last: str | None, since: datetime, until: datetime
) -> None:
    def span(sql: str, who: Who) -> Answer:
        events = 0 if first is None else 2
        return Answer(columns=["first", "last", "events"], types=[], rows=[[first, last, events]])

    found = period_of(
        Which(**given),
        timedelta(days=1),
        ask=span,
        who=Who("x", admin=False, accounts=None),
        clock=lambda: int(NOW.timestamp()) * 1_000_000,
    )
    assert (found.since, found.until) == (since, until)


# --- the API --------------------------------------------------------------------------------------


def test_the_usual_question_is_the_last_day(site: Looking) -> None:
    found = asked(site, "/api/explore", by="dialect")
    assert found["total"] == total(site, "SELECT count() FROM events") == EVENTS
    assert {row[1]: 0 for row in found["rows"]} == dict.fromkeys(
        ["nucleus", "orbee", "vaix", "vibetrace"], 0
    )
    assert found["unit"] == "hour"
    assert len(found["buckets"]) in (24, 25)
    assert {row[0] for row in found["rows"]} <= set(found["buckets"])
    length = datetime.fromisoformat(found["until"]) - datetime.fromisoformat(found["since"])
    assert length == timedelta(days=1)
    people = asked(site, "/api/explore", measure="people", by="name")
    assert people["total"] == total(site, "SELECT uniqExact(person_id) FROM events")
    sessions = asked(site, "/api/explore", measure="sessions")
    assert sessions["total"] == total(site, "SELECT uniqExact(session_id) FROM events")
    spent = asked(site, "/api/explore", measure="sum", of="properties.total")
    assert spent["total"] == 4.5


def test_every_answer_is_what_its_sql_gives(site: Looking) -> None:
    """As a link to the SQL page, as JSON and as CSV."""
    for path, query in (
        ("/api/explore", {"by": "properties.plan", "series": 1, "measure": "people"}),
        ("/api/explore/top", {"by": "page"}),
        ("/api/funnel", {"step": ['["view"]', '["cart"]'], "by": "dialect"}),
        ("/api/retention", {"unit": "day"}),
        ("/api/errors", {}),
    ):
        found = asked(site, path, **query)
        assert found["rows"], path
        again = asked(site, "/api/query", sql=found["sql"])
        assert again["rows"] == found["rows"]
        assert again["columns"] == found["columns"]


def test_the_time_before_stands_beside(site: Looking) -> None:
    found = asked(site, "/api/explore", range="7d", time="occurred_at", by="name", compare="true")
    before = found["before"]
    assert before["until"] == found["since"]
    # u1 was there eight days ago; what was received then is another question.
    assert [(row[1], row[-1]) for row in before["rows"]] == [("view", 1)]
    assert (before["total"], found["total"]) == (1, EVENTS - 1)
    assert abs(len(before["buckets"]) - len(found["buckets"])) <= 1


def test_all_there_is_and_a_stretch_of_the_past(site: Looking) -> None:
    until = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    found = asked(site, "/api/explore", time="occurred_at", range="all")
    assert found["total"] == EVENTS
    found = asked(site, "/api/explore", account="acme", time="occurred_at", until=until, range="2d")
    assert found["total"] == 1


def test_the_largest_groups(site: Looking) -> None:
    pages = asked(site, "/api/explore/top", by="page", set_only="true")
    assert pages["rows"] == [["https://shop.example/a", 2], ["/home", 1], [EVIL, 1]]
    names = asked(site, "/api/explore/top", by="name", measure="people", limit=1)
    assert names["rows"] == [["view", 6, 7]]
    found = asked(site, "/api/explore/values", by="properties.plan", contains="<img")
    assert found["rows"] == [[EVIL, 2]]
    found = asked(
        site,
        "/api/explore/top",
        by="name",
        where=[where("properties.total", "greater", "1"), where("dialect", "is", "nucleus")],
    )
    assert found["rows"] == [["cart", 2]]


def test_what_can_be_asked_about(site: Looking) -> None:
    found = asked(site, "/api/explore/fields")
    assert {"dialect", "person_id"} <= set(found["columns"])
    assert {"page", "country"} <= set(found["words"])
    assert ["nucleus", "view", "track", 7] in [row[:4] for row in found["names"]["rows"]]
    paths = {row[0] for row in found["paths"]["rows"]}
    assert {"properties.plan", "properties.total", "context.version", "context.bot"} <= paths
    narrowed = asked(site, "/api/explore/fields", name="cart")
    assert "properties.plan" not in {row[0] for row in narrowed["paths"]["rows"]}


def test_a_funnel(site: Looking) -> None:
    found = asked(site, "/api/funnel", step=['["view"]', '["cart"]', '["pay"]'], window=7200)
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert [row["people"] for row in rows] == [6, 3, 1]
    assert [row["dropped"] for row in rows] == [0, 3, 2]
    assert rows[1]["of_first"] == 0.5
    assert rows[2]["median_seconds"] == pytest.approx(600, abs=5)
    narrow = ['["view",["properties.plan","is_not","pro"]]', '["cart"]']
    assert [row[1] for row in asked(site, "/api/funnel", step=narrow)["rows"]] == [2, 0]


def test_retention(site: Looking) -> None:
    found = asked(site, "/api/retention", unit="day", range="14d", start='["view"]')
    cohorts = {(row[0], row[1]): row[2] for row in found["rows"]}
    today, then = (datetime.now(UTC) - timedelta(minutes=50)).date(), datetime.now(UTC).date()
    then -= timedelta(days=8)
    assert cohorts[str(then), 0] == 1
    assert sum(people for (cohort, _), people in cohorts.items() if cohort == str(then)) >= 2
    assert cohorts[str(today), 0] == 5


def test_errors_and_one_of_them(site: Looking) -> None:
    found = asked(site, "/api/errors")
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert [(row["type"], row["frame"], row["events"], row["people"]) for row in rows] == [
        ("TypeError", "run (/app/a.js:11:46)", 2, 2),
        (EVIL, EVIL, 1, 1),
    ]
    one = asked(site, "/api/errors/one", error=rows[0]["error"])
    assert one["versions"]["rows"] == [["1.2", 2, 2]]
    sample = dict(zip(one["samples"]["columns"], one["samples"]["rows"][0], strict=True))
    assert sample["stack"] == STACK
    assert sample["event_id"] == rows[0]["sample"]
    status, refused = site.ask("GET", f"/api/errors/one?error={'0' * 32}")
    assert (status, refused["error"]) == (404, "there was no such error in this time")


@pytest.mark.parametrize(
    "query",
    [
        "/api/explore?nonsense=1",
        "/api/explore?where=name",
        "/api/explore?where=[]",
        "/api/explore?where=[1,2]",
        "/api/explore?range=soon",
        "/api/explore?range=99999w",
        "/api/explore?since=yesterday",
        "/api/explore?since=2026-11-21&until=2026-11-20",
        "/api/explore?since=0001-01-01T00:00:00%2B14:00",
        "/api/explore?zone=Mars",
        "/api/explore?zone='",
        "/api/explore?unit=minute&range=30d",
        "/api/explore?time=person_id",
        "/api/explore?measure=sum",
        "/api/explore?measure=most",
        "/api/explore?by=nothing",
        "/api/explore?by=name&series=0",
        "/api/explore/top?limit=0",
        "/api/funnel",
        "/api/funnel?step=[1]&step=[2]",
        "/api/funnel?step=[]&step=[]",
        "/api/retention?unit=hour",
        "/api/errors/one?error=1",
    ],
)
def test_what_makes_no_sense_is_refused_in_words(site: Looking, query: str) -> None:
    status, said = site.ask("GET", query)
    assert status == 400, said
    assert said["error"]


def test_a_token_of_one_account_sees_nothing_of_others(site: Looking) -> None:
    status, found = site.ask("GET", "/api/explore?by=dialect", token=KEPT)
    assert status == 200
    assert (found["total"], [row[1] for row in found["rows"]]) == (1, ["orbee"])
    for path in ("/api/errors", "/api/retention?account=acme", "/api/explore/top?account=acme"):
        status, found = site.ask("GET", path, token=KEPT)
        assert (status, found["rows"]) == (200, [])
    assert site.ask("GET", "/api/explore/fields", token=KEPT)[1]["names"]["rows"][0][1] == (
        "view:form"
    )


# --- the pages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, site: Looking) -> Iterator[Page]:
    """Signed in, at the size of a phone; no script may fail, nothing may be refused by the policy,
    no stored markup may run."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    context.request.get(f"{site.served.console}/?token={site.served.token()}", max_redirects=0)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield page
    title = page.title()
    wide = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert wrong == []
    assert "Headwater" in title
    assert wide <= 390


def at(site: Looking, path: str) -> str:
    return f"{site.served.console}{path}"


def test_explore_shows_something_at_once_and_narrows_by_a_click(page: Page, site: Looking) -> None:
    page.goto(at(site, "/explore"))
    expect(page.locator("#tiles strong").first).to_have_text(str(EVENTS))
    expect(page.locator("#chart .main-svg").first).to_be_visible()
    expect(page.locator("#sums tbody tr")).to_have_count(4)
    assert urlsplit(page.url).query == "by=dialect"
    page.locator("#sums").get_by_role("button", name="nucleus").click()
    expect(page.locator("#tiles strong").first).to_have_text(str(NUCLEUS))
    expect(page.locator("#filters .condition")).to_have_count(1)
    link = page.url
    page.go_back()
    expect(page.locator("#tiles strong").first).to_have_text(str(EVENTS))
    expect(page.locator("#filters .condition")).to_have_count(0)
    page.goto(link)
    expect(page.locator("#tiles strong").first).to_have_text(str(NUCLEUS))
    page.locator("#form [name=by]").fill("properties.plan")
    page.locator("#form [name=by]").press("Enter")
    expect(page.locator("#sums")).to_contain_text(EVIL)
    expect(page.locator("#tops")).to_contain_text("view")
    assert page.locator("#chart-sources a").all_inner_texts() == ["SQL", "JSON", "CSV"]


def test_explore_says_what_to_do_when_there_is_nothing(page: Page, site: Looking) -> None:
    page.goto(at(site, "/explore?" + urlencode({"where": where("name", "is", "nobody")})))
    expect(page.locator("#chart")).to_contain_text("Take a condition away")
    page.locator("#form [name=measure]").select_option("sum")
    expect(page.locator("#chart")).to_contain_text("Name a field")


def test_a_refusal_is_shown_with_its_remedy(page: Page, site: Looking) -> None:
    page.goto(
        at(site, "/funnels?" + urlencode({"step": ['["view"]', '["cart"]'], "window": 7200}, True))
    )
    expect(page.locator("#tiles strong").first).to_have_text("6")
    # A refused question is an error of the console too: the browser reports its status.
    page.evaluate(
        'window.fetch = async () => new Response(\'{"error":"no","remedy":"try"}\', {status: 400})'
    )
    page.locator("#form [name=window]").select_option("86400")
    expect(page.locator("#result [role=alert]")).to_contain_text("try")


def test_a_funnel_is_made_by_hand(page: Page, site: Looking) -> None:
    page.goto(at(site, "/funnels"))
    expect(page.locator("#result")).to_contain_text("Which steps?")
    for name in ("view", "cart", "pay"):
        page.get_by_role("button", name="Add a step").click()
        page.locator(".stepname").last.fill(name)
        page.locator(".stepname").last.press("Tab")
    expect(page.locator("#tiles strong")).to_have_text(["6", "1", "17 %"])
    expect(page.locator("#result tbody tr")).to_have_count(3)
    expect(page.locator("#result tbody tr").nth(2)).to_contain_text("10 min")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#tiles strong")).to_have_text(["6", "1", "17 %"])
    expect(page.locator(".stepname")).to_have_count(3)


def test_the_triangle_of_retention(page: Page, site: Looking) -> None:
    page.goto(at(site, "/retention?unit=day&range=14d&start=view"))
    expect(page.locator("table.triangle tbody tr")).to_have_count(2)
    expect(page.locator("table.triangle tbody tr").last).to_contain_text("5")
    expect(page.locator("#curve .main-svg").first).to_be_visible()
    page.locator("#form [name=ever]").uncheck()
    page.wait_for_url("**ever=false**")


def test_an_error_is_opened_with_its_stack(page: Page, site: Looking) -> None:
    page.goto(at(site, "/errors"))
    page.get_by_role("button", name="TypeError: boom").click()
    expect(page.locator("#one pre")).to_have_text(STACK)
    expect(page.locator("#one")).to_contain_text("1.2")
    page.go_back()
    expect(page.locator("#one")).to_be_hidden()
    page.get_by_role("button", name=EVIL).click()
    expect(page.locator("#one pre")).to_have_text(EVIL)
    time.sleep(0.1)  # an image that cannot be loaded would have said so by now
    expect(page).to_have_title("Errors · Headwater")
