"""GET /headwater.js: the browser side, as the collector hands it to pages (docs/browser.md).

The file beside this module is read once, at the start of a process. Served are its lines without
comments and indentation: readable here, some 2 KB less on each wire.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

from headwater.accept.head import Head
from headwater.accept.request import Answer

SOURCE = Path(__file__).with_name("headwater.js")
#: Where the script says at which path it is served; replaced by the configured one.
DEFAULT_PATH = "/headwater.js"
#: Long enough for one visit, short enough that a mended script is everywhere within minutes.
MAX_AGE_SECONDS = 600

#: Comments that begin a line, and those behind the end of a statement or of an opening.
_COMMENTS = re.compile(r"^\s*/\*.*?\*/|^\s*//[^\n]*|(?<=[;,{]) // [^\n]*", re.DOTALL | re.MULTILINE)
_CONTENT_TYPE = "text/javascript; charset=utf-8"


class BrowserScript:
    """The script in the forms in which it is answered; `path` is the absolute path of its route."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        lines = map(str.strip, _COMMENTS.sub("", source).splitlines())
        text = "".join(f"{line}\n" for line in lines if line)
        self.plain = text.replace(f'"{DEFAULT_PATH}"', f'"{path}"').encode()
        self.zipped = gzip.compress(self.plain, 9, mtime=0)
        digest = hashlib.sha256(self.plain).hexdigest()[:16]
        # Strong tags name bytes: each encoding has one of its own (RFC 9110, section 8.8.1).
        self._plain = _forms(self.plain, f'"{digest}"')
        self._zipped = _forms(self.zipped, f'"{digest}-gzip"', ("content-encoding", "gzip"))

    def answer(self, head: Head) -> Answer:
        """200 with the script, or 304 where the client has these very bytes."""
        full, unchanged, tag = self._zipped if takes_gzip(head.accept_encoding) else self._plain
        return unchanged if _holds(head.if_none_match, tag) else full


def load(path: str) -> BrowserScript | None:
    """The script for a configured path; None for "", which switches it off."""
    return BrowserScript(path, SOURCE.read_text("utf-8")) if path else None


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header takes gzip: named or by ``*``, and not with a weight of 0
    (RFC 9110, section 12.5.3)."""
    weights: dict[str, bool] = {}
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.partition(";")
        zero = re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
        weights[name.strip()] = zero is None
    return weights.get("gzip", weights.get("*", False))


def _holds(if_none_match: str, tag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2); a proxy that zips by itself weakens tags."""
    named = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return tag in named or "*" in named


def _forms(body: bytes, tag: str, *extra: tuple[str, str]) -> tuple[Answer, Answer, str]:
    """The answer, the answer to who has it already, and its entity tag."""
    headers = (
        ("cache-control", f"public, max-age={MAX_AGE_SECONDS}"),
        ("etag", tag),
        ("vary", "accept-encoding"),
        # A page with Cross-Origin-Embedder-Policy loads it all the same.
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
    )
    full = Answer(
        status=200, body=body, content_type=_CONTENT_TYPE, headers=(*headers, *extra), keep=False
    )
    return full, Answer(status=304, headers=headers, keep=False), tag
