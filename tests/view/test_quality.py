"""Quality over the real path: a served hub with a tracking plan, events of several dialects, a
changed plan by SIGHUP, a replay, a killed hub; and the page in a browser."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from headwater.store.guard import TABLES
from headwater.view.quality import draft_of
from tests.chromium import chromium
from tests.served import NotReady, Served, children, command_of

APP = "6387f260fae4a13be78fc664"
TOKEN = "vaix-token"
TOTAL = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
EVIL = "<img src=x onerror=\"document.title='hit'\">"
_ids = itertools.count(1)


class Site:
    """A served Headwater with two accounts; acme has a plan."""

    def __init__(self, folder: Path) -> None:
        self.plan = folder / "acme.json"
        self.write_plan(mode="observe")
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        self.served = Served(
            folder,
            f"""[accounts.acme]
plan = "acme.json"
[accounts.acme.nucleus]
apps = ["{APP}"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.vaix]
tokens = ["sha256:{digest}"]
[accounts.other.nucleus]
apps = ["other"]
[console.tokens.kept]
hash = "sha256:{hashlib.sha256(b"kept-token").hexdigest()}"
accounts = ["other"]
""",
        )

    def write_plan(self, **given: Any) -> None:
        events = {"Buy": {"schema": TOTAL}, "confirmation": {"schema": TOTAL}}
        self.plan.write_text(json.dumps({"events": events, **given}))

    def send(self, method: str, path: str, body: str = "", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.served.collect_port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body.encode() or None, named)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def nucleus(self, *events: tuple[str, dict[str, Any]], app: str = APP) -> int:
        data = [
            {
                "type": "event",
                "name": name,
                "date": int(time.time() * 1000),
                "sessionId": 1,
                "deviceId": "d",
                "id": next(_ids),
                "payload": payload,
            }
            for name, payload in events
        ]
        return self.send("POST", f"/app/{app}/track", json.dumps({"data": data}))

    def several_dialects(self) -> None:
        """Five events: three that break the plan, one of another name, one that is right."""
        assert self.nucleus(("Buy", {"total": "x"}), ("Buy", {"total": 1}), ("Other", {})) == 200
        items = [{"type": "confirmation", "userId": 5, "sessionId": 6, "generic": {}}]
        query = urlencode({"data": json.dumps(items)})
        assert self.send("GET", f"/event/ACCT123/confirmation?{query}") == 200
        body = {"user_id": "u", "event_type": "clicks:event", "data": {"event_id": "1"}}
        status = self.send(
            "POST",
            "/api/tracker/events",
            json.dumps(body),
            content_type="application/json",
            authorization=f"Bearer {TOKEN}",
            x_vaix_client_id="g1",
            x_vaix_authentication_method="vaix",
        )
        assert status < 300

    def get(self, path: str, token: str = "", **asked: Any) -> Any:
        at = urlsplit(self.served.console)
        assert at.hostname is not None
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        try:
            query = urlencode(asked)
            authorization = f"Bearer {token or self.served.token()}"
            connection.request(
                "GET", f"/api/quality/{path}?{query}", headers={"authorization": authorization}
            )
            answer = connection.getresponse()
            body = json.loads(answer.read())
        finally:
            connection.close()
        return body if answer.status == 200 else (answer.status, body)

    def hub(self) -> int:
        (found,) = (pid for pid in children(self.served.pid) if "headwater.hub" in command_of(pid))
        return found

    def reload(self, in_force: Callable[[Any], bool]) -> None:
        """SIGHUP, until the plan is in force (5 s are promised)."""
        self.served.reload()
        deadline = time.monotonic() + 5
        while not in_force(self.get("plan", account="acme")[0]["plan"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("quality"))
    with found.served:
        yield found


def books(site: Site) -> dict[str, tuple[int, ...]]:
    site.served.wait_loaded()
    found = site.get("books", account="acme")
    assert found["difference"] == 0
    assert all(row["closes"] == 1 for row in rows(found["books"]))
    return {
        row["dialect"]: (row["received"], row["stored"], row["rejected"])
        for row in rows(found["books"])
    }


def violations(site: Site) -> dict[tuple[str, ...], int]:
    found = site.get("violations")["violations"]
    columns = ("dialect", "name", "mode", "rule")
    return {tuple(row[one] for one in columns): row["events"] for row in rows(found)}


def test_a_plan_is_observed_then_enforced_and_a_replay_gives_what_it_says_now(site: Site) -> None:
    """Through a reload, a kill of the hub and a bad reload."""
    site.several_dialects()
    plain = {"nucleus": (3, 3, 0), "vibetrace": (1, 1, 0), "vaix": (1, 1, 0)}
    assert books(site) == plain
    observed = {
        ("nucleus", "Buy", "observe", "/total is not a number"): 1,
        ("vibetrace", "confirmation", "observe", "/total is missing"): 1,
        ("nucleus", "Other", "observe", "the plan does not have this name"): 1,
        ("vaix", "clicks:event", "observe", "the plan does not have this name"): 1,
    }
    assert violations(site) == observed
    issues = [row["issue"] for row in rows(site.get("issues")["issues"])]
    assert not any(issue.startswith("plan") for issue in issues)

    site.write_plan(mode="reject", unplanned="warn")
    site.reload(lambda plan: bool(plan["mode"] == "reject"))
    site.several_dialects()
    assert books(site) == {"nucleus": (6, 5, 1), "vibetrace": (2, 1, 1), "vaix": (2, 2, 0)}
    (sample,) = rows(site.get("rejected/samples", reason="plan_violation", dialect="nucleus"))
    assert sample["detail"] == "Buy: /total is not a number"
    assert sample["request"].startswith(f"POST /app/{APP}/track")
    issue = "plan: the plan does not have this name"
    named = {row["name"] for row in rows(site.get("issues/samples", issue=issue))}
    assert named == {"Other", "clicks:event"}

    os.kill(site.hub(), signal.SIGKILL)
    assert site.nucleus(("Buy", {})) == 200  # while there is none
    _until(lambda: books(site)["nucleus"] == (7, 5, 2))
    assert violations(site)["nucleus", "Buy", "reject", "/total is missing"] == 1

    site.served.run("replay", "--since", "1h")
    assert books(site) == {"nucleus": (7, 4, 3), "vibetrace": (2, 0, 2), "vaix": (2, 2, 0)}
    assert not any(key[2] == "observe" for key in violations(site))

    site.plan.write_text('{"mode": "loud"}')
    site.served.reload()
    _until(lambda: "loud" in site.served.tail_of_log())
    assert "not reloaded" in site.served.tail_of_log()
    os.kill(site.hub(), signal.SIGKILL)  # the one that starts now has the plan that was checked
    assert site.nucleus(("Buy", {})) == 200
    _until(lambda: books(site)["nucleus"] == (8, 4, 4))

    site.write_plan(mode="observe")
    site.reload(lambda plan: bool(plan["mode"] == "observe"))
    site.served.run("replay", "--since", "1h")
    assert books(site) == {"nucleus": (8, 8, 0), "vibetrace": (2, 2, 0), "vaix": (2, 2, 0)}
    assert violations(site)["nucleus", "Buy", "observe", "/total is not a number"] == 2
    assert violations(site)["nucleus", "Buy", "observe", "/total is missing"] == 2


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (OSError, RuntimeError, http.client.HTTPException, ValueError):
            pass  # the hub is on its way
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_wrong_plan_is_found_before_anything_starts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.plan.write_text('{"events": {"Buy": {"schema": {"type": "numbr"}}}}')
    with pytest.raises(NotReady) as caught:
        site.served.start()
    said = " ".join(str(caught.value).split())
    assert 'line 10: accounts.acme.plan: "' in said
    assert 'events["Buy"].schema.type: "numbr" is not' in said


def test_nothing_is_shown_of_accounts_that_a_token_is_kept_from(site: Site) -> None:
    site.nucleus(("Mine", {}), app="other")
    site.served.wait_loaded()
    assert {row["name"] for row in rows(site.get("names", "kept-token"))} == {"Mine"}
    assert rows(site.get("violations", "kept-token")["violations"]) == []
    assert [row["account"] for row in rows(site.get("books", "kept-token")["books"])] == ["other"]
    assert [one["account"] for one in site.get("plan", "kept-token")] == ["other"]
    assert site.get("draft", "kept-token", account="acme")[0] == 404
    assert site.get("properties", "kept-token", name="Buy")["rows"] == []


def test_every_table_is_kept_to_a_tokens_accounts(site: Site) -> None:
    """A view that is not listed would be asked without the condition on its account."""
    assert {row["name"] for row in site.served.query("SHOW TABLES")} == set(TABLES)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("rejected/samples", {}),
        ("issues/samples", {}),
        ("draft", {}),
        ("request", {"request_id": "1", "at": "2026-11-21"}),
        ("names", {"days": "x"}),
        ("names", {"days": -1}),
        ("names", {"who": "me"}),
    ],
)
def test_a_question_that_says_too_little_is_told_so(
    site: Site, path: str, asked: dict[str, Any]
) -> None:
    status, said = site.get(path, **asked)
    assert status == 400
    assert said["remedy"]


def test_hostile_words_are_words(site: Site) -> None:
    for text in ("' OR 1=1 --", "\\", "';SELECT 1", "\x00\n"):
        assert rows(site.get("rejected/samples", reason=text or "x", account=text)) == []
        assert rows(site.get("properties", name=text, dialect=text)) == []


def test_every_question_can_be_asked_again_as_it_stands(site: Site) -> None:
    """Pages show their SQL: it runs through the same guard as a user's."""
    for path in ("rejected", "issues", "violations"):
        for answer in site.get(path).values():
            assert site.served.query(answer["sql"]) == rows(answer)
    assert len(site.served.query(site.get("names", days=0)["sql"])) > 0


def test_a_draft_is_a_plan_that_what_was_seen_keeps_to() -> None:
    def row(path: str, kind: str, share: float = 1.0, **given: Any) -> dict[str, Any]:
        named = {"dialect": "nucleus", "name": "Buy", "seen": 1000}
        return {**named, "path": path, "type": kind, "share": share, **given}

    found = draft_of(
        [
            row("", "object"),
            row("total", "integer", 0.4),
            row("total", "number", 0.6),
            row("code", "string"),
            row("cart.size", "integer", 0.2),
            row("tags", "array of string", 0.1),
            row("odd", "mixed", 0.5),
            row("odd", "string", 0.5),
            row("by.*", "integer"),
            row("", "object", name="A"),
            row("", "object", name="A", dialect="vaix"),
        ]
    )
    assert found["events"]["Buy"]["schema"] == {
        "type": "object",
        "required": ["code"],
        "properties": {
            "total": {"type": "number"},
            "code": {"type": "string"},
            "cart": {"type": "object", "properties": {"size": {"type": "integer"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
            "odd": {},
        },
    }
    assert list(found["dialects"]) == ["nucleus", "vaix"]


def test_the_page_shows_it_all_and_replays(site: Site) -> None:
    site.write_plan(mode="reject")
    site.reload(lambda plan: bool(plan["mode"] == "reject"))
    site.nucleus(("Buy", {"total": EVIL}), (EVIL, {EVIL: EVIL}), app=APP)
    site.served.wait_loaded()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.request.get(f"{site.served.console}/?token={site.served.token()}", max_redirects=0)
        page.goto(f"{site.served.console}/quality?account=acme")
        page.get_by_text("the books close").wait_for()
        page.get_by_role("button", name="Samples").first.wait_for()
        assert page.locator("#rejected strong").first.inner_text() == "plan_violation"
        page.locator("#rejected-chart .plot-container").wait_for()
        page.locator("#names").get_by_role("button", name=EVIL).wait_for()
        page.locator("#rejected").get_by_role("button", name="Samples").first.focus()
        page.keyboard.press("Enter")
        page.locator("#dialog article pre", has_text=EVIL[:9]).wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("#dialog").is_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, "a phone scrolls sideways"
        site.write_plan(mode="observe")
        site.reload(lambda plan: bool(plan["mode"] == "observe"))
        page.get_by_role("button", name="Replay these").first.click()
        page.get_by_role("button", name="Replay", exact=True).click()
        page.get_by_text("1 rows added").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("Nothing was rejected in this time.").wait_for()
        assert page.title() == "Quality · Headwater"
        assert page.locator("main img").count() == 0
        assert wrong == []
