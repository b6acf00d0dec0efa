"""The console's JSON API as a list of endpoints: what each takes, gives and asks of a token.

One list serves the requests, the OpenAPI description (version 3.1) and the page that shows it, so
that none of the three can be behind the others. What answers blocks, so it runs in threads, a few
at a time.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import headwater
from headwater import limits
from headwater.errors import (
    Forbidden,
    HeadwaterError,
    NotFound,
    QueryRefused,
    TooLong,
    WrongUse,
)
from headwater.view.access import Who
from headwater.view.formats import to_json

log = logging.getLogger("headwater.view.api")

#: What no cache may keep and no browser may take for something else.
PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_PARAMETER = re.compile(r"\{(\w+)\}")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a question to the store gave: `types` are ClickHouse's, a row is a list of JSON values
    in the order of `columns`, and `sql` is the question itself, fit to be asked again."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    sql: str = ""


#: Asks the store, blocking: SQL on the public views, and on whose behalf. Raises QueryRefused,
#: StoreError.
Ask = Callable[[str, Who], Answer]


class Refusal(msgspec.Struct, frozen=True):
    """The answer of every endpoint that refuses: what is wrong, and what to do."""

    error: str
    remedy: str


class Asked(msgspec.Struct, frozen=True):
    """One request, checked: path parameters, and the query string and body in the endpoint's own
    types (None where it has none)."""

    who: Who
    path: Mapping[str, str]
    query: Any = None
    body: Any = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one address. `handle` blocks and gives what msgspec can encode; it raises
    NotFound (404), WrongUse or QueryRefused (400), Forbidden (403), other HeadwaterErrors (503).

    `path` is Starlette's (``/api/people/{ident}``). `scope` is ``read`` or ``admin``. `query` is a
    struct whose fields are text, numbers, truth or lists of text, all with defaults: a parameter
    that it does not have is refused. `raw` stands instead of `handle` where the answer is no JSON
    document, of the media type `media`.
    """

    method: str
    path: str
    summary: str
    answer: Any
    handle: Callable[[Asked], Any] | None = None
    raw: Callable[[Request], Awaitable[Response]] | None = None
    media: str = "application/json"
    scope: str = "read"
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None


class Api:
    """Serves endpoints; `body_bytes_max` bounds every body."""

    def __init__(
        self, endpoints: Sequence[Endpoint], *, body_bytes_max: int = limits.api_body_bytes_max
    ) -> None:
        self.endpoints = list(endpoints)
        self._body_bytes_max = body_bytes_max
        self._places = asyncio.Semaphore(limits.query_parallel_max)
        self._asking = 0

    def routes(self) -> list[Route]:
        """For the console's application."""
        return [Route(one.path, self._handler(one), methods=[one.method]) for one in self.endpoints]

    def _handler(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            who: Who = request.state.who
            try:
                if endpoint.scope == "admin" and not who.admin:
                    raise Forbidden(
                        f'the token "{who.name}" may read only',
                        remedy="use one whose scope is admin",
                    )
                if endpoint.raw is not None:
                    return await endpoint.raw(request)
                asked = Asked(
                    who,
                    request.path_params,
                    query_of(request, endpoint.query),
                    await self._body(request, endpoint.body),
                )
                return await self._answer(endpoint, asked)
            except HeadwaterError as error:
                return refusal(error)

        return serve

    async def _answer(self, endpoint: Endpoint, asked: Asked) -> Response:
        if self._asking >= limits.queries_waiting_max:
            return refuse(503, "too many questions at once", "try again", retry_seconds=2)
        handle = endpoint.handle
        assert handle is not None

        def work() -> bytes:
            return to_json(handle(asked))

        self._asking += 1
        try:
            async with self._places:
                text = await run_in_threadpool(work)
        finally:
            self._asking -= 1
        return Response(text, media_type="application/json", headers=PRIVATE)

    async def _body(self, request: Request, kind: type[msgspec.Struct] | None) -> Any:
        if kind is None:
            return None
        body = await body_of(request, self._body_bytes_max)
        try:
            return msgspec.json.decode(body, type=kind)
        except ValueError as error:
            raise WrongUse(str(error), remedy="see /api/openapi.json") from None


def query_of(request: Request, kind: type[msgspec.Struct] | None) -> Any:
    """The query string as a struct. Raises WrongUse for an unknown parameter or a bad value."""
    given = request.query_params.multi_items()
    if kind is None:
        kind = _Nothing
    lists = {
        field.name
        for field in msgspec.structs.fields(kind)
        if isinstance(msgspec.inspect.type_info(field.type), msgspec.inspect.ListType)
    }
    known = {field.name for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given:
        if name not in known:
            words = f"known here: {', '.join(sorted(known))}" if known else "there is none here"
            raise WrongUse(f'unknown parameter "{name}"', remedy=words)
        if name in lists:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except ValueError as error:
        raise WrongUse(str(error), remedy="see /api/openapi.json") from None


class _Nothing(msgspec.Struct):
    pass


async def body_of(request: Request, bytes_max: int) -> bytes:
    """The body. Raises TooLong."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise TooLong(f"the body is longer than {bytes_max} bytes", remedy="make it shorter")
    return bytes(body)


def refuse(status: int, what: str, remedy: str, *, retry_seconds: int = 0) -> JSONResponse:
    """A refusal as JSON."""
    headers = dict(PRIVATE)
    if retry_seconds:
        headers["retry-after"] = str(retry_seconds)
    return JSONResponse({"error": what, "remedy": remedy}, status, headers)


def refusal(error: HeadwaterError) -> JSONResponse:
    """The one place where an error becomes a status."""
    if isinstance(error, NotFound):
        return refuse(404, error.message, error.remedy)
    if isinstance(error, Forbidden):
        return refuse(403, error.message, error.remedy)
    if isinstance(error, TooLong):
        return refuse(413, error.message, error.remedy)
    if isinstance(error, (WrongUse, QueryRefused)):
        return refuse(400, error.message, error.remedy)
    log.warning("not answered: %s", error)
    return refuse(503, error.message, error.remedy)


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The description of the API, OpenAPI 3.1."""
    types: list[Any] = [Refusal]
    for one in endpoints:
        types += [kind for kind in (one.answer, one.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    named = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    refused = {
        "description": "refused: what is wrong, and what to do",
        "content": {"application/json": {"schema": named[id(Refusal)]}},
    }
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        content: dict[str, Any] = {one.media: {}}
        if one.answer is not None:
            content = {one.media: {"schema": named[id(one.answer)]}}
        operation: dict[str, Any] = {
            "summary": one.summary,
            "operationId": _operation(one),
            "security": [{"token": [one.scope]}, {"session": [one.scope]}],
            "parameters": _parameters(one),
            "responses": {"200": {"description": "done", "content": content}, "default": refused},
        }
        if one.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": named[id(one.body)]}},
            }
        paths.setdefault(one.path, {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": headwater.__version__,
            "description": "What the console's pages show. Times are UTC, ISO 8601.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "headwater_session"},
            },
        },
    }


def _operation(one: Endpoint) -> str:
    return "_".join([one.method.lower(), *re.findall(r"\w+", one.path)[1:]])


def _parameters(one: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(one.path)
    ]
    if one.query is not None:
        for field in msgspec.structs.fields(one.query):
            schema = msgspec.json.schema(field.type)
            if field.default is not msgspec.NODEFAULT:
                schema["default"] = msgspec.to_builtins(field.default)
            found.append({"name": field.name, "in": "query", "schema": schema})
    return found
