"""The console's pages: a table of them, the login, and the files they need.

A page is a template and a script of its own; what it shows it asks the API for, so every page has
its JSON by construction. No text of an event is ever part of a template, and scripts put text into
a page as text only. Everything comes from this process: our own files, and Plotly's one script out
of its installed package.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jinja2
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import headwater
from headwater import limits
from headwater.errors import TooLong
from headwater.view.access import COOKIE, SESSION_SECONDS, Access, Who
from headwater.view.api import PRIVATE, body_of, refusal, refuse

_HERE = Path(__file__).parent
_YEAR = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Page(msgspec.Struct, frozen=True):
    """A page: its address (Starlette's), the name of its template and script, its title, and
    whether it stands in the navigation."""

    path: str
    name: str
    title: str
    listed: bool = True


PAGES = (
    Page("/", "live", "Live"),
    Page("/explore", "explore", "Explore"),
    Page("/funnels", "funnel", "Funnels"),
    Page("/retention", "retention", "Retention"),
    Page("/errors", "errors", "Errors"),
    Page("/people", "people", "People"),
    Page("/people/{ident}", "person", "Person", listed=False),
    Page("/events/{ident}", "event", "Event", listed=False),
    Page("/quality", "quality", "Quality"),
    Page("/try", "try", "Try it"),
    Page("/sql", "sql", "SQL"),
    Page("/health", "health", "Health"),
    Page("/api", "api", "API"),
)


class Pages:
    """`accounts` names the accounts that are configured."""

    def __init__(self, *, access: Access, accounts: Callable[[], Sequence[str]]) -> None:
        self._access = access
        self._accounts = accounts
        self._static = Static()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["static"] = self._static.address

    def routes(self) -> list[Route]:
        """For the console's application."""
        return [
            *(Route(page.path, self._shown(page)) for page in PAGES),
            Route("/login", self.login, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
        ]

    def static(self) -> ASGIApp:
        """What serves the files."""
        return self._static

    def _shown(self, page: Page) -> Callable[[Request], Response]:
        def show(request: Request) -> Response:
            token = request.query_params.get("token")
            if page.path == "/" and token is not None:
                return self._session(token, "/", request)
            who: Who = request.state.who
            return self._render(
                f"{page.name}.html",
                page=page,
                pages=[one for one in PAGES if one.listed],
                who=who,
                accounts=[name for name in self._accounts() if who.may_see(name)],
            )

        return show

    def _render(self, template: str, status: int = 200, **values: object) -> Response:
        text = self._templates.get_template(template).render(
            version=headwater.__version__, **values
        )
        return HTMLResponse(text, status, headers=PRIVATE)

    async def login(self, request: Request) -> Response:
        """The page that asks for a token."""
        return self._render(
            "login.html", next=_inside(request.query_params.get("next", "/")), wrong=False
        )

    async def sign_in(self, request: Request) -> Response:
        """Trade a token, sent as a form, for a session cookie."""
        try:
            form = parse_qs(
                (await body_of(request, limits.query_text_bytes_max)).decode("utf-8", "replace")
            )
        except TooLong as error:
            return refusal(error)
        onward = _inside(form.get("next", ["/"])[0])
        who = await run_in_threadpool(self._access.who_has, form.get("token", [""])[0].strip())
        if who is None:
            return self._render("login.html", 401, next=onward, wrong=True)
        return self._with_session(who, onward, request)

    async def sign_out(self, request: Request) -> Response:
        """End the browser's session."""
        answer = RedirectResponse("/login", 303, {"cache-control": "no-store"})
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    def _session(self, token: str, onward: str, request: Request) -> Response:
        who = self._access.who_has(token)
        if who is None:
            return refuse(401, "that is not the token", "read it from data/console-token")
        return self._with_session(who, onward, request)

    def _with_session(self, who: Who, onward: str, request: Request) -> Response:
        answer = RedirectResponse(onward, 303, {"cache-control": "no-store"})
        answer.set_cookie(
            COOKIE,
            self._access.session(who),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer


def _inside(address: str) -> str:
    """An address of the console's own, "/" for any other."""
    parts = urlsplit(address)
    plain = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if plain and not parts.netloc and "\\" not in address else "/"


class _File(msgspec.Struct, frozen=True):
    media_type: str
    digest: str
    plain: bytes
    packed: bytes


class Static:
    """Files under /static/, by name, read and compressed when they are first asked for. Their
    addresses carry a digest, so that a browser asks once for each version."""

    def __init__(self) -> None:
        self._files = {
            path.name: path for path in (_HERE / "static").iterdir() if path.suffix in _TYPES
        }
        plotly = importlib.util.find_spec("plotly")
        assert plotly is not None
        assert plotly.origin is not None, "plotly is a dependency"
        self._files["plotly.js"] = Path(plotly.origin).parent / "package_data" / "plotly.min.js"
        self._read: dict[str, _File] = {}

    def address(self, name: str) -> str:
        """Where a page finds a file. (Scripts import one another without the digest; those are
        asked for again each time, and answered 304.)"""
        return f"/static/{name}?{self._file(name).digest}"

    def _file(self, name: str) -> _File:
        found = self._read.get(name)
        if found is None:
            path = self._files[name]
            plain = path.read_bytes()
            found = _File(
                f"{_TYPES[path.suffix]}; charset=utf-8",
                hashlib.sha256(plain).hexdigest()[:16],
                plain,
                gzip.compress(plain, 6, mtime=0),
            )
            self._read[name] = found
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        name = scope["path"].removeprefix("/static/")
        if request.method not in ("GET", "HEAD"):
            await refuse(405, "these are files", "GET them")(scope, receive, send)
            return
        if name not in self._files:
            await refuse(404, "there is no such file", "see the page's source")(
                scope, receive, send
            )
            return
        found = await run_in_threadpool(self._file, name)
        tag = f'"{found.digest}"'
        headers = {
            "cache-control": _YEAR if request.url.query == found.digest else "no-cache",
            "etag": tag,
            "vary": "accept-encoding",
        }
        if request.headers.get("if-none-match") == tag:
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        body = found.plain
        if "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["content-encoding"] = found.packed, "gzip"
        await Response(body, media_type=found.media_type, headers=headers)(scope, receive, send)
