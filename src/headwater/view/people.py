"""The console's API on people: find one, see all that is known, mend a merge, take it away, erase.

What answers comes in as one argument (:class:`People`), so that nothing here knows how a person is
put together. Everything that answers blocks, so it runs in threads, a few at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from headwater import limits
from headwater.errors import HeadwaterError, NotFound, QueryRefused, WrongUse
from headwater.view.api import Endpoint
from headwater.view.formats import to_json
from headwater.view.progress import LINES, Progress, lines_of

log = logging.getLogger("headwater.view.people")

_PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
#: Calls that may wait for a free place; more are told to come back.
_WAITING_MAX = 4 * limits.query_parallel_max


class People(Protocol):
    """What the endpoints ask. Ids are text; every method blocks.

    Raises NotFound for an id that is nobody's, WrongUse for what is no id, StoreError.
    """

    def find(self, text: str, account: str = "") -> dict[str, Any]:
        """Who carries an identifier, in one account or (for "") in all."""
        ...

    def show(self, ident: str, *, history: bool = False) -> dict[str, Any]:
        """All that is known of one person, bounded."""
        ...

    def export(self, ident: str) -> Iterator[bytes]:
        """Everything held about one person, as JSON lines; the first names the person."""
        ...

    def merges(self, account: str = "") -> dict[str, Any]:
        """Which two became one, the latest first."""
        ...

    def undo(self, merge: str) -> dict[str, Any]:
        """Withdraw what caused a merge; the merge as it stands then."""
        ...

    def allow(self, merge: str) -> dict[str, Any]:
        """Let it count again; the merge as it stands then."""
        ...

    def locate(self, ident: str) -> tuple[str, str]:
        """The person's id and account."""
        ...


Handler = Callable[[Request], Awaitable[Response]]
#: Erases, blocking: person id, account; calls the third argument with progress; the receipt.
Erase = Callable[[str, str, Progress], dict[str, Any]]


class PeopleRoutes:
    """The handlers."""

    def __init__(self, people: People, erase: Erase) -> None:
        self._people = people
        self._erase = erase
        self._places = asyncio.Semaphore(limits.query_parallel_max)
        self._asking = 0
        self._exporting = 0
        self._erasing = False

    def endpoints(self) -> list[Endpoint]:
        """For the console's API."""

        def one(
            method: str, path: str, summary: str, raw: Handler, scope: str = "read"
        ) -> Endpoint:
            return Endpoint(
                method=method, path=path, summary=summary, answer=None, raw=raw, scope=scope
            )

        return [
            one("GET", "/api/people", "Who carries an identifier; find, account.", self.find),
            one("GET", "/api/people/{ident}", "All that is known of one person.", self.show),
            one("GET", "/api/people/{ident}/export", "Everything about one person.", self.export),
            one("POST", "/api/people/{ident}/erase", "Erase one person.", self.erase, "admin"),
            one("GET", "/api/merges", "Which two became one; account.", self.merges),
            one("POST", "/api/merges/{ident}/undo", "Take a merge back.", self.undo, "admin"),
            one("POST", "/api/merges/{ident}/allow", "Let it count again.", self.allow, "admin"),
        ]

    async def find(self, request: Request) -> Response:
        """Who carries the identifier `find`."""
        text = request.query_params.get("find", "")
        if not text.strip():
            return _error(400, "find whom?", "add ?find=email:jane@example.com")
        account = request.query_params.get("account", "")
        return await self._answer(lambda: self._people.find(text, account))

    async def show(self, request: Request) -> Response:
        """One person; with `history=1`, every value that the profile ever had."""
        ident = request.path_params["ident"]
        history = request.query_params.get("history", "0") != "0"
        return await self._answer(lambda: self._people.show(ident, history=history))

    async def merges(self, request: Request) -> Response:
        """Merges, of one account with `account`."""
        account = request.query_params.get("account", "")
        return await self._answer(lambda: self._people.merges(account))

    async def undo(self, request: Request) -> Response:
        """Withdraw what caused a merge."""
        ident = request.path_params["ident"]
        return await self._answer(lambda: self._people.undo(ident))

    async def allow(self, request: Request) -> Response:
        """Let what caused a merge count again."""
        ident = request.path_params["ident"]
        return await self._answer(lambda: self._people.allow(ident))

    async def _answer(self, ask: Callable[[], dict[str, Any]]) -> Response:
        if self._asking >= _WAITING_MAX:
            return _error(503, "too many questions at once", "try again", retry_seconds=2)
        self._asking += 1
        try:
            async with self._places:
                found = await run_in_threadpool(ask)
        except HeadwaterError as error:
            return _refusal(error)
        finally:
            self._asking -= 1
        return Response(to_json(found), media_type="application/json", headers=_PRIVATE)

    async def export(self, request: Request) -> Response:
        """Everything held about one person, line by line; the last line is `end`, or `error`."""
        if self._exporting >= limits.exports_parallel_max:
            return _error(
                503,
                f"{limits.exports_parallel_max} exports are running",
                "wait for the end of one",
                retry_seconds=10,
            )
        lines = self._people.export(request.path_params["ident"])
        self._exporting += 1
        try:
            # The first line is asked for here: that nobody is there is a status, not a line.
            first = await run_in_threadpool(next, lines, b"")
        except HeadwaterError as error:
            self._exporting -= 1
            return _refusal(error)
        except BaseException:
            self._exporting -= 1
            raise
        return _Stream(_following(first, lines), self._export_ended)

    def _export_ended(self) -> None:
        self._exporting -= 1

    async def erase(self, request: Request) -> Response:
        """Erase one person; progress as JSON lines, the receipt last."""
        if self._erasing:
            return _error(409, "an erasure is running", "wait for its end", retry_seconds=10)
        self._erasing = True
        try:
            # Asked for here: that nobody is there is a status, not a line.
            person, account = await run_in_threadpool(
                self._people.locate, request.path_params["ident"]
            )
        except HeadwaterError as error:
            self._erasing = False
            return _refusal(error)
        except BaseException:
            self._erasing = False
            raise

        def work(progress: Progress) -> dict[str, Any]:
            return self._erase(person, account, progress)

        return StreamingResponse(
            lines_of("the erasure", work, self._erase_ended), media_type=LINES, headers=_PRIVATE
        )

    def _erase_ended(self) -> None:
        self._erasing = False


class _Stream(StreamingResponse):
    """Lines whose end is told, also when the asker goes away before the first."""

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type=LINES, headers=_PRIVATE)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def _following(first: bytes, lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        line = first
        while line:
            yield line
            line = await run_in_threadpool(next, lines, b"")
    except HeadwaterError as error:
        log.warning("an export broke off: %s", error)
        yield to_json({"error": error.message, "remedy": error.remedy}) + b"\n"


def _refusal(error: HeadwaterError) -> JSONResponse:
    if isinstance(error, NotFound):
        return _error(404, error.message, error.remedy)
    if isinstance(error, (WrongUse, QueryRefused)):
        return _error(400, error.message, error.remedy)
    log.warning("not answered: %s", error)
    return _error(503, error.message, error.remedy)


def _error(status: int, what: str, remedy: str, *, retry_seconds: int = 0) -> JSONResponse:
    headers = {"retry-after": str(retry_seconds)} if retry_seconds else None
    return JSONResponse({"error": what, "remedy": remedy}, status, headers)
