"""The route table: a path to the dialect, endpoint and parameters it stands for.

Slashes are forgiven: a trailing one, and doubled ones anywhere (``//app/x/track`` is what a client
sends whose base URL ends in a slash). Literal segments are exact and win over parameters.

Nucleus' documented address, ``/{appId}``, would match any path of one segment. It counts only for
a WebSocket upgrade, and only when the segment is not a word that begins some other route.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

import msgspec

from headwater.accept.request import Dialect, Route

#: First segments that are never an appId, besides those of the dialects' own routes.
_RESERVED = frozenset(
    {"api", "favicon.ico", "headwater.js", "healthz", "metrics", "readyz", "robots.txt"}
    | {"mev", "mvpr", "nv", "pm", "vi"}  # Gamooga's mobile endpoints
)
_CACHE_PATHS_MAX = 4_096
_CACHE_PATH_CHARS_MAX = 256


class Match(msgspec.Struct, frozen=True):
    """Where a path leads. `methods` are those the dialect answers; `websocket`: it may be
    upgraded."""

    dialect: Dialect
    endpoint: str
    params: dict[str, str]
    methods: tuple[str, ...]
    websocket: bool


class _Entry(msgspec.Struct, frozen=True):
    dialect: Dialect
    route: Route
    segments: tuple[str, ...]  # "{name}" for a parameter
    names: tuple[str, ...]  # the parameter's name, or "" for a literal


class Router:
    """All routes of some dialects; built once."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._by_length: dict[int, list[_Entry]] = {}
        reserved = set(_RESERVED)
        for dialect in dialects:
            for route in dialect.ROUTES:
                entry = _entry(dialect, route)
                self._by_length.setdefault(len(entry.segments), []).append(entry)
                if not entry.names[0]:
                    reserved.add(entry.segments[0])
        for entries in self._by_length.values():
            entries.sort(key=lambda entry: sum(1 for name in entry.names if name))
        self._reserved = frozenset(reserved)
        self._cache: dict[tuple[str, bool], Match | None] = {}

    def match(self, path: str, *, websocket: bool = False) -> Match | None:
        """The route of a path (no query); None when there is none. `websocket`: the request asks
        for an upgrade, which a route that takes none ignores."""
        key = (path, websocket)
        try:
            return self._cache[key]
        except KeyError:
            pass
        found = self._match(path, websocket)
        if len(path) <= _CACHE_PATH_CHARS_MAX:
            if len(self._cache) >= _CACHE_PATHS_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = found
        return found

    def _match(self, path: str, websocket: bool) -> Match | None:
        given = [segment for segment in path.split("/") if segment]
        found: list[tuple[_Entry, dict[str, str]]] = []
        for entry in self._by_length.get(len(given), ()):
            params = self._params(entry, given)
            if params is not None:
                found.append((entry, params))
        if websocket:
            for entry, params in found:
                if entry.route.websocket:
                    return _match_of(entry, params)
        for entry, params in found:
            if entry.route.methods:
                return _match_of(entry, params)
        return None

    def _params(self, entry: _Entry, given: list[str]) -> dict[str, str] | None:
        params: dict[str, str] = {}
        for segment, name, actual in zip(entry.segments, entry.names, given, strict=True):
            if not name:
                if segment != actual:
                    return None
                continue
            value = unquote(actual, errors="replace") if "%" in actual else actual
            if not params and entry.names[0] and value in self._reserved:
                return None
            params[name] = value
        return params


def _entry(dialect: Dialect, route: Route) -> _Entry:
    segments = tuple(segment for segment in route.path.split("/") if segment)
    names = tuple(
        segment[1:-1] if segment.startswith("{") and segment.endswith("}") else ""
        for segment in segments
    )
    return _Entry(dialect, route, segments, names)


def _match_of(entry: _Entry, params: dict[str, str]) -> Match:
    route = entry.route
    return Match(entry.dialect, route.endpoint, params, route.methods, route.websocket)
