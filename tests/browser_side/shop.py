"""A shop on another origin: its PHP server, a visitor's browser, and what Headwater knows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.served import Served

SITE = Path(__file__).with_name("site")
WAIT_SECONDS_MAX = 30.0
#: For what is asserted not to happen: an event goes out 100 ms after it was told.
QUIET_MS = 400
_FIELDS = """
    name, kind, person_id, session_id, properties.url::String AS url,
    properties.title::String AS title, properties.referrer::String AS referrer,
    properties.n::String AS n,
    arrayMap(i -> i.2, arrayFilter(i -> i.1 = 'vibetrace:user', identities)) AS users,
    arrayMap(i -> i.2, arrayFilter(i -> i.1 = 'vibetrace:session', identities)) AS sessions
"""


@contextmanager
def php(collect: str) -> Iterator[int]:
    """The port of a PHP server with the shop's pages; skips where there is no PHP."""
    if shutil.which("php") is None:
        pytest.skip("php is not installed (Debian package php-cli)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen(
        ["php", "-S", f"127.0.0.1:{port}", "-t", str(SITE)],
        env={"PATH": os.environ["PATH"], "COLLECT": collect, "PHP_CLI_SERVER_WORKERS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None, "php has ended"
                assert time.monotonic() < deadline, "php does not answer"
                time.sleep(0.02)
        yield port
    finally:
        os.killpg(server.pid, 15)  # its workers are processes of their own
        server.wait(WAIT_SECONDS_MAX)


def until(page: Page, expression: str) -> None:
    """Wait for a page to say so. Playwright's own wait needs `eval`, which the policy forbids."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


class Visitor:
    """A browser of its own (a context): its pages, what went to the collector, what went wrong."""

    def __init__(self, context: BrowserContext, served: Served, port: int) -> None:
        self.context = context
        self.served = served
        self.port = port
        self.sent: list[Request] = []
        self.errors: list[str] = []
        context.on("request", self._requested)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", self._logged)

    def _requested(self, request: Request) -> None:
        if request.url.startswith(self.served.collect) and request.method != "GET":
            self.sent.append(request)

    def _logged(self, message: Any) -> None:
        # Chromium itself reports every request that fails
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def open(self, account: str, host: str = "localhost", **extra: str) -> Page:
        """A page of the shop; `extra` as `consent="required"` are the script's attributes, and
        `way`, `email`, `early` and `src` the page's."""
        page = self.context.new_page()
        self.go(page, account, host, **extra)
        return page

    def go(self, page: Page, account: str, host: str = "localhost", **extra: str) -> None:
        own = ("way", "email", "early", "src")
        query = {name if name in own else f"data-{name}": value for name, value in extra.items()}
        query["data-account"] = account
        page.goto(f"http://{host}:{self.port}/shop.php?{urlencode(query)}")
        until(page, "!!(window.headwater && headwater.track)")

    def cookie(self, name: str = "_vt_user") -> dict[str, Any] | None:
        """A cookie of the shop."""
        found = [dict(one) for one in self.context.cookies() if one.get("name") == name]
        return found[0] if found else None

    def ids(self) -> tuple[str, str]:
        """userId and sessionId of the cookie."""
        cookie = self.cookie()
        assert cookie is not None
        user, session, *flags = cookie["value"].split("_")
        assert flags == ["false", "false"]
        return user, session

    def stored(self, page: Page) -> list[str]:
        """The keys of localStorage."""
        found: list[str] = page.evaluate("Object.keys(localStorage)")
        return found

    def events(self, scope: str, count: int) -> list[dict[str, Any]]:
        """The events of a Vibetrace account (or Orbee tracker) once there are `count`, in order."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        count_sql = f"SELECT count() AS n FROM events WHERE scope = '{scope}'"
        while self.served.query(count_sql)[0]["n"] < count and time.monotonic() < deadline:
            self.context.cookies()  # Playwright hears of requests only while it is asked something
            time.sleep(0.1)
        rows = self.served.query(
            f"SELECT {_FIELDS} FROM events WHERE scope = '{scope}' ORDER BY received_at, event_id"
        )
        assert len(rows) == count, [(row["name"], row["n"]) for row in rows]
        return rows


@contextmanager
def visiting(browser: Browser, served: Served, port: int, **options: Any) -> Iterator[Visitor]:
    """A new visitor; at the end nothing must have been thrown or blocked on its pages."""
    context = browser.new_context(**options)
    visitor = Visitor(context, served, port)
    try:
        yield visitor
    finally:
        context.close()
    assert visitor.errors == [], visitor.errors


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one event of that name."""
    (found,) = [row for row in rows if row["name"] == name]
    return found
