"""The header block of a request: what llhttp's callbacks gave, checked and reduced to what counts.

llhttp refuses most of what smuggling is made of (two Content-Length, Content-Length with
Transfer-Encoding, bare LF, folded lines, space before a colon, NUL and CR in values; the tests hold
it to that). What it lets through and RFC 9112 does not is refused here: a Host that is missing or
doubled, transfer codings other than a single ``chunked``, chunked in HTTP/1.0, versions other than
1.0 and 1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.accept.request import KEPT_HEADERS

if TYPE_CHECKING:
    from headwater.accept.accounts import Accounts, Admission
    from headwater.accept.slots import Call

_SPECIAL = frozenset(
    {"accept-encoding", "authorization", "content-length", "expect", "if-none-match"}
    | {"transfer-encoding", "upgrade", "x-forwarded-for"}
)
_READ = KEPT_HEADERS | _SPECIAL
#: Names in their usual spellings, so that few have to be lowered.
_NAMES = {spelling.encode(): name for name in _READ for spelling in (name, name.title())}
_VT_USER = "_vt_user="


class BadHead(Exception):
    """The head is refused: 400, and the connection ends."""


class Head:
    """A checked header block; the request line is a Call's.

    `headers` are the KEPT_HEADERS, with cookie reduced to _vt_user. `length` is Content-Length, 0
    when there is none. `expect` and `upgrade` are in lower case.

    One may serve many requests (see parser.py): `calls` are those of its request lines that were
    seen before, and `admission` is what `admitted_by` made of its token.
    """

    __slots__ = (
        "accept_encoding",
        "admission",
        "admitted_by",
        "authorization",
        "calls",
        "chunked",
        "expect",
        "forwarded",
        "headers",
        "http10",
        "if_none_match",
        "keep_alive",
        "length",
        "upgrade",
    )

    def __init__(self, version: str, fields: list[tuple[bytes, bytes]], keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.http10 = version == "1.0"
        self.calls: dict[bytes, Call] = {}
        self.admission: Admission | None = None
        self.admitted_by: Accounts | None = None
        self.length = 0
        self.chunked = False
        self.authorization = ""
        self.expect = ""
        self.forwarded = ""
        self.accept_encoding = ""
        self.if_none_match = ""
        self.upgrade = ""
        headers: dict[str, str] = {}
        self.headers = headers
        for raw_name, raw_value in fields:
            name = _NAMES.get(raw_name)
            if name is None:
                name = raw_name.decode("latin-1").lower()
                if name not in _READ:
                    continue
            value = raw_value.decode("latin-1").rstrip(" \t")
            if name not in _SPECIAL:
                if name not in headers:
                    headers[name] = value
                elif name == "host":
                    raise BadHead("two Host headers")
                else:
                    headers[name] += ("; " if name == "cookie" else ", ") + value
            elif name == "content-length":
                self.length = int(value)
            elif name == "authorization":
                if self.authorization:
                    raise BadHead("two Authorization headers")
                self.authorization = value
            elif name == "transfer-encoding":
                if self.chunked or value.lower() != "chunked":
                    raise BadHead("transfer coding other than chunked")
                self.chunked = True
            elif name == "expect":
                self.expect = value.lower()
            elif name == "upgrade":
                self.upgrade = value.lower()
            elif name == "accept-encoding":
                self.accept_encoding += f",{value}"
            elif name == "if-none-match":
                self.if_none_match += f",{value}"
            else:
                self.forwarded = f"{self.forwarded},{value}" if self.forwarded else value
        if "cookie" in headers:
            _reduce_cookie(headers)
        if version == "1.1":
            if "host" not in headers:
                raise BadHead("no Host header")
        elif version != "1.0" or self.chunked:
            raise BadHead("not HTTP/1.1 or HTTP/1.0")

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow."""
        return self.chunked or self.length > 0


def _reduce_cookie(headers: dict[str, str]) -> None:
    """Keep only the _vt_user pair: other cookies are other people's sessions."""
    for pair in headers["cookie"].split(";"):
        pair = pair.strip()
        if pair.startswith(_VT_USER):
            headers["cookie"] = pair
            return
    del headers["cookie"]


def origin_form(target: str) -> str:
    """The origin-form of a request target that may be absolute (RFC 9112, section 3.2.2)."""
    if target.startswith("/") or target == "*":
        return target
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise BadHead("not an absolute path")
    slash, question = rest.find("/"), rest.find("?")
    if slash < 0 or 0 <= question < slash:
        return "/" + rest[question:] if question >= 0 else "/"
    return rest[slash:]
