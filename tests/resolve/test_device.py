"""What user agents say: real ones, by kind, and what is to be made of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import limits
from headwater.resolve.device import Devices

DEVICES = Devices()
KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def test_a_phone_says_what_it_is() -> None:
    assert DEVICES.of(IPHONE).fields == {
        "kind": "mobile",
        "os": "iOS",
        "os_version": "17.4",
        "browser": "Mobile Safari",
        "browser_version": "17.4",
        "family": "iPhone",
        "brand": "Apple",
        "model": "iPhone",
    }


@pytest.mark.parametrize(
    ("agent", "kind", "said"),
    [
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/124.0.0.0 Safari/537.36",
            "desktop",
            {"os": "Windows", "os_version": "10", "browser": "Chrome", "browser_version": "124.0"},
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.4 Safari/605.1.15",
            "desktop",
            {"os": "Mac OS X", "brand": "Apple"},
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:124.0) Gecko/20100101 Firefox/124.0",
            "desktop",
            {"os": "Ubuntu", "browser": "Firefox"},
        ),
        (
            f"Mozilla/5.0 (Linux; Android 13; SM-S901B) {KIT} Chrome/112.0 Mobile Safari/537.36",
            "mobile",
            {"brand": "Samsung", "model": "SM-S901B", "family": "Samsung SM-S901B"},
        ),
        # Chrome hides the model behind a K: that is no device.
        (
            f"Mozilla/5.0 (Linux; Android 10; K) {KIT} Chrome/124.0.0.0 Mobile Safari/537.36",
            "mobile",
            {"os": "Android", "model": None, "family": None, "brand": None},
        ),
        (
            "Mozilla/5.0 (Android 13; Mobile; rv:109.0) Gecko/114.0 Firefox/114.0",
            "mobile",
            {"browser": "Firefox Mobile", "family": None, "brand": None, "model": None},
        ),
        (
            f"Mozilla/5.0 (Linux; Android 12; SM-X200) {KIT} Chrome/112.0 Safari/537.36",
            "tablet",
            {},
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
            "tablet",
            {"model": "iPad"},
        ),
        (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {KIT} Chrome/79.0 Safari/537.36", "tv", {}),
        ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26) Version/13.0 Safari/605", "console", {}),
        ("Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7 Build/TQ3A)", "mobile", {"model": "Pixel 7"}),
        ("MyApp/1 CFNetwork/1494.0.7 Darwin/23.4.0", "mobile", {"os": "iOS", "browser": "MyApp"}),
        ("python-requests/2.31.0", "program", {"browser": "Python Requests"}),
        ("PHP/8.2", "program", {}),
        ("rest-client/2.1.0 (linux x86_64) ruby/3.2", "program", {"os": "Linux"}),
    ],
)
def test_an_agent_has_a_kind(agent: str, kind: str, said: dict[str, Any]) -> None:
    device = DEVICES.of(agent)
    assert not device.bot
    assert device.fields["kind"] == kind
    assert {key: device.fields.get(key) for key in said} == said


@pytest.mark.parametrize(
    "agent",
    [
        GOOGLEBOT,
        f"Mozilla/5.0 {KIT}; compatible; GPTBot/1.2; +https://openai.com/gptbot",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "my-new-crawler/1.0",
        f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/120.0.6099.109 Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 11; moto g) {KIT} Chrome/109 Mobile Chrome-Lighthouse",
        f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) {KIT} Chrome/120.0 Mobile Safari/537.36 "
        "(compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    ],
)
def test_crawlers_previews_monitors_and_headless_browsers_are_bots(agent: str) -> None:
    device = DEVICES.of(agent)
    assert device.bot
    assert device.fields["kind"] == "bot"
    assert device.fields.get("family") != "Spider"


@pytest.mark.parametrize(
    "agent",
    [
        "Java/17.0.1",
        "Python-urllib/3.11",
        "WordPress/6.4; https://example.com",
        "libwww-perl/6.7",
        "curl/8.4.0",
        "Go-http-client/1.1",
        f"Mozilla/5.0 (Linux; Android 9; CUBOT X19) {KIT} Chrome/90.0 Mobile Safari/537.36",
    ],
)
def test_senders_of_server_side_events_and_a_phone_called_cubot_are_no_bots(agent: str) -> None:
    assert not DEVICES.of(agent).bot


@pytest.mark.parametrize("agent", ["", "Mozilla/5.0", "Mozilla/5.0 (compatible; Nucleus)"])
def test_an_agent_that_says_nothing_makes_no_device(agent: str) -> None:
    device = DEVICES.of(agent)
    assert (device.bot, device.fields) == (False, {})


@given(st.text(max_size=200) | st.just("Mozilla/5.0 \ud800 (iPhone)"))
def test_no_text_is_too_odd(agent: str) -> None:
    assert all(DEVICES.of(agent).fields.values())


def test_no_agent_takes_long() -> None:
    """One that is not remembered costs some 50 us; whatever a client sends must stay near that."""
    size = limits.agent_chars_max
    for evil in ("; A Build ", "a", "Mozilla/5.0 (Linux; Android 9; ", "SmartWatch ", "iPhone;"):
        began = time.perf_counter()
        DEVICES.of((evil * size)[:size])
        assert time.perf_counter() - began < 0.1, evil
