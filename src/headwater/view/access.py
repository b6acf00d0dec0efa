"""Who may use the console: the Host it is asked by, the token, and where a request came from.

Three doors, in this order. **Host**: an address, `localhost`, or a name from ``console.hosts``;
any other name is refused with 421, because a page from elsewhere can point its own name at this
machine (DNS rebinding) but cannot make the browser send another Host. **Token**: a bearer token or
a session cookie made from it, compared in constant time: the console's own, which may do
everything, or one from ``[console.tokens.NAME]``, of which only the hash is known, with a scope
and, perhaps, a few accounts that it is kept to. **Origin**: a request that comes with the cookie
and changes something must come from the console's own origin (the browser adds the cookie by
itself, so the cookie alone proves nothing about who asked).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.clock import Clock

COOKIE = "headwater_session"
SESSION_SECONDS = 12 * 3_600
#: What answers without a token: a monitor has none, and the page that asks for one needs its looks.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/login"})
OPEN_PREFIX = "/static/"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Of every answer. Nothing is loaded from elsewhere, nothing runs that is not a file of ours, and
#: no page shows the console inside itself. Plotly sets styles by attribute, hence that one.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self'; img-src 'self' data: blob:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Who(msgspec.Struct, frozen=True):
    """On whose behalf something is asked: the token's name, whether it may change anything, and the
    accounts that it is kept to (None: all)."""

    name: str
    admin: bool
    accounts: frozenset[str] | None = None

    def may_see(self, account: str) -> bool:
        """Whether anything of that account may be shown."""
        return self.accounts is None or account in self.accounts


#: The console's own token: everything.
OWNER = Who("console", admin=True)


class ConsoleToken(msgspec.Struct, frozen=True):
    """A token from the configuration: the SHA-256 of its text, as raw bytes, and whose it is."""

    digest: bytes
    who: Who


def _name_of(host: str) -> str:
    """A Host header without its port, lower-case; "" when it is not one."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Access:
    """The rules, apart from how they are asked: `token` is the console's own, `hosts` are names."""

    def __init__(
        self,
        *,
        token: str,
        hosts: Sequence[str],
        clock: Clock,
        tokens: Sequence[ConsoleToken] = (),
    ) -> None:
        self._token = token.encode()
        self._clock = clock
        self._hosts: set[str] = set()
        self._tokens: Mapping[str, ConsoleToken] = {}
        self.use(hosts=hosts, tokens=tokens)

    def use(self, *, hosts: Sequence[str], tokens: Sequence[ConsoleToken]) -> None:
        """Put other names and tokens in force; sessions of a token that is gone end."""
        self._hosts = {"localhost", *(_name_of(host) for host in hosts)}
        self._tokens = {one.who.name: one for one in tokens}

    def host_allowed(self, host: str) -> bool:
        """Whether the console answers to that Host header."""
        name = _name_of(host)
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def who_has(self, presented: str) -> Who | None:
        """Whose token that is, None for nobody's. Compared in constant time, with every one."""
        text = presented.encode("utf-8", "replace")
        digest = hashlib.sha256(text).digest()
        found = OWNER if hmac.compare_digest(text, self._token) else None
        for one in self._tokens.values():
            if hmac.compare_digest(digest, one.digest):
                found = found or one.who
        return found

    def _sign(self, until: str, name: str) -> str:
        # With a token's hash in it: a session ends when its token is replaced under the same name.
        token = self._tokens.get(name)
        digest = token.digest.hex() if token is not None else ""
        said = f"session {until} {name} {digest}".encode()
        return hmac.new(self._token, said, hashlib.sha256).hexdigest()

    def session(self, who: Who = OWNER) -> str:
        """A fresh cookie value: when it ends, whose it is, and a signature that only the console's
        token can make."""
        until = str(self._clock() // 1_000_000 + SESSION_SECONDS)
        name = "" if who == OWNER else who.name
        return f"{until}.{self._sign(until, name)}.{name}"

    def session_of(self, value: str) -> Who | None:
        """Whose session a cookie value is, None when it was not made here, or has ended."""
        until, _, rest = value.partition(".")
        signature, _, name = rest.partition(".")
        right = hmac.compare_digest(signature.encode(), self._sign(until, name).encode())
        if not (right and until.isdigit() and int(until) > self._clock() // 1_000_000):
            return None
        if not name:
            return OWNER
        token = self._tokens.get(name)
        return token.who if token is not None else None

    def judge(self, connection: HTTPConnection, method: str) -> Who | JSONResponse | None:
        """Who asks; or why it is refused; None where nobody needs to be known."""
        headers: Headers = connection.headers
        if not self.host_allowed(headers.get("host", "")):
            return _error(
                421,
                "this name is not the console's",
                'use its address, or add the name to "console.hosts" in the configuration',
            )
        path = connection.url.path
        cookie = connection.cookies.get(COOKIE, "")
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            if method not in _SAFE_METHODS and not _same_origin(headers):
                return _elsewhere()
            return self.session_of(cookie)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (who := self.who_has(token.strip())) is not None:
            return who
        who = self.session_of(cookie)
        if who is None:
            return _error(
                401,
                "a token is needed",
                'send "Authorization: Bearer" and the text of data/console-token',
            )
        if method not in _SAFE_METHODS and not _same_origin(headers):
            return _elsewhere()
        return who


def _same_origin(headers: Headers) -> bool:
    """Whether the browser says that the request came from this very origin."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site") == "same-origin"


def _elsewhere() -> JSONResponse:
    return _error(403, "this request came from another site", "send it from the console")


def _error(status: int, what: str, remedy: str) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="headwater"'
    return JSONResponse({"error": what, "remedy": remedy}, status, headers)


class Guard:
    """The rules in front of an ASGI application, with the headers that every answer carries. What
    passes finds who asks in ``request.state.who``. A browser that asks for a page without a session
    is sent to the page that asks for a token."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        judged = self._access.judge(connection, scope["method"])
        refusal: Response | None = judged if isinstance(judged, Response) else None
        if refusal is not None and refusal.status_code == 401:
            if scope["path"] == "/" and "token" in connection.query_params:
                refusal = None  # signing in
            elif _page_wanted(scope, connection):
                asked = connection.url.path
                if connection.url.query:
                    asked += f"?{connection.url.query}"
                refusal = RedirectResponse(
                    f"/login?next={quote(asked)}", 303, {"cache-control": "no-store"}
                )

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        scope.setdefault("state", {})["who"] = None if isinstance(judged, Response) else judged
        await self._app(scope, receive, sending)


def _page_wanted(scope: Scope, connection: HTTPConnection) -> bool:
    accepted = connection.headers.get("accept", "")
    return (
        scope["method"] in ("GET", "HEAD")
        and "text/html" in accepted
        and not scope["path"].startswith("/api/")
    )
