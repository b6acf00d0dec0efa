"""Which rows and requests an erasure takes, and which it leaves: a journal, a loader, no server."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from headwater.accept.request import Request
from headwater.erasing import Erasing
from headwater.errors import JournalFailed, NotFound, StoreError
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteEraser
from headwater.replay import replay
from headwater.resolve.keys import key_id, reborn
from headwater.resolve.sqlite_erasures import SqliteErasures
from headwater.store.rows import uuid_text
from tests.journaled import APP, AT, Loading, each, journal, nucleus, vaix
from tests.store.opened import empty_store

NOW = AT // 1000
GZIP = {"content-encoding": "gzip"}


class Alone(Loading):
    """A loader, and what erases beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, empty_store())
        self.folder = folder
        self.erasures = SqliteErasures(folder / "registry")
        self.erasing = self.eraser()

    def eraser(self, checkpoint: Callable[[str], None] | None = None) -> Erasing:
        return Erasing(
            loader=self.loader,
            visitors=self.registry,
            erasures=self.erasures,
            eraser=SqliteEraser(self.folder / "journal"),
            checkpoint=checkpoint,
        )

    def erase(self, person: bytes) -> dict[str, Any]:
        """The receipt's counts."""
        receipt = self.erasing.erase(person, "acme", lambda done: None)
        assert receipt["left"] == []
        counts = receipt["counts"]
        assert isinstance(counts, dict)
        return counts

    def people(self) -> dict[str, str]:
        """Whose each event is, by its name."""
        found = self.store.query("SELECT name, person_id FROM events ORDER BY name").rows
        return {name: str(person) for name, person in found}

    def requests(self) -> list[Request]:
        """What the journal holds now."""
        return [
            request
            for writer in self.reader.writers()
            for batch in self.reader.read(Position(writer, 0), batches_max=1_000, bytes_max=1 << 30)
            for request in batch.requests
        ]

    def replayed(self) -> None:
        """A replay finds nothing to do, and leaves the books."""
        books = self.books()
        result = replay(self.loader, since=0)
        assert (result.changed, result.added, result.removed, result.expired) == (0, 0, 0, 0)
        assert self.books() == books

    def close(self) -> None:
        super().close()
        self.erasures.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    opened = Alone(tmp_path)
    yield opened
    opened.close()


def user(name: str) -> bytes:
    return key_id("acme", "nucleus:user", APP, name)


def event(number: int, name: str, **who: str) -> dict[str, Any]:
    return {"name": name, "id": number, "date": NOW + number, **who}


def test_of_a_browser_that_two_have_used_each_ones_events_are_his(alone: Alone) -> None:
    """A library's: Jane's time on it is erased, Bob's stays, and the browser is his alone."""
    early = nucleus(event(1, "EARLY", anonId="library"))
    journal(
        alone.folder,
        each(early),
        each(nucleus(event(2, "JANE", anonId="library", userId="jane"))),
        each(nucleus(event(3, "AFTER", anonId="library"))),
        each(nucleus(event(4, "BOB", anonId="library", userId="bob"))),
        each(nucleus(event(5, "LATE", anonId="library"))),
        each(early),  # a copy: it says nothing but the browser
    )
    alone.all()
    before = alone.books()
    counts = alone.erase(user("jane"))
    assert (counts["events"], counts["requests"], counts["identities"]) == (3, 4, 1)
    bob = uuid_text(user("bob"))
    assert alone.people() == {"BOB": bob, "LATE": bob}
    assert [bool(one.erased) for one in alone.requests()] == [True, True, True, False, False, True]
    assert alone.books() == before
    alone.replayed()
    journal(alone.folder, each(nucleus(event(0, "FIRST", anonId="library"))))
    alone.all()
    assert alone.people()["FIRST"] == bob, "before the first that is known"


def test_in_a_request_of_several_people_only_her_rows_go(alone: Alone) -> None:
    hers = {"anonId": "a-jane", "userId": "jane"}
    his = {"anonId": "a-bob", "userId": "bob"}
    journal(
        alone.folder,
        each(
            nucleus(
                event(1, "JANE", **hers),
                event(2, "BOB", **his),
                {"id": 3, **hers},
                {"id": 4, **his},
            ),
            events=4,
        ),
        each(nucleus(event(5, "BOB2", **his))),
    )
    alone.all()
    before = alone.books()
    assert before["nucleus"] == (5, 3, 0, 2, 0)
    counts = alone.erase(user("jane"))
    assert (counts["events"], counts["requests"], counts["rejected"]) == (1, 1, 1)
    assert sorted(alone.people()) == ["BOB", "BOB2"]
    assert alone.books() == before
    assert alone.store.query("SELECT count() FROM rejected").rows == [[1]]
    alone.replayed()
    assert sorted(alone.people()) == ["BOB", "BOB2"]
    assert [bool(one.erased) for one in alone.requests()] == [True, False]


def test_what_was_rejected_or_told_nothing_goes_by_what_it_says(alone: Alone) -> None:
    hers = {"anonId": "a-jane", "userId": "jane-u-1"}
    journal(
        alone.folder,
        each(nucleus(event(1, "JANE", **hers))),
        each(nucleus({"type": "heartbeat", "id": 2, **hers})),
        each(nucleus(body=b'{"data":[{"userId":"jane-u-1"')),
        each(nucleus(body=b'{"data":[{"userId":"jane-u-10"')),
        each(nucleus(body=b'{"data":[{"note":"jane-u-1 "')),
        each(nucleus(body=gzip.compress(b'{"data":[{"anonId":"a-jane"'), headers=GZIP)),
        each(vaix("jane-u-1")),
    )
    alone.all()
    before = alone.books()
    counts = alone.erase(user("jane-u-1"))
    assert (counts["events"], counts["requests"], counts["rejected"]) == (1, 5, 3)
    erased = [bool(one.erased) for one in alone.requests()]
    assert erased == [True, True, True, False, True, True, False], "VAIX's user ids are others"
    assert alone.books() == before
    alone.replayed()


def test_what_comes_in_meanwhile_is_somebody_new(alone: Alone) -> None:
    journal(alone.folder, each(vaix("jane")), writer=0)
    alone.all()
    jane = key_id("acme", "vaix:user", "g1", "jane")

    def more(step: str) -> None:
        journal(alone.folder, each(vaix("jane")), writer=1)
        if step != "begun":
            alone.all()

    alone.erasing = alone.eraser(more)
    counts = alone.erase(jane)
    assert (counts["events"], counts["requests"]) == (1, 1)
    alone.all()
    found = alone.store.query("SELECT person_id, events FROM people").rows
    assert [(row[0].bytes, row[1] > 3) for row in found] == [(reborn(jane, 1), True)]
    alone.replayed()


def test_somebody_is_erased_twice(alone: Alone) -> None:
    jane = key_id("acme", "vaix:user", "g1", "jane")
    for generation in range(3):
        journal(alone.folder, each(vaix("jane"), vaix("bob")))
        alone.all()
        counts = alone.erase(reborn(jane, generation))
        assert (counts["events"], counts["requests"]) == (1, 1)
        alone.replayed()
    found = alone.store.query("SELECT events FROM people").rows
    assert found == [[3]]
    assert alone.store.query("SELECT count() FROM erasures").rows == [[3]]


def test_nobody_is_an_error(alone: Alone) -> None:
    journal(alone.folder, each(vaix("bob")))
    alone.all()
    with pytest.raises(NotFound):
        alone.erase(UUID(int=7).bytes)
    assert alone.erasures.begun() == []


def test_what_failed_is_finished_by_the_next_call(alone: Alone) -> None:
    journal(alone.folder, each(vaix("jane"), vaix("bob")))
    alone.all()
    jane = key_id("acme", "vaix:user", "g1", "jane")

    def fail(step: str) -> None:
        if step == "beside":
            raise JournalFailed("the disk is full")

    alone.erasing = alone.eraser(fail)
    with pytest.raises(JournalFailed):
        alone.erase(jane)
    assert len(alone.erasures.begun()) == 1
    alone.erasing = alone.eraser()
    assert alone.erase(jane)["requests"] == 1
    assert alone.erasures.begun() == []
    assert len(alone.people()) == 1
    alone.replayed()


def test_rows_that_a_failed_step_has_left_are_nobody_elses_loss(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(alone.folder, each(vaix("jane")))
    alone.all()
    journal(alone.folder, each(vaix("jane"), vaix("bob")))
    jane = key_id("acme", "vaix:user", "g1", "jane")
    with monkeypatch.context() as failing:

        def refuse(*_: Any, **__: Any) -> None:
            raise StoreError("full")

        failing.setattr(alone.store, "insert_loads", refuse)
        with pytest.raises(StoreError):
            alone.loader.step()
    counts = alone.erase(jane)
    assert (counts["events"], counts["requests"]) == (2, 2)
    alone.all()
    assert alone.store.query("SELECT count() FROM events").rows == [[1]]
    assert alone.books()["vaix"] == (3, 3, 0, 0, 0)
    alone.replayed()
