"""Take the pictures of docs/console.md: `python -m tests.pages.screenshots`.

A server is started, a shop's two weeks are sent to it, and every page is taken in Chromium, on a
desktop in light and on a phone in dark.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, ViewportSize

from headwater.view.pages import PAGES
from tests.chromium import chromium
from tests.pages import shop
from tests.served import Served

PICTURES = Path(__file__).parents[2] / "docs" / "screenshots"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
#: What the address bar says, where a page is more telling with something asked.
ASKED: dict[str, dict[str, str | list[str]]] = {
    "explore": {"range": "30d", "time": "occurred_at", "by": "name", "as": "stacked"},
    "funnel": {"range": "30d", "step": ['["VIEW_ITEM"]', '["ADD_TO_BASKET"]', '["PAID"]']},
    "retention": {"range": "30d", "unit": "day"},
    "sql": {
        "sql": "SELECT toDate(occurred_at) AS day, dialect, count() AS events\n"
        "FROM events\nGROUP BY ALL\nORDER BY day"
    },
}
_SETTLED = "() => !document.querySelector('[aria-busy=true]')"


def addresses(served: Served) -> dict[str, str]:
    """Each page's name and address."""
    (event,) = served.query("SELECT event_id FROM events WHERE kind = 'error' LIMIT 1")
    (person,) = served.query(
        "SELECT person_id FROM events WHERE person_id IS NOT NULL GROUP BY person_id"
        " ORDER BY uniq(dialect) DESC, count() DESC LIMIT 1"
    )
    idents = {"person": person["person_id"], "event": event["event_id"]}
    return {
        page.name: page.path.replace("{ident}", idents.get(page.name, ""))
        + (f"?{urlencode(ASKED[page.name], doseq=True)}" if page.name in ASKED else "")
        for page in PAGES
    }


def take(page: Page, address: str, file: Path) -> None:
    """One picture, once the page has settled."""
    page.goto(address)
    page.wait_for_timeout(800)
    page.wait_for_function(_SETTLED, timeout=20_000)
    page.wait_for_timeout(8_000 if "/live-" in str(file) else 1_500)  # it fills as one looks
    page.screenshot(path=file)


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m tests.pages.screenshots", description=__doc__)
    said.add_argument("--into", type=Path, default=PICTURES, help="the folder for the pictures")
    said.add_argument("--only", nargs="*", help="names of pages; by default all")
    given = said.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    only = given.only or [*(page.name for page in PAGES), "login"]
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        Served(Path(folder), shop.accounts()) as served,
    ):
        shop.send(served.collect_port, shop.requests_now())
        served.wait_loaded()
        threading.Thread(target=shop.trickle, args=(served.collect_port,), daemon=True).start()
        for kind, size in (("desktop", DESKTOP), ("phone", PHONE)):
            context = browser.new_context(
                viewport=size, color_scheme="light" if kind == "desktop" else "dark"
            )
            page = context.new_page()
            if "login" in only:
                take(page, f"{served.console}/login", given.into / f"login-{kind}.png")
            context.request.get(f"{served.console}/?token={served.token()}", max_redirects=0)
            for name, path in addresses(served).items():
                if name in only:
                    take(page, f"{served.console}{path}", given.into / f"{name}-{kind}.png")
                    print(f"{name}-{kind}.png")
            context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
