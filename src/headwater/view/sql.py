"""SQL over HTTP: questions, what can be asked about, and questions kept as files.

Questions are read-only by construction (``store.guard``) and bounded in time, memory and rows.
Kept ones are plain ``.sql`` files in the data folder's ``queries``, so that they can be put under
version control, or copied there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from headwater import limits
from headwater.errors import NotFound, WrongUse
from headwater.view.access import Who
from headwater.view.api import PRIVATE, Asked, Endpoint, body_of, query_of, refuse
from headwater.view.formats import FORMATS, Format

#: A name of a kept query: a file name on every system, and never a path.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")
_NAME_REMEDY = "use letters, digits, spaces, - and _; up to 64"

#: Runs a user's SQL, blocking: the text, one of the store's formats, on whose behalf. Raises
#: QueryRefused, StoreError.
Query = Callable[[str, str, Who], bytes]


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /api/query."""

    sql: str
    format: str = "json"


class Linked(msgspec.Struct):
    """The same as a link: GET /api/query."""

    sql: str = ""
    format: str = "json"


class Column(msgspec.Struct, frozen=True):
    """A column of a table that can be asked about; `type` is ClickHouse's."""

    name: str
    type: str


class Example(msgspec.Struct, frozen=True):
    """A question to begin with."""

    title: str
    sql: str


class Schema(msgspec.Struct, frozen=True):
    """What can be asked about, and within which bounds."""

    tables: dict[str, list[Column]]
    examples: list[Example]
    seconds_max: int
    memory_bytes_max: int
    rows_max: int
    answer_bytes_max: int


class Kept(msgspec.Struct, frozen=True):
    """A kept query."""

    name: str
    sql: str


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /api/queries/{name}."""

    sql: str


EXAMPLES = (
    Example(
        "Events a minute, the last hour",
        "SELECT toStartOfMinute(received_at) AS minute, dialect, count() AS events\n"
        "FROM events\nWHERE received_at > now() - INTERVAL 1 HOUR\n"
        "GROUP BY minute, dialect\nORDER BY minute",
    ),
    Example(
        "The commonest names",
        "SELECT dialect, name, count() AS events, uniq(person_id) AS people\n"
        "FROM events\nWHERE received_at > now() - INTERVAL 7 DAY\n"
        "GROUP BY dialect, name\nORDER BY events DESC\nLIMIT 20",
    ),
    Example(
        "People seen in more than one dialect",
        "SELECT person_id, groupUniqArray(dialect) AS dialects, count() AS events\n"
        "FROM events\nWHERE person_id IS NOT NULL AND received_at > now() - INTERVAL 7 DAY\n"
        "GROUP BY person_id\nHAVING length(dialects) > 1\nORDER BY events DESC\nLIMIT 50",
    ),
    Example(
        "A property's values",
        "SELECT properties.generic.total.:Float64 AS total, count() AS events\n"
        "FROM events\nWHERE dialect = 'vibetrace' AND name = 'confirmation'\n"
        "GROUP BY total\nORDER BY events DESC\nLIMIT 20",
    ),
    Example(
        "What was rejected, and why",
        "SELECT account, dialect, reason, count() AS requests, max(received_at) AS last\n"
        "FROM rejected\nGROUP BY ALL\nORDER BY requests DESC",
    ),
    Example("The books", "SELECT * FROM accounting"),
)


class SqlRoutes:
    """`query` runs SQL; `tables` describes the views; `folder` holds the kept queries."""

    def __init__(
        self,
        *,
        query: Query,
        tables: Callable[[], Mapping[str, Sequence[tuple[str, str]]]],
        folder: Path,
    ) -> None:
        self._query = query
        self._tables = tables
        self._folder = folder
        self._places = asyncio.Semaphore(limits.query_parallel_max)
        self._asking = 0

    def endpoints(self) -> list[Endpoint]:
        """For the console's API."""
        return [
            Endpoint(
                method="POST",
                path="/api/query",
                summary="Run one read-only query; format is json, jsonl, csv or parquet.",
                answer=None,
                raw=self.ask,
                body=Question,
            ),
            Endpoint(
                method="GET",
                path="/api/query",
                summary="The same as a link.",
                answer=None,
                raw=self.ask_by_link,
                query=Linked,
            ),
            Endpoint(
                method="GET",
                path="/api/schema",
                summary="The tables and columns that a query can ask about, its bounds, examples.",
                answer=Schema,
                handle=self.schema,
            ),
            Endpoint(
                method="GET",
                path="/api/queries",
                summary="The queries that are kept as files.",
                answer=list[Kept],
                handle=self.kept,
            ),
            Endpoint(
                method="PUT",
                path="/api/queries/{name}",
                summary="Keep a query as a file of the data folder.",
                answer=Kept,
                handle=self.keep,
                scope="admin",
                body=Text,
            ),
            Endpoint(
                method="DELETE",
                path="/api/queries/{name}",
                summary="Keep it no longer.",
                answer=Kept,
                handle=self.drop,
                scope="admin",
            ),
        ]

    async def ask(self, request: Request) -> Response:
        """Run one read-only query within its bounds."""
        body = await body_of(request, limits.query_text_bytes_max)
        try:
            question = msgspec.json.decode(body, type=Question)
        except ValueError as error:
            remedy = 'send {"sql": "SELECT 1", "format": "json"}'
            raise WrongUse(str(error), remedy=remedy) from None
        return await self._run(question.sql, question.format, request)

    async def ask_by_link(self, request: Request) -> Response:
        """The same, of a link."""
        linked: Linked = query_of(request, Linked)
        return await self._run(linked.sql, linked.format, request)

    async def _run(self, sql: str, form_name: str, request: Request) -> Response:
        if form_name not in FORMATS:
            raise WrongUse(
                f'unknown format "{form_name}"', remedy=f"use one of {', '.join(FORMATS)}"
            )
        if self._asking >= limits.queries_waiting_max:
            return refuse(503, "too many queries at once", "try again", retry_seconds=2)
        form = FORMATS[form_name]
        self._asking += 1
        try:
            async with self._places:
                text = await run_in_threadpool(self._rendered, sql, form, request.state.who)
        finally:
            self._asking -= 1
        headers = dict(PRIVATE)
        if form_name in ("csv", "parquet"):
            headers["content-disposition"] = f'attachment; filename="headwater.{form_name}"'
        return Response(text, media_type=form.media_type, headers=headers)

    def _rendered(self, sql: str, form: Format, who: Who) -> bytes:
        return form.render(self._query(sql, form.form, who))

    def schema(self, asked: Asked) -> Schema:
        """What can be asked about."""
        return Schema(
            tables={
                table: [Column(name, kind) for name, kind in columns]
                for table, columns in self._tables().items()
            },
            examples=list(EXAMPLES),
            seconds_max=limits.query_seconds_max,
            memory_bytes_max=limits.query_memory_bytes_max,
            rows_max=limits.query_rows_max,
            answer_bytes_max=limits.query_answer_bytes_max,
        )

    def kept(self, asked: Asked) -> list[Kept]:
        """The kept queries, by name. What is not readable, or has another name, is left out."""
        found = []
        for path in sorted(self._folder.glob("*.sql"))[: limits.saved_queries_max]:
            if not _NAME.fullmatch(path.stem):
                continue
            with contextlib.suppress(OSError):
                text = path.read_bytes()[: limits.query_text_bytes_max]
                found.append(Kept(path.stem, text.decode("utf-8", "replace")))
        return found

    def keep(self, asked: Asked) -> Kept:
        """Write one; another of that name is replaced."""
        path = self._path(asked.path["name"])
        text: Text = asked.body
        if len(text.sql.encode()) > limits.query_text_bytes_max:
            raise WrongUse(
                f"the query is longer than {limits.query_text_bytes_max} bytes",
                remedy="make it shorter",
            )
        self._folder.mkdir(exist_ok=True)
        if (
            not path.exists()
            and sum(1 for _ in self._folder.glob("*.sql")) >= limits.saved_queries_max
        ):
            raise WrongUse(
                f"{limits.saved_queries_max} queries are kept already", remedy="remove one first"
            )
        fresh = path.with_suffix(".part")
        fresh.write_text(text.sql, encoding="utf-8")
        os.replace(fresh, path)
        return Kept(path.stem, text.sql)

    def drop(self, asked: Asked) -> Kept:
        """Remove one."""
        path = self._path(asked.path["name"])
        try:
            kept = Kept(path.stem, path.read_text(encoding="utf-8", errors="replace"))
            path.unlink()
        except FileNotFoundError:
            raise NotFound(
                f'no query is kept as "{path.stem}"', remedy="GET /api/queries lists them"
            ) from None
        return kept

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise WrongUse(f'"{name}" cannot be the name of a query', remedy=_NAME_REMEDY)
        return self._folder / f"{name}.sql"
