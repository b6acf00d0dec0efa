"""Paths to endpoints."""

from __future__ import annotations

import pytest

from headwater.accept.request import Route
from headwater.accept.routes import Router
from headwater.decode.dialects import DIALECTS

ROUTER = Router(DIALECTS)


@pytest.mark.parametrize(
    ("path", "dialect", "params"),
    [
        ("/api/tracker/events", "vaix", {}),
        ("/api/tracker/events/", "vaix", {}),
        ("//api//tracker/events//", "vaix", {}),
        ("/collect/1/2/event", "orbee", {"aid": "1", "tid": "2"}),
        ("/collect/a%20b/%zz/event", "orbee", {"aid": "a b", "tid": "%zz"}),
        ("//app/x/track", "nucleus", {"app": "x"}),
        ("/event/ACCT123/confirmation", "vibetrace", {}),
        ("/event/ACCT123/", "vibetrace", {}),
        ("/ev", "gamooga", {}),
        ("/evwidj/", "gamooga", {}),
        ("/id/", "gamooga", {}),
    ],
)
def test_paths_lead_to_their_dialect(path: str, dialect: str, params: dict[str, str]) -> None:
    match = ROUTER.match(path)
    assert match is not None
    assert dialect == match.dialect.NAME
    assert params.items() <= match.params.items()
    assert ROUTER.match(path) is match  # remembered


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "*",
        "/app",
        "/app/x",
        "/app/x/track/y",
        "/6387f260fae4a13be78fc664",
        "/API/tracker/events",
    ],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert ROUTER.match(path) is None


def test_the_root_is_an_app_only_for_an_upgrade_and_no_reserved_word() -> None:
    match = ROUTER.match("/6387f260fae4a13be78fc664/", websocket=True)
    assert match is not None
    assert (match.dialect.NAME, match.websocket) == ("nucleus", True)
    assert match.params == {"app": "6387f260fae4a13be78fc664"}
    own = {"app", "api", "collect", "event", "ev", "evwid", "evwidj", "evvprwid", "vpr", "id"}
    for word in [*own, "newnaconf", "nv", "mev", "mvpr", "vi", "pm", "healthz", "readyz", "e%76"]:
        found = ROUTER.match(f"/{word}", websocket=True)
        assert found is None or found.dialect.NAME != "nucleus", word


def test_an_upgrade_where_none_is_taken_finds_the_ordinary_route() -> None:
    match = ROUTER.match("/api/tracker/events", websocket=True)
    assert match is not None
    assert not match.websocket


def test_literals_win_over_parameters_and_memory_is_bounded() -> None:
    class Dialect:
        NAME = "orbee"
        ROUTES = (Route("/x/{name}", "any", ("GET",)), Route("/x/y", "one", ("POST",)))

    router = Router([Dialect()])  # type: ignore[list-item]
    found = router.match("/x/y")
    assert found is not None
    assert (found.endpoint, found.methods) == ("one", ("POST",))
    for number in range(10_000):
        router.match(f"/x/{number}")
    router.match("/x/" + "z" * 1_000)
    assert len(router._cache) <= 4_096
    assert max(len(path) for path, _ in router._cache) < 300
