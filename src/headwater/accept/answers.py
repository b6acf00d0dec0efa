"""Answers as bytes.

Almost all answers of one kind of request have the same head, and many the same body. So a head is
rendered once and kept until the second changes (it carries Date), and an answer that is the very
object of the time before is not rendered at all.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from headwater.accept.request import Answer, Cors, Dialect

#: Statuses without a body, and so without Content-Length (RFC 9110, section 8.6).
_BODILESS = frozenset({204, 304})
_VARIANTS_MAX = 256  # origins (and the like) remembered per dialect
_HEADS_MAX = 64
_ORIGIN_CHARS_MAX = 512
_RETRY_AFTER_SECONDS = 1  # a group commit takes milliseconds; room comes back at once or not soon

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class DateHeader:
    """The current Date header's value, renewed by the sweep; `value` is a new object each second,
    which is how rendered heads know that they are stale."""

    def __init__(self, microseconds: int) -> None:
        self._second = -1
        self.value = ""
        self.renew(microseconds)

    def renew(self, microseconds: int) -> None:
        """Renew for the time given, in microseconds since 1970."""
        second = microseconds // 1_000_000
        if second != self._second:
            self._second = second
            self.value = formatdate(second, usegmt=True)


class Variant:
    """Renders answers of one dialect for one kind of client: its CORS headers, and how it keeps
    connections (`http10`: HTTP/1.0 with keep-alive, which wants to hear that it is kept)."""

    __slots__ = ("_bytes", "_date", "_fixed", "_heads", "_last", "_stamp", "http10")

    def __init__(self, date: DateHeader, fixed: str, http10: bool) -> None:
        self._date = date
        self._fixed = fixed
        self.http10 = http10
        self._stamp = ""
        self._last: Answer | None = None
        self._bytes = b""
        self._heads: dict[tuple[int, str, tuple[tuple[str, str], ...], bool], bytes] = {}

    def render(self, answer: Answer, close: bool) -> bytes:
        """The whole answer. `close`: the connection ends with it."""
        stamp = self._date.value
        if answer is self._last and stamp is self._stamp and not close:
            return self._bytes
        if stamp is not self._stamp:
            self._stamp = stamp
            self._heads.clear()
        head = self._head(answer, close)
        if answer.status in _BODILESS:
            data = head + b"\r\n"
        else:
            data = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer.body), answer.body)
        if not close:
            self._last, self._bytes = answer, data
        return data

    def render_head(self, answer: Answer, close: bool, *, length_known: bool) -> bytes:
        """The same without the body, for HEAD; without Content-Length where it is not known."""
        head = self._head(answer, close)
        if answer.status in _BODILESS or not length_known:
            return head + b"\r\n"
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(answer.body))

    def _head(self, answer: Answer, close: bool) -> bytes:
        key = (answer.status, answer.content_type, answer.headers, close)
        head = self._heads.get(key)
        if head is not None and self._stamp is self._date.value:
            return head
        status = answer.status
        reason = HTTPStatus(status).phrase if status in _STATUSES else "Status"
        lines = [f"HTTP/1.1 {status} {reason}", f"date: {self._date.value}"]
        if answer.content_type:
            lines.append(f"content-type: {answer.content_type}")
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if status in (429, 503):
            if not has_header(answer, "retry-after"):
                lines.append(f"retry-after: {_RETRY_AFTER_SECONDS}")
            # Else a page of another origin cannot read it (Fetch, CORS-safelisted headers).
            lines.append("access-control-expose-headers: retry-after")
        if status == 426:
            lines.append("connection: upgrade")  # goes with Upgrade (RFC 9110, section 7.8)
        if close:
            lines.append("connection: close")
        elif self.http10:
            lines.append("connection: keep-alive")
        head = ("\r\n".join(lines) + "\r\n" + self._fixed).encode("latin-1", "replace")
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        self._heads[key] = head
        return head


_STATUSES = frozenset(status.value for status in HTTPStatus)


def has_header(answer: Answer, name: str) -> bool:
    """Whether the answer sets that header itself."""
    return any(given.lower() == name for given, _ in answer.headers)


def with_header(answer: Answer, name: str, value: str) -> Answer:
    """The same answer with one header more, unless it has it."""
    if has_header(answer, name):
        return answer
    return Answer(
        status=answer.status,
        body=answer.body,
        content_type=answer.content_type,
        headers=(*answer.headers, (name, value)),
        events=answer.events,
        keep=answer.keep,
        refused=answer.refused,
        close=answer.close,
    )


class Voice:
    """How one dialect speaks: its answers' fixed headers, in a Variant per kind of client.

    `dialect` None: the collector itself (health, unknown paths, framing errors).
    """

    def __init__(self, dialect: Dialect | None, date: DateHeader) -> None:
        self._date = date
        self.name: str = dialect.NAME if dialect is not None else ""
        self._cors = dialect.CORS if dialect is not None else Cors(methods="GET, OPTIONS")
        self._always = dialect.ALWAYS if dialect is not None else ()
        self._variants: dict[tuple[str, bool], Variant] = {}
        self.plain = self.variant("", False)

    def variant(self, origin: str, http10: bool) -> Variant:
        """The Variant for a request's Origin ("" for none) and keep-alive."""
        origin = self._allowed(origin)
        key = (origin, http10)
        variant = self._variants.get(key)
        if variant is None:
            fixed = f"access-control-allow-origin: {origin}\r\n"
            if self._cors.echo_origin:
                fixed += "vary: origin\r\n"
            fixed += "".join(f"{name}: {value}\r\n" for name, value in self._always)
            variant = Variant(self._date, fixed, http10)
            if len(self._variants) >= _VARIANTS_MAX:
                del self._variants[next(iter(self._variants))]
            self._variants[key] = variant
        return variant

    def _allowed(self, origin: str) -> str:
        """What Access-Control-Allow-Origin says to it; never anything that could end a header."""
        plain = origin.isascii() and origin.isprintable() and len(origin) <= _ORIGIN_CHARS_MAX
        return origin if self._cors.echo_origin and origin and plain else "*"

    def preflight(self, methods: tuple[str, ...]) -> Answer:
        """The answer to OPTIONS."""
        cors = self._cors
        return Answer(
            status=204,
            headers=(
                ("access-control-allow-methods", cors.methods),
                ("access-control-allow-headers", cors.headers),
                ("access-control-max-age", str(cors.max_age_seconds)),
                ("allow", allowed(methods)),
            ),
            keep=False,
        )


def allowed(methods: tuple[str, ...]) -> str:
    """The Allow header for a route's methods: HEAD goes with GET, OPTIONS with all."""
    names = list(methods)
    if "GET" in names:
        names.insert(names.index("GET") + 1, "HEAD")
    return ", ".join([*names, "OPTIONS"])


def own(status: int, error: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer of the collector itself, as JSON. `error` is plain ASCII without quotes."""
    body = b'{"error":"%b"}' % error.encode("ascii")
    return Answer(
        status=status,
        body=body,
        content_type="application/json",
        headers=headers,
        keep=False,
        refused=True,
    )


NOT_FOUND = own(404, "not found")
BAD_REQUEST = own(400, "bad request")
TIMEOUT = own(408, "request timeout")
TARGET_TOO_LONG = own(414, "request target too long")
HEADERS_TOO_LARGE = own(431, "header fields too large")
EXPECTATION_FAILED = own(417, "expectation failed")
TOO_MANY_CONNECTIONS = own(503, "too many connections")
HEALTHY = Answer(status=200, body=b"ok", content_type="text/plain; charset=utf-8", keep=False)


def not_ready(reason: str) -> Answer:
    """The answer of /readyz while a write would not be durable."""
    return Answer(
        status=503, body=reason.encode(), content_type="text/plain; charset=utf-8", keep=False
    )
