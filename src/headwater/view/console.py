"""The console's API: SQL, the live feed, replay, backup, health and metrics, on the private port;
what it says about people stands in ``people.py``.

An ordinary Starlette application: everything here is off the collector's path. What it shows comes
in as arguments, so that nothing here knows how a row was stored. Queries block, so they run in
threads, a few at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

import headwater
from headwater import limits
from headwater.errors import HeadwaterError, QueryRefused
from headwater.view.access import COOKIE, SESSION_SECONDS, Access, Guard
from headwater.view.formats import FORMATS, Format
from headwater.view.live import Feed, Filter
from headwater.view.people import Erase, People, PeopleRoutes
from headwater.view.progress import LINES, Progress, lines_of

log = logging.getLogger("headwater.view.console")

#: Queries that may wait for a free place; more are told to come back.
_QUERIES_WAITING_MAX = 4 * limits.query_parallel_max
_STATUSES = ("", "stored", "duplicate", "rejected")


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /api/query."""

    sql: str
    format: str = "json"


class ReplayOrder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/replay: from and until in microseconds since 1970, or one request's
    id (a UUID). One of `since` and `request_id` is needed."""

    since: int | None = None
    until: int | None = None
    request_id: UUID | None = None


#: Runs a replay, blocking; calls the second argument with progress; its result.
Replay = Callable[[ReplayOrder, Progress], dict[str, Any]]
#: Copies what only the hub can copy into the data folder, blocking; what it is a copy of.
Backup = Callable[[], dict[str, Any]]


class Console:
    """The handlers. `query` takes SQL and the name of one of the store's formats; it, `replay`,
    `backup`, `people` and `erase` block; `metrics` gives the Prometheus text, blocking;
    `ready` gives the reason why the hub is not ready, or an empty text."""

    def __init__(
        self,
        *,
        access: Access,
        query: Callable[[str, str], bytes],
        replay: Replay,
        backup: Backup,
        people: People,
        erase: Erase,
        metrics: Callable[[], bytes],
        ready: Callable[[], str],
        feed: Feed,
    ) -> None:
        self._access = access
        self._query = query
        self._replay = replay
        self._backup = backup
        self._people = PeopleRoutes(people, erase)
        self._metrics = metrics
        self._ready = ready
        self._feed = feed
        self._places = asyncio.Semaphore(limits.query_parallel_max)
        self._asking = 0
        self._replaying = False
        self._backing_up = False

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.index),
                Route("/healthz", self.health),
                Route("/readyz", self.readiness),
                Route("/metrics", self.show_metrics),
                Route("/api/query", self.ask, methods=["POST"]),
                Route("/api/live", self.live),
                Route("/api/replay", self.replay, methods=["POST"]),
                Route("/api/backup", self.backup, methods=["POST"]),
                *self._people.routes(),
            ],
            middleware=[Middleware(Guard, access=self._access)],
        )

    async def index(self, request: Request) -> Response:
        """What there is; with `?token=…`, first trade the token for a session cookie, so that the
        token does not stay in the address bar."""
        token = request.query_params.get("token")
        if token is not None:
            if not self._access.token_right(token):
                return _error(401, "that is not the token", "read it from data/console-token")
            answer = RedirectResponse("/", 303, {"cache-control": "no-store"})
            answer.set_cookie(
                COOKIE,
                self._access.session(),
                max_age=SESSION_SECONDS,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
            return answer
        return JSONResponse(
            {
                "headwater": headwater.__version__,
                "api": {
                    "POST /api/query": 'SQL: {"sql": "SELECT …", "format": "json"}',
                    "GET /api/live": "server-sent events; account, dialect, name, status",
                    "POST /api/replay": 'decode again: {"since": …} or {"request_id": "…"}',
                    "POST /api/backup": "the hub's part of `headwater backup`",
                    "GET /api/people?find=…": "who carries an identifier; account",
                    "GET /api/people/{id}": "all that is known of one person; history=1",
                    "GET /api/people/{id}/export": "everything held about one, as JSON lines",
                    "POST /api/people/{id}/erase": "erase one person",
                    "GET /api/merges": "which two became one; account",
                    "POST /api/merges/{id}/undo": "take a merge back; /allow: let it happen again",
                    "GET /metrics": "Prometheus",
                },
            },
            headers={"cache-control": "no-store", "x-content-type-options": "nosniff"},
        )

    async def health(self, request: Request) -> Response:
        """Alive."""
        return PlainTextResponse("ok\n")

    async def readiness(self, request: Request) -> Response:
        """Ready while the store answers and the loader runs."""
        reason = await run_in_threadpool(self._ready)
        return PlainTextResponse(f"{reason or 'ready'}\n", 503 if reason else 200)

    async def show_metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        text = await run_in_threadpool(self._metrics)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def ask(self, request: Request) -> Response:
        """Run one read-only query within its bounds."""
        body = await _body(request)
        if body is None:
            return _error(
                413,
                f"the query is longer than {limits.query_text_bytes_max} bytes",
                "make it shorter",
            )
        try:
            question = msgspec.json.decode(body, type=Question)
        except ValueError as error:
            return _error(400, str(error), 'send {"sql": "SELECT 1", "format": "json"}')
        if question.format not in FORMATS:
            return _error(
                400, f'unknown format "{question.format}"', f"use one of {', '.join(FORMATS)}"
            )
        if self._asking >= _QUERIES_WAITING_MAX:
            return _error(503, "too many queries at once", "try again", retry_seconds=2)
        form = FORMATS[question.format]
        self._asking += 1
        try:
            async with self._places:
                text = await run_in_threadpool(self._run, question.sql, form)
        except QueryRefused as error:
            return _error(400, error.message, error.remedy)
        except HeadwaterError as error:
            log.warning("query failed: %s", error)
            return _error(503, error.message, error.remedy)
        finally:
            self._asking -= 1
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(text, media_type=form.media_type, headers=headers)

    def _run(self, sql: str, form: Format) -> bytes:
        return form.render(self._query(sql, form.form))

    async def live(self, request: Request) -> Response:
        """Server-sent events of what is being stored, dropped as a duplicate, or rejected."""
        asked = dict(request.query_params)
        unknown = set(asked) - set(Filter.__struct_fields__)
        if unknown or asked.get("status", "") not in _STATUSES:
            return _error(
                400,
                f"unknown filter {', '.join(sorted(unknown)) or asked['status']}",
                "filter by account, dialect, name, status (stored, duplicate, rejected)",
            )
        if self._feed.full:
            return _error(
                503,
                f"{limits.live_subscribers_max} are watching already",
                "close one of them",
                retry_seconds=10,
            )
        return StreamingResponse(
            self._feed.watch(Filter(**asked)),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def replay(self, request: Request) -> Response:
        """Decode journaled requests again; progress as JSON lines, the result last."""
        body = await _body(request)
        try:
            order = msgspec.json.decode(body or b"", type=ReplayOrder)
        except ValueError as error:
            return _error(400, str(error), 'send {"since": MICROSECONDS} or {"request_id": "UUID"}')
        if order.since is None and order.request_id is None:
            return _error(400, "from when?", 'send "since" or "request_id"')
        if self._replaying:
            return _error(409, "a replay is running", "wait for its end", retry_seconds=10)
        self._replaying = True

        def work(progress: Progress) -> dict[str, Any]:
            return self._replay(order, progress)

        return StreamingResponse(lines_of("the replay", work, self._replay_ended), media_type=LINES)

    async def backup(self, request: Request) -> Response:
        """Copy the hub's part into the data folder, for `headwater backup` to take away."""
        if self._backing_up:
            return _error(409, "a backup is being taken", "wait for its end", retry_seconds=10)
        self._backing_up = True

        def work(progress: Progress) -> dict[str, Any]:
            return self._backup()

        return StreamingResponse(lines_of("the backup", work, self._backup_ended), media_type=LINES)

    def _backup_ended(self) -> None:
        self._backing_up = False

    def _replay_ended(self) -> None:
        # The place is free again when the work ends, also when the asker has gone away before.
        self._replaying = False


async def _body(request: Request) -> bytes | None:
    """The body, None once it is longer than a query may be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.query_text_bytes_max:
            return None
    return bytes(body)


def _error(status: int, what: str, remedy: str, *, retry_seconds: int = 0) -> JSONResponse:
    headers = {"retry-after": str(retry_seconds)} if retry_seconds else None
    return JSONResponse({"error": what, "remedy": remedy}, status, headers)
