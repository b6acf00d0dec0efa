"""A short run of kill -9 under load, and proof that the checker finds what it looks for."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.faults.kill import ACCOUNTS, Kills, load_and_kill, run, settled, stored
from tests.faults.ledger import Ledger, violations
from tests.served import Served

CLOSED = {"received": 1, "stored": 1, "duplicate": 0, "rejected": 0, "in_flight": 0}


@pytest.mark.timeout(240)
def test_kill_9_of_workers_and_hub_loses_and_doubles_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, seconds=10.0, seed=7) == []


@pytest.mark.timeout(240)
def test_the_run_notices_a_journal_that_lost_its_end(tmp_path: Path) -> None:
    """The negative control: the journal goes before the hub has read it; events are missing."""
    ledger = Ledger(tmp_path / "ledger")
    collector = Served(tmp_path, ACCOUNTS, command="collect")
    with collector:
        asyncio.run(load_and_kill(collector, ledger, seconds=1.0, kills=None))
    shutil.rmtree(tmp_path / "data" / "journal")
    with Served(tmp_path, ACCOUNTS) as served:
        books = settled(served)
        wrong = violations(ledger.acknowledged(), stored(served), books, ledger.visitors)
    ledger.close()
    assert any("acknowledged and lost" in one for one in wrong)


def test_a_lost_event_is_found() -> None:
    books = {("acme", "vaix"): CLOSED}
    assert violations({"vaix": {"m1"}}, [("vaix", "fault:m1", 1)], books, {}) == []
    wrong = violations({"vaix": {"m1", "m2"}}, [("vaix", "fault:m1", 1)], books, {})
    assert wrong == ["vaix: 1 acknowledged and lost, such as ['m2']"]


def test_a_doubled_event_is_found() -> None:
    books = {("acme", "vaix"): {**CLOSED, "received": 2, "stored": 2}}
    wrong = violations({"vaix": {"m1"}}, [("vaix", "fault:m1", 2)], books, {})
    assert wrong == ["vaix: 1 stored more than once, such as ['m1']"]


def test_books_that_do_not_close_are_found() -> None:
    books = {("acme", "vaix"): {**CLOSED, "received": 2}}
    (wrong,) = violations({}, [("vaix", "fault:m1", 1)], books, {})
    assert "do not close" in wrong


def test_two_visitors_of_one_user_are_found() -> None:
    (wrong,) = violations({}, [], {}, {"user-1": {"a" * 16, "b" * 16}})
    assert "given 2 visitors" in wrong


def test_a_schedule_follows_from_its_seed() -> None:
    first, again, other = Kills(1), Kills(1), Kills(2)
    said = [first.next() for _ in range(20)]
    assert said == [again.next() for _ in range(20)]
    assert said != [other.next() for _ in range(20)]


def test_the_ledger_survives_being_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    marks = [ledger.mark("vaix"), ledger.mark("orbee")]
    ledger.acknowledge("vaix", marks[:1])
    ledger.acknowledge("orbee", marks[1:])
    ledger.close()
    assert ledger.acknowledged() == {"vaix": {"m1"}, "orbee": {"m2"}}
