"""Derived sessions: whatever order events come in and wherever a process is killed, what is shown
in the end is what one gets by sorting all events and cutting them where the gap is too long."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater import limits
from headwater.accept.request import Request
from headwater.errors import RegistryFailed, StoreError
from headwater.event import Identity, Sign
from headwater.resolve.client_sessions import SessionIds, pulse_rows
from headwater.resolve.evidence import Moment, Pulse, Resession
from headwater.resolve.keys import NOBODY, id_of, order_bytes
from headwater.resolve.sessions import DerivedSessions, Occasion
from headwater.resolve.sqlite_sessions import SqliteSessions

MINUTE = 60_000_000
AT = 1_795_226_263_000_000
PEOPLE = [id_of(b"%d" % number) for number in range(4)]
WHERE = [("vaix", "g1"), ("vaix", "g2"), ("gamooga", "g1")]


class Sent(NamedTuple):
    """An event in the journal. `who` is the number of the key that it carries."""

    place: int
    who: int
    where: tuple[str, str]
    at: int

    @property
    def order(self) -> bytes:
        return order_bytes(self.at, AT + self.place, self.place.to_bytes(16, "big"), 0)


class Shown:
    """A store: what rows were loaded with, and overrides, seen together as the views do. Keys have
    owners, so that events change hands."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Sent, bytes | None]] = {}
        self.owners = dict(enumerate(PEOPLE))
        self.overrides: dict[tuple[bytes, str, str], Resession] = {}
        self.asked: list[bytes] = []
        self.written = 0
        self.fails = False

    def session(self, sent: Sent) -> bytes | None:
        row = self.overrides.get((self.owners[sent.who], *sent.where))
        own = self.rows[sent.place][1]
        if row is not None:
            assert row.bounds == sorted(set(row.bounds))
            for bound, session in zip(reversed(row.bounds), reversed(row.sessions), strict=True):
                if bound <= sent.at:
                    return own if session == NOBODY else session
        return own

    def moments(self, account: str, persons: Sequence[bytes]) -> Iterator[Moment]:
        if self.fails:
            raise StoreError("it does not answer")
        assert account == "acme"
        self.asked += persons
        for sent, _ in sorted(self.rows.values(), key=lambda row: row[0].order):
            person = self.owners[sent.who]
            if person in persons:
                yield Moment(person, *sent.where, sent.at, sent.order, self.session(sent))

    def write_resessions(self, rows: Sequence[Resession]) -> None:
        for row in rows:
            self.written += 1
            self.overrides[row.person, row.dialect, row.scope] = row

    def fold(self) -> None:
        """Overrides go into the rows."""
        self.rows = {place: (sent, self.session(sent)) for place, (sent, _) in self.rows.items()}
        self.overrides.clear()

    def shown(self) -> list[set[int]]:
        """The events of each session."""
        found: dict[bytes | None, set[int]] = {}
        for place, (sent, _) in self.rows.items():
            found.setdefault(self.session(sent), set()).add(place)
        assert None not in found
        return sorted(found.values(), key=sorted)

    def right(self, idle: int) -> list[set[int]]:
        """By the definition."""
        cut: list[set[int]] = []
        events = [sent for sent, _ in self.rows.values()]

        def owner(sent: Sent) -> tuple[bytes, tuple[str, str]]:
            return self.owners[sent.who], sent.where

        for _, mine in groupby(sorted(events, key=lambda one: (owner(one), one.order)), owner):
            last: Sent | None = None
            for sent in mine:
                if last is None or sent.at - last.at > idle:
                    cut.append(set())
                cut[-1].add(sent.place)
                last = sent
        return sorted(cut, key=sorted)


class Kill(Exception):
    """The process ends here."""


class Loading:
    """A loader reduced to what matters here: steps, a watermark, rows behind it after a kill."""

    def __init__(self, folder: Path, idle_minutes: int = 30) -> None:
        self.folder = folder
        self.idle_minutes = idle_minutes
        self.journal: list[Sent] = []
        self.mark = 0
        self.store = Shown()
        self.start()

    def start(self) -> None:
        self.remembered = SqliteSessions(self.folder)
        self.sessions = DerivedSessions(self.remembered, self.store, idle_minutes=self.idle_minutes)

    def restart(self) -> None:
        self.remembered.close()
        self.start()

    def send(self, who: int, minute: float, where: tuple[str, str] = WHERE[0]) -> None:
        at = AT + round(minute * MINUTE)
        self.journal.append(Sent(len(self.journal), who, where, at))

    def step(self, count: int = 1_000_000, kill: str = "", inserted: int = 0) -> None:
        """Load the next events; `kill` ends the process there, after `inserted` rows."""
        store = self.store
        rows = self.journal[self.mark : self.mark + count]
        left = {sent.place for sent in rows} & store.rows.keys()
        occasions = [
            Occasion("acme", *sent.where, store.owners[sent.who], sent.at, sent.order)
            for sent in rows
        ]
        ids = self.sessions.assign(occasions)
        if kill == "assigned":
            raise Kill
        for number, (sent, session) in enumerate(zip(rows, ids, strict=True)):
            if kill == "inserting" and number >= inserted:
                raise Kill
            store.rows.setdefault(sent.place, (sent, session))
        self.sessions.settle(
            {("acme", store.owners[sent.who]) for sent in rows if sent.place in left}
        )
        if kill:
            raise Kill
        self.mark += len(rows)

    def hand_over(self, who: int, to: int) -> None:
        """All events that carry a key are somebody else's now; worth a word where there are any."""
        before, self.store.owners[who] = self.store.owners[who], PEOPLE[to]
        if any(sent.who == who for sent, _ in self.store.rows.values()):
            self.sessions.doubt([("acme", before), ("acme", PEOPLE[to])])

    def check(self) -> None:
        self.step()
        self.sessions.catch_up()
        assert not self.sessions.waiting
        assert self.store.shown() == self.store.right(self.idle_minutes * MINUTE)


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


# --- one thing after the other -------------------------------------------------------------------


def test_thirty_minutes_without_an_event_begin_a_session(loading: Loading) -> None:
    for minute in (0, 10, 40, 70.0001, 80):
        loading.send(0, minute)
        loading.step()
    loading.check()
    assert loading.store.shown() == [{0, 1, 2}, {3, 4}]
    assert loading.store.asked == []


def test_scopes_and_dialects_have_sessions_of_their_own(loading: Loading) -> None:
    for where in WHERE:
        loading.send(0, 0, where)
    loading.check()
    assert len(loading.store.shown()) == 3


def test_nobodys_events_and_named_sessions_get_none(loading: Loading) -> None:
    rows = [
        Occasion("acme", "vaix", "g1", None, AT, order_bytes(AT, AT, bytes(16), 0)),
        Occasion("acme", "nucleus", "app", PEOPLE[0], AT, order_bytes(AT, AT, bytes(16), 1)),
    ]
    assert loading.sessions.assign(rows) == [None, None]


def test_the_order_within_a_step_does_not_matter(loading: Loading) -> None:
    for minute in (50, 0, 20, 100):
        loading.send(0, minute)
    loading.check()
    assert loading.store.shown() == [{0, 1, 2}, {3}]
    assert loading.store.asked == []


def test_a_late_event_joins_two_sessions(loading: Loading) -> None:
    loading.send(0, 0)
    loading.send(0, 50)
    loading.step()
    assert loading.store.shown() == [{0}, {1}]
    loading.send(0, 25)
    loading.check()
    assert loading.store.shown() == [{0, 1, 2}]


def test_a_late_event_that_changes_nothing_about_others_writes_nothing(loading: Loading) -> None:
    loading.send(0, 1_000)
    loading.step()
    loading.send(0, 100)
    loading.check()
    assert loading.store.asked == [PEOPLE[0]]
    assert loading.store.written == 0


def test_what_comes_after_an_override_is_not_covered_by_it(loading: Loading) -> None:
    for minute in (0, 50, 25, 79, 200):
        loading.send(0, minute)
        loading.step()
    loading.check()
    assert loading.store.shown() == [{0, 1, 2, 3}, {4}]
    assert loading.store.written == 1


def test_a_merge_of_people_joins_their_sessions_and_an_undoing_parts_them(
    loading: Loading,
) -> None:
    for who, minute in ((0, 0), (1, 20), (0, 40), (1, 100)):
        loading.send(who, minute)
        loading.step()
    parted = [loading.store.session(sent) for sent in loading.journal]
    loading.hand_over(1, 0)
    loading.check()
    assert loading.store.shown() == [{0, 1, 2}, {3}]
    loading.hand_over(1, 1)
    loading.check()
    assert [loading.store.session(sent) for sent in loading.journal] == parted


def test_a_session_keeps_its_id_when_its_person_becomes_known(loading: Loading) -> None:
    loading.send(0, 0)
    loading.send(0, 5)
    loading.step()
    loading.hand_over(0, 1)
    loading.check()
    assert loading.store.written == 0


@pytest.mark.parametrize("again", [False, True])
def test_who_lost_all_events_is_not_shown_what_they_were_in(loading: Loading, again: bool) -> None:
    for minute in (0, 50, 25):  # the last makes an override
        loading.send(0, minute)
        loading.step()
    loading.hand_over(0, 1)
    loading.step()
    if again:
        loading.restart()
    loading.send(2, 60)  # within the override
    loading.hand_over(2, 0)
    loading.check()


def test_an_end_is_remembered(loading: Loading) -> None:
    for minute in (0, 20, 45):
        loading.send(0, minute)
        loading.step()
        loading.restart()
    loading.check()
    assert loading.store.asked == []


def test_an_end_that_may_be_behind_is_looked_up(loading: Loading) -> None:
    loading.send(0, 0)
    loading.step()
    loading.send(0, 0.9)  # not worth a write
    loading.step()
    loading.restart()
    loading.send(0, 30.5)  # within 30 minutes of the true end, not of the one on disk
    loading.check()
    assert loading.store.shown() == [{0, 1, 2}]
    assert loading.store.asked == [PEOPLE[0]]


def test_doubts_survive_a_store_that_fails(loading: Loading) -> None:
    for minute in (0, 50):
        loading.send(0, minute)
        loading.step()
    loading.store.fails = True
    loading.send(0, 25)
    with pytest.raises(StoreError):
        loading.step()
    loading.restart()
    loading.store.fails = False
    assert loading.sessions.waiting
    loading.check()


def test_a_doubt_that_comes_while_it_is_settled_is_not_lost(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.send(0, 0)
    loading.step()
    moments = loading.store.moments

    def and_again(account: str, persons: Sequence[bytes]) -> Iterator[Moment]:
        monkeypatch.setattr(loading.store, "moments", moments)
        found = list(moments(account, persons))
        loading.sessions.doubt([("acme", PEOPLE[0])])
        return iter(found)

    monkeypatch.setattr(loading.store, "moments", and_again)
    loading.sessions.doubt([("acme", PEOPLE[0])])
    loading.sessions.catch_up()
    assert loading.sessions.waiting
    loading.sessions.catch_up()
    assert not loading.sessions.waiting
    assert loading.store.asked == [PEOPLE[0]] * 2


def test_many_doubts_are_settled_in_turns(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "session_persons_max", 1)
    monkeypatch.setattr(limits, "session_settle_seconds_max", 0.0)
    loading.sessions.doubt([("acme", person) for person in PEOPLE])
    turns = 0
    while loading.sessions.waiting:
        loading.sessions.catch_up()
        turns += 1
    assert turns == 5  # the last finds nothing
    assert sorted(loading.store.asked) == sorted(PEOPLE)


def test_rows_that_were_not_stored_leave_nothing_behind(loading: Loading) -> None:
    """The event turns out to be somebody else's before it is stored: the first is not continued."""
    loading.send(0, 0)
    with pytest.raises(Kill):
        loading.step(kill="assigned")
    loading.store.owners[0] = PEOPLE[1]
    loading.sessions.abandon()
    loading.sessions.settle()
    loading.send(2, 10)
    loading.store.owners[2] = PEOPLE[0]
    loading.check()
    assert loading.store.shown() == [{0}, {1}]


def test_what_ended_long_ago_is_forgotten(loading: Loading) -> None:
    loading.send(0, 0)
    loading.send(1, 100_000)
    loading.step()
    loading.sessions.forget(AT + 90_000 * MINUTE)
    keys = list(loading.sessions._lasts)
    assert [state[2] for state in loading.remembered.load(keys)] == [AT + 100_000 * MINUTE]
    loading.restart()
    loading.send(0, 100_000)
    loading.send(1, 100_010)
    loading.check()
    assert loading.store.shown() == [{0}, {1, 3}, {2}]


def test_a_file_that_does_not_answer_is_said(loading: Loading) -> None:
    other = apsw.Connection(str(loading.folder / "sessions.sqlite"))
    other.execute("BEGIN IMMEDIATE")
    limit = limits.registry_busy_seconds_max
    loading.remembered._database.set_busy_timeout(10)
    loading.send(0, 0)
    with pytest.raises(RegistryFailed, match=r"sessions\.sqlite"):
        loading.step()
    other.execute("ROLLBACK")
    other.close()
    loading.check()
    assert limits.registry_busy_seconds_max == limit


# --- against the definition ----------------------------------------------------------------------

EVENT = st.tuples(
    st.integers(0, 3),
    # Gaps around the bound, equal times, and some far apart.
    st.one_of(
        st.integers(0, 40).map(lambda tens: tens * 10),
        st.integers(0, 800).map(lambda halves: halves / 2),
    ),
    st.sampled_from(WHERE),
)
ACTION = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 4), st.booleans()),
    st.tuples(st.sampled_from(("assigned", "settled")), st.integers(1, 8)),
    st.tuples(st.just("inserting"), st.integers(1, 8), st.integers(0, 7)),
    st.tuples(st.just("hand over"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("failed"), st.integers(1, 8)),
    st.tuples(st.sampled_from(("restart", "fold"))),
)


@pytest.mark.parametrize("remembered", [1, 100_000])
@settings(
    max_examples=int(os.environ.get("SESSIONS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(EVENT, max_size=40), st.lists(ACTION, max_size=15))
def test_whatever_happens_the_definition_holds_in_the_end(
    remembered: int, events: list[tuple[int, float, tuple[str, str]]], actions: list[tuple[object]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(limits, "sessions_remembered_max", remembered)
        loading = Loading(Path(folder))
        for event in events:
            loading.send(*event)
        for action in actions:
            run(loading, *action)
        loading.check()
        loading.store.fold()
        loading.check()
        loading.remembered.close()


def run(loading: Loading, name: object, *given: int) -> None:
    """One action of the test above. A kill ends in another process; a failure does not."""
    if name == "step":
        loading.step(given[0])
        if given[1]:
            loading.restart()
    elif name == "hand over":
        loading.hand_over(*given)
    elif name == "fold":
        loading.store.fold()
    elif name == "restart":
        loading.restart()
    elif name == "failed":
        with pytest.raises(Kill):
            loading.step(given[0], "inserting", given[0] // 2)
        loading.sessions.abandon()
    else:
        with pytest.raises(Kill):
            loading.step(given[0], str(name), *given[1:])
        loading.restart()


def test_a_long_history_in_any_order_and_any_steps(tmp_path: Path) -> None:
    dice = random.Random(7)
    events = [(dice.randrange(4), dice.random() * 8_000, dice.choice(WHERE)) for _ in range(1_200)]
    results = []
    for turn in range(2):
        loading = Loading(tmp_path / str(turn), idle_minutes=20)
        for event in events:
            loading.send(*event)
        dice.shuffle(loading.journal)
        while loading.mark < len(loading.journal):
            loading.step(dice.randrange(1, 400))
        loading.check()
        results.append(loading.store.shown())
        loading.remembered.close()
    assert results[0] == results[1]


# --- sessions that clients name ------------------------------------------------------------------


def test_a_sign_of_life_is_of_the_session_that_events_of_the_same_owner_are_of() -> None:
    request = Request(dialect="nucleus", method="GET", target="/app", account="acme")
    request.received_at = AT
    device = [Identity("nucleus:device", "app", "d1", "weak")]
    signs = [
        Sign(session="1", scope="app", identities=device),
        Sign(session="1", scope="app", identities=device, occurred_at=AT - MINUTE, closed=True),
        Sign(session="1", scope="app", identities=device, occurred_at=AT + 2_000 * MINUTE),
        Sign(session="2", scope="app", identities=device),
    ]
    ids = SessionIds()
    rows = pulse_rows([(request, sign) for sign in signs], ids)
    first = ids.find(signs[0], request)
    assert first is not None
    assert rows[:3] == [
        Pulse("acme", first, AT, False),
        Pulse("acme", first, AT - MINUTE, True),
        Pulse("acme", first, AT, False),  # a clock a day ahead is not believed
    ]
    assert rows[3].session_id != first
