"""The console's API on people: find one, see all that is known, mend a merge, take it away, erase.

What answers comes in as one argument (:class:`People`), so that nothing here knows how a person is
put together. A token that is kept to some accounts finds nobody of others: their ids are answered
as those that nobody ever had.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from headwater import limits
from headwater.errors import HeadwaterError
from headwater.store.questions import people as questions
from headwater.view.api import PRIVATE, Asked, Endpoint, refuse
from headwater.view.formats import to_json
from headwater.view.people_answers import (
    Find,
    Merge,
    Merges,
    Of,
    Page,
    PeopleFound,
    Person,
    Shown,
    Timeline,
)
from headwater.view.progress import LINES, Progress, lines_of

log = logging.getLogger("headwater.view.people")

#: The accounts that may be seen, None for all.
Only = frozenset[str] | None


class People(Protocol):
    """What the endpoints ask. Ids are text; every method blocks; `only` are the accounts that may
    be seen. Raises NotFound for an id that is nobody's, WrongUse for what is no id, StoreError."""

    def find(self, text: str, account: str = "", only: Only = None) -> dict[str, Any]:
        """Who carries an identifier, in one account or (for "") in all."""
        ...

    def newest(self, account: str = "", only: Only = None) -> dict[str, Any]:
        """Who acted last."""
        ...

    def show(self, ident: str, only: Only = None, *, history: bool = False) -> dict[str, Any]:
        """All that is known of one person, bounded."""
        ...

    def timeline(
        self,
        ident: str,
        only: Only = None,
        *,
        before: str = "",
        dialect: str = "",
        kind: str = "",
        name: str = "",
    ) -> dict[str, Any]:
        """A page of a person's events, the newest first."""
        ...

    def export(self, ident: str, only: Only = None) -> Iterator[bytes]:
        """Everything held about one person, as JSON lines; the first names the person."""
        ...

    def merges(self, account: str = "", only: Only = None) -> dict[str, Any]:
        """Which two became one, the latest first."""
        ...

    def undo(self, merge: str, only: Only = None) -> dict[str, Any]:
        """Withdraw what caused a merge; the merge as it stands then."""
        ...

    def allow(self, merge: str, only: Only = None) -> dict[str, Any]:
        """Let it count again; the merge as it stands then."""
        ...

    def locate(self, ident: str, only: Only = None) -> tuple[str, str]:
        """The person's id and account."""
        ...


#: Erases, blocking: person id, account; calls the third argument with progress; the receipt.
Erase = Callable[[str, str, Progress], dict[str, Any]]


class PeopleRoutes:
    """The handlers."""

    def __init__(self, people: People, erase: Erase) -> None:
        self._people = people
        self._erase = erase
        self._exporting = 0
        self._erasing = False

    def endpoints(self) -> list[Endpoint]:
        """For the console's API."""
        return [
            Endpoint(
                method="GET",
                path="/api/people",
                summary="Who carries an identifier, or whose an id is; else who acted last.",
                answer=PeopleFound,
                handle=self.find,
                query=Find,
            ),
            Endpoint(
                method="GET",
                path="/api/people/{ident}",
                summary="All that is known of one person, by any id that was ever shown for it.",
                answer=Person,
                handle=self.show,
                query=Shown,
            ),
            Endpoint(
                method="GET",
                path="/api/people/{ident}/events",
                summary="A person's events in all dialects, the newest first, a page at a time.",
                answer=Timeline,
                handle=self.timeline,
                query=Page,
            ),
            Endpoint(
                method="GET",
                path="/api/people/{ident}/export",
                summary="Everything that is held about one person, as JSON lines.",
                answer=None,
                raw=self.export,
                media=LINES,
            ),
            Endpoint(
                method="POST",
                path="/api/people/{ident}/erase",
                summary="Erase one person; progress as JSON lines, the receipt last.",
                answer=None,
                raw=self.erase,
                media=LINES,
                scope="admin",
            ),
            Endpoint(
                method="GET",
                path="/api/merges",
                summary="Which two people became one, the latest first.",
                answer=Merges,
                handle=self.merges,
                query=Of,
            ),
            Endpoint(
                method="POST",
                path="/api/merges/{ident}/undo",
                summary="Take a merge back, by its id, the id that is gone, or the event.",
                answer=Merge,
                handle=self.undo,
                scope="admin",
            ),
            Endpoint(
                method="POST",
                path="/api/merges/{ident}/allow",
                summary="Let a merge happen again that was taken back.",
                answer=Merge,
                handle=self.allow,
                scope="admin",
            ),
        ]

    def find(self, asked: Asked) -> dict[str, Any]:
        """Who carries the identifier, or acted last."""
        query: Find = asked.query
        text = query.find.strip()
        only = asked.who.accounts
        if not text:
            newest = self._people.newest(query.account, only)
            return {**newest, "sql": questions.newest(query.account)}
        found = self._people.find(text, query.account, only)
        # As it was sent: what was typed may have a namespace in front.
        values = [one["value"] for one in found["people"]]
        return {**found, "sql": questions.carriers(values[0] if values else text, query.account)}

    def show(self, asked: Asked) -> dict[str, Any]:
        """One person; with `history`, every value that the profile ever had."""
        query: Shown = asked.query
        found = self._people.show(asked.path["ident"], asked.who.accounts, history=query.history)
        return {**found, "sql": questions.about(found["person_id"])}

    def timeline(self, asked: Asked) -> dict[str, Any]:
        """A page of events."""
        query: Page = asked.query
        about = {"dialect": query.dialect, "kind": query.kind, "name": query.name}
        found = self._people.timeline(
            asked.path["ident"], asked.who.accounts, before=query.before, **about
        )
        return {**found, "sql": questions.timeline(found["person_id"], **about)}

    def merges(self, asked: Asked) -> dict[str, Any]:
        """Merges, of one account with `account`."""
        query: Of = asked.query
        found = self._people.merges(query.account, asked.who.accounts)
        return {**found, "sql": questions.merges(query.account)}

    def undo(self, asked: Asked) -> dict[str, Any]:
        """Withdraw what caused a merge."""
        return self._people.undo(asked.path["ident"], asked.who.accounts)

    def allow(self, asked: Asked) -> dict[str, Any]:
        """Let what caused a merge count again."""
        return self._people.allow(asked.path["ident"], asked.who.accounts)

    async def export(self, request: Request) -> Response:
        """Everything held about one person, line by line; the last line is `end`, or `error`."""
        if self._exporting >= limits.exports_parallel_max:
            return refuse(
                503,
                f"{limits.exports_parallel_max} exports are running",
                "wait for the end of one",
                retry_seconds=10,
            )
        only = request.state.who.accounts
        lines = self._people.export(request.path_params["ident"], only)
        self._exporting += 1
        try:
            # The first line is asked for here: that nobody is there is a status, not a line.
            first = await run_in_threadpool(next, lines, b"")
        except BaseException:
            self._exporting -= 1
            raise
        return _Stream(_following(first, lines), self._export_ended)

    def _export_ended(self) -> None:
        self._exporting -= 1

    async def erase(self, request: Request) -> Response:
        """Erase one person; progress as JSON lines, the receipt last."""
        if self._erasing:
            return refuse(409, "an erasure is running", "wait for its end", retry_seconds=10)
        self._erasing = True
        try:
            # Asked for here: that nobody is there is a status, not a line.
            person, account = await run_in_threadpool(
                self._people.locate, request.path_params["ident"], request.state.who.accounts
            )
        except BaseException:
            self._erasing = False
            raise

        def work(progress: Progress) -> dict[str, Any]:
            return self._erase(person, account, progress)

        return StreamingResponse(
            lines_of("the erasure", work, self._erase_ended), media_type=LINES, headers=PRIVATE
        )

    def _erase_ended(self) -> None:
        self._erasing = False


class _Stream(StreamingResponse):
    """Lines whose end is told, also when the asker goes away before the first."""

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type=LINES, headers=PRIVATE)
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
