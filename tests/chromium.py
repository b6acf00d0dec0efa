"""Debian's Chromium, driven by Playwright: one browser for a module of tests.

Playwright brings the driver, not the browser. A test module makes its fixture of it::

    @pytest.fixture(scope="module")
    def browser() -> Iterator[Browser]:
        with chromium() as running:
            yield running

While it is open, its event loop counts as running in this thread: no `asyncio.run` beside it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_ARGUMENTS = (
    "--disable-dev-shm-usage",  # containers have 64 MiB of it
    "--disable-gpu",
    "--disable-background-networking",  # no look-up of anybody's servers
    # Names that belong to nobody lead to this machine: pages of plain http are then no secure
    # context, as they are on the web, which they would be under "localhost".
    "--host-resolver-rules=MAP *.example 127.0.0.1",
)


@contextmanager
def chromium(arguments: Sequence[str] = ()) -> Iterator[Browser]:
    """A headless browser; skips the test where there is none. `*.example` is this machine.

    `arguments` are further ones of its command line.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*_ARGUMENTS, *sandbox, *arguments]
        )
        try:
            yield browser
        finally:
            browser.close()
