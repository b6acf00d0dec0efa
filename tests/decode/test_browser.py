"""What request headers tell about a browser."""

from __future__ import annotations

import pytest

from headwater.decode.browser import browser_context, channel_of, header_text, site_of


@pytest.mark.parametrize(
    ("agent", "channel"),
    [
        ("Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15", "ios"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36", "android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "mac"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "desktop"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0)", "desktop"),
        ("curl/8.9", ""),
        ("", ""),
    ],
)
def test_the_channel_is_read_from_the_user_agent(agent: str, channel: str) -> None:
    assert channel_of(agent) == channel


@pytest.mark.parametrize(
    ("headers", "site"),
    [
        ({"origin": "https://a.example", "referer": "https://b.example/x"}, "https://a.example"),
        ({"origin": "null", "referer": "https://b.example:81/x"}, "https://b.example:81"),
        ({"origin": "capacitor://localhost"}, "capacitor://localhost"),
        ({"referer": "https://user:secret@b.example/x"}, ""),
        ({"referer": "about:blank"}, ""),
        ({"referer": "http://[::1"}, "http://[::1"),
        ({}, ""),
    ],
)
def test_the_site_is_origin_or_else_that_of_referer(headers: dict[str, str], site: str) -> None:
    assert site_of(browser_context(headers)) == site


@pytest.mark.parametrize(
    ("language", "locale"), [("el-GR,el;q=0.9", "el-GR"), ("en;q=0.5", "en"), ("*", None)]
)
def test_the_locale_is_the_first_language(language: str, locale: str | None) -> None:
    assert browser_context({"accept-language": language}).get("locale") == locale


def test_header_bytes_are_utf8_where_they_can_be_and_latin1_else() -> None:
    assert header_text("ομάδα".encode().decode("latin-1")) == "ομάδα"
    assert header_text(" caf\xe9 ") == "café"
