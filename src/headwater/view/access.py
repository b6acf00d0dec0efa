"""Who may use the console: the Host it is asked by, the token, and where a request came from.

Three doors, in this order. **Host**: an address, `localhost`, or a name from ``console.hosts``;
any other name is refused with 421, because a page from elsewhere can point its own name at this
machine (DNS rebinding) but cannot make the browser send another Host. **Token**: a bearer token or
a session cookie made from it, compared in constant time. **Origin**: a request that comes with the
cookie and changes something must come from the console's own origin (the browser adds the cookie
by itself, so the cookie alone proves nothing about who asked).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.clock import Clock

COOKIE = "headwater_session"
SESSION_SECONDS = 12 * 3_600
#: What answers without a token: a monitor has none.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def _name_of(host: str) -> str:
    """A Host header without its port, lower-case; "" when it is not one."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Access:
    """The rules, apart from how they are asked: `token` is the console's, `hosts` are names."""

    def __init__(self, *, token: str, hosts: Sequence[str], clock: Clock) -> None:
        self._token = token.encode()
        self._hosts = {"localhost", *(_name_of(host) for host in hosts)}
        self._clock = clock

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

    def token_right(self, presented: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(presented.encode("utf-8", "replace"), self._token)

    def _sign(self, until: str) -> str:
        return hmac.new(self._token, f"session {until}".encode(), hashlib.sha256).hexdigest()

    def session(self) -> str:
        """A fresh cookie value: when it ends, and a signature that only the token can make."""
        until = str(self._clock() // 1_000_000 + SESSION_SECONDS)
        return f"{until}.{self._sign(until)}"

    def session_right(self, value: str) -> bool:
        """Whether a cookie value was made here and has not ended."""
        until, _, signature = value.partition(".")
        right = hmac.compare_digest(signature.encode(), self._sign(until).encode())
        return right and until.isdigit() and int(until) > self._clock() // 1_000_000

    def refusal(self, connection: HTTPConnection, method: str) -> JSONResponse | None:
        """Why a request is refused, None when it may pass."""
        headers: Headers = connection.headers
        if not self.host_allowed(headers.get("host", "")):
            return _error(
                421,
                "this name is not the console's",
                'use its address, or add the name to "console.hosts" in the configuration',
            )
        if connection.url.path in OPEN_PATHS:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token_right(token.strip()):
            return None
        if not self.session_right(connection.cookies.get(COOKIE, "")):
            return _error(
                401,
                "a token is needed",
                'send "Authorization: Bearer" and the text of data/console-token',
            )
        if method not in _SAFE_METHODS and not _same_origin(headers):
            return _error(403, "this request came from another site", "send it from the console")
        return None


def _same_origin(headers: Headers) -> bool:
    """Whether the browser says that the request came from this very origin."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site") == "same-origin"


def _error(status: int, what: str, remedy: str) -> JSONResponse:
    headers = {"www-authenticate": 'Bearer realm="headwater"'} if status == 401 else None
    return JSONResponse({"error": what, "remedy": remedy}, status, headers)


class Guard:
    """The rules in front of an ASGI application, with the headers that every answer carries."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        signing_in = scope["path"] == "/" and "token" in connection.query_params
        refusal = self._access.refusal(connection, scope["method"])
        if refusal is not None and not (signing_in and refusal.status_code == 401):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
