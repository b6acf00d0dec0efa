"""What a browser tells about itself and its page in request headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Scheme, host and port; nothing where a name or password stands in front of the host.
_SITE = re.compile(r"https?://[^/?#@\s\\]+(?=[/?#]|$)", re.IGNORECASE)

#: In this order: an iPhone's agent says "like Mac OS X", an Android's says "Linux".
_CHANNELS = (
    (("android",), "android"),
    (("iphone", "ipad", "ipod"), "ios"),
    (("macintosh", "mac os x", "macos"), "mac"),
    (("windows", "x11", "linux", "cros"), "desktop"),
)


def header_text(value: str) -> str:
    """A header's value without surrounding white space: UTF-8 where its bytes are that, else
    latin-1 (RFC 9110, 5.5 leaves it open)."""
    if not value.isascii():
        with suppress(UnicodeError):
            value = value.encode("latin-1").decode("utf-8")
    return value.strip()


def browser_context(headers: Mapping[str, str]) -> dict[str, Any]:
    """origin, referrer, user_agent and locale (the first language), each where it was sent."""
    context: dict[str, Any] = {}
    if value := headers.get("origin"):
        context["origin"] = header_text(value)
    if value := headers.get("referer"):
        context["referrer"] = header_text(value)
    if value := headers.get("user-agent"):
        context["user_agent"] = header_text(value)
    if value := headers.get("accept-language"):
        locale = header_text(value).partition(",")[0].partition(";")[0].strip()
        if locale and locale != "*":
            context["locale"] = locale
    return context


def site_of(context: Mapping[str, Any]) -> str:
    """The site that sent the request (``https://website.com``) from Origin, else Referer; "" when
    neither says. An opaque origin (``null``) is none."""
    origin: str = context.get("origin", "")
    if origin and origin.lower() != "null":
        return origin
    found = _SITE.match(context.get("referrer", ""))
    return found.group() if found else ""


def channel_of(user_agent: str) -> str:
    """ "android", "ios", "mac" or "desktop" from a browser's user agent; "" for anything else."""
    agent = user_agent.lower()
    for words, channel in _CHANNELS:
        if any(word in agent for word in words):
            return channel
    return ""
