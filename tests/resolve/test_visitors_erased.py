"""Gamooga's mappings taken away: no trace in the files, and no process goes on answering them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.accept.request import Identify
from headwater.clock import system_clock
from headwater.resolve import sqlite_visitors
from headwater.resolve.sqlite import SqliteRegistry


def ask(*users: str, visitor: str = "") -> Identify:
    return Identify(scope="company", users=users, visitor=visitor)


def traces(folder: Path, text: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if text in path.read_bytes()]


def test_a_mapping_is_gone_from_every_file_and_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = SqliteRegistry(tmp_path, system_clock), SqliteRegistry(tmp_path, system_clock)
    for number in range(300):
        here.identify("acme", ask(f"canary-{number}", visitor=f"visitor-canary-{number}"))
    here.identify("acme", ask("bob", visitor="v-bob"))
    here.identify("other", ask("canary-0", visitor="v-other"))
    assert there.identify("acme", ask("canary-7")).visitor == "visitor-canary-7"
    assert there.known("acme", ask("canary-7")) is not None
    mapped = here.mapped("acme")
    assert len(mapped) == 301
    here.erase("acme", [(scope, user) for scope, user, *_ in mapped if user != "bob"])
    assert traces(tmp_path, b"visitor-canary") == []
    assert [row[:3] for row in here.mapped("acme")] == [("company", "bob", "v-bob")]
    assert here.identify("other", ask("canary-0")).visitor == "v-other"
    monkeypatch.setattr(sqlite_visitors, "_LOOK_SECONDS", 0.0)
    there._visitors._look_at = 0.0
    assert there.known("acme", ask("canary-7")) is None
    assert there.identify("acme", ask("canary-7")).created
    assert there.identify("acme", ask("bob")).visitor == "v-bob"
    here.close()
    there.close()
    assert traces(tmp_path, b"visitor-canary") == []


def test_what_is_erased_while_it_is_asked_for_is_not_remembered(tmp_path: Path) -> None:
    here, there = SqliteRegistry(tmp_path, system_clock), SqliteRegistry(tmp_path, system_clock)
    here.identify("acme", ask("canary", visitor="v-canary"))
    visitors = there._visitors
    look_up = visitors._look_up

    def slow(*given: object) -> object:
        answer = look_up(*given)  # type: ignore[arg-type]
        here.erase("acme", [("company", "canary")])
        return answer

    visitors._look_up = slow  # type: ignore[method-assign,assignment]
    assert there.identify("acme", ask("canary")).visitor == "v-canary"
    assert there.known("acme", ask("canary")) is None
    here.close()
    there.close()


def test_erasing_nothing_cleans_what_an_earlier_call_has_left(tmp_path: Path) -> None:
    registry = SqliteRegistry(tmp_path, system_clock)
    registry.identify("acme", ask("canary", visitor="v-canary"))
    registry._visitors._database.execute("DELETE FROM visitors")
    assert traces(tmp_path, b"v-canary")
    registry.erase("acme", [])
    assert traces(tmp_path, b"v-canary") == []
    registry.close()
