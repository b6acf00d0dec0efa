"""The console on the private port: its pages, its API, the live feed, health and metrics.

An ordinary Starlette application: everything here is off the collector's path. What it shows comes
in as arguments, so that nothing here knows how a row was stored. The API is one list of endpoints
(``api.py``); each feature has a file that makes some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from headwater import limits
from headwater.errors import WrongUse
from headwater.view.access import Access, Guard
from headwater.view.api import PRIVATE, Api, Asked, Endpoint, body_of, openapi, query_of, refuse
from headwater.view.live import Feed, Filter
from headwater.view.pages import Pages
from headwater.view.progress import LINES, Progress, lines_of

_STATUSES = ("", "stored", "duplicate", "rejected")


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
    """`endpoints` are the features' own. `replay` and `backup` block; `metrics` gives the
    Prometheus text, blocking; `ready` gives the reason why the hub is not ready, or an empty text;
    `scripts` are files of installed packages that pages need, by the name they are asked for."""

    def __init__(
        self,
        *,
        access: Access,
        endpoints: Sequence[Endpoint],
        replay: Replay,
        backup: Backup,
        metrics: Callable[[], bytes],
        ready: Callable[[], str],
        feed: Feed,
        accounts: Callable[[], Sequence[str]],
    ) -> None:
        self._access = access
        self._replay = replay
        self._backup = backup
        self._metrics = metrics
        self._ready = ready
        self._feed = feed
        self._replaying = False
        self._backing_up = False
        self._api = Api([*endpoints, *self._endpoints()])
        self._pages = Pages(access=access, accounts=accounts)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/healthz", self.health),
                Route("/readyz", self.readiness),
                Route("/metrics", self.show_metrics),
                *self._api.routes(),
                *self._pages.routes(),
                Mount("/static", self._pages.static()),
            ],
            middleware=[Middleware(Guard, access=self._access)],
        )

    def _endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/api/live",
                summary="Server-sent events: what was stored, a duplicate, or rejected.",
                answer=None,
                raw=self.live,
                media="text/event-stream",
                query=Filter,
            ),
            Endpoint(
                method="POST",
                path="/api/replay",
                summary="Decode journaled requests again; progress as JSON lines, the result last.",
                answer=None,
                raw=self.replay,
                media=LINES,
                scope="admin",
                body=ReplayOrder,
            ),
            Endpoint(
                method="POST",
                path="/api/backup",
                summary="The hub's part of `headwater backup`; progress as JSON lines.",
                answer=None,
                raw=self.backup,
                media=LINES,
                scope="admin",
            ),
            Endpoint(
                method="GET",
                path="/api/openapi.json",
                summary="This description, OpenAPI 3.1.",
                answer=dict[str, Any],
                handle=self.describe,
            ),
        ]

    def describe(self, asked: Asked) -> dict[str, Any]:
        """The API's description."""
        return openapi(self._api.endpoints)

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

    async def live(self, request: Request) -> Response:
        """Server-sent events of what is being stored, dropped as a duplicate, or rejected."""
        wanted: Filter = query_of(request, Filter)
        if wanted.status not in _STATUSES:
            raise WrongUse(
                f'unknown status "{wanted.status}"', remedy="one of stored, duplicate, rejected"
            )
        if self._feed.full:
            return refuse(
                503,
                f"{limits.live_subscribers_max} are watching already",
                "close one of them",
                retry_seconds=10,
            )
        return StreamingResponse(
            self._feed.watch(wanted, request.state.who.accounts),
            media_type="text/event-stream",
            headers={**PRIVATE, "x-accel-buffering": "no"},
        )

    async def replay(self, request: Request) -> Response:
        """Decode journaled requests again; progress as JSON lines, the result last."""
        body = await body_of(request, limits.api_body_bytes_max)
        try:
            order = msgspec.json.decode(body, type=ReplayOrder)
        except ValueError as error:
            remedy = 'send {"since": MICROSECONDS} or {"request_id": "UUID"}'
            raise WrongUse(str(error), remedy=remedy) from None
        if order.since is None and order.request_id is None:
            raise WrongUse("from when?", remedy='send "since" or "request_id"')
        if self._replaying:
            return refuse(409, "a replay is running", "wait for its end", retry_seconds=10)
        self._replaying = True

        def work(progress: Progress) -> dict[str, Any]:
            return self._replay(order, progress)

        return StreamingResponse(lines_of("the replay", work, self._replay_ended), media_type=LINES)

    async def backup(self, request: Request) -> Response:
        """Copy the hub's part into the data folder, for `headwater backup` to take away."""
        if self._backing_up:
            return refuse(409, "a backup is being taken", "wait for its end", retry_seconds=10)
        self._backing_up = True

        def work(progress: Progress) -> dict[str, Any]:
            return self._backup()

        return StreamingResponse(lines_of("the backup", work, self._backup_ended), media_type=LINES)

    def _backup_ended(self) -> None:
        self._backing_up = False

    def _replay_ended(self) -> None:
        # The place is free again when the work ends, also when the asker has gone away before.
        self._replaying = False
