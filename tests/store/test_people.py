"""Who did it, as the views show it: as loaded, as learned later, folded."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from headwater import limits
from headwater.errors import StoreError
from headwater.event import Event, Identity
from headwater.resolve.evidence import Merge, Pulse, Resession
from headwater.resolve.keys import NOBODY, order_bytes
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from tests.store.made import AT, an_id, insert_by, make_event, make_request
from tests.trust.serving import FULL

S, W, V, OTHER = an_id(1), an_id(2), an_id(3), an_id(4)
SECOND = 1_000_000
USER = Identity("nucleus:user", "app", "u1", "strong")
DEVICE = Identity("nucleus:anon", "app", "a1", "weak")
LATER = 4_000 * SECOND


@pytest.fixture
def people(store: Store) -> PeopleStore:
    return PeopleStore(store.writing())


def at(seconds: int, **given: Any) -> Event:
    return make_event(occurred_at=AT + seconds * SECOND, **given)


def order_of(event: Event, request: Any) -> bytes:
    assert event.occurred_at is not None
    return order_bytes(event.occurred_at, request.received_at, request.request_id, event.index)


def persons(store: Store) -> list[UUID | None]:
    return [row[0] for row in store.query("SELECT person_id FROM events ORDER BY occurred_at").rows]


def ids(*given: bytes | None) -> list[UUID | None]:
    return [None if one is None else UUID(bytes=one) for one in given]


# --- rows and overrides ------------------------------------------------------------------------


def test_an_event_is_the_persons_that_it_was_loaded_with_or_nobodys(store: Store) -> None:
    insert_by(store, at(0), subject=S)
    insert_by(store, at(1), subject=V, principal=NOBODY)
    assert persons(store) == ids(S, None)


@pytest.mark.parametrize("occurred", [AT, 0, -2_000_000_000_000_000, AT - 20 * 86_400 * SECOND])
def test_the_order_of_a_row_is_that_of_the_resolver(store: Store, occurred: int) -> None:
    request = make_request(received_at=max(occurred, 5))
    event = make_event(2**32 - 1, occurred_at=occurred)
    insert_by(store, event, subject=S, request=request)
    ((found, ordered),) = store.writing().rows(
        "SELECT hex(event_order), toUnixTimestamp64Micro(ordered_at) FROM "
        "headwater_store.events_rows"
    )
    effective = occurred if request.received_at - occurred <= 30 * 86_400 * SECOND else 5
    assert ordered == effective
    expected = order_bytes(effective, request.received_at, request.request_id, event.index)
    assert found == expected.hex().upper()


@pytest.mark.parametrize(
    ("ahead", "counts"),
    [(86_400, True), (86_401, False), (-30 * 86_400, True), (-30 * 86_400 - 1, False)],
)
def test_a_time_that_cannot_be_orders_by_arrival(store: Store, ahead: int, counts: bool) -> None:
    insert_by(store, at(ahead))
    ((ordered,),) = store.writing().rows(
        "SELECT toUnixTimestamp64Micro(ordered_at) FROM headwater_store.events_rows"
    )
    assert ordered == (AT + ahead * SECOND if counts else AT)


def test_what_is_learned_later_decides_by_the_order_of_the_event(
    store: Store, people: PeopleStore
) -> None:
    events = [at(seconds) for seconds in range(4)]
    requests = [insert_by(store, event, subject=W) for event in events]
    insert_by(store, at(9), subject=OTHER)
    middle = order_of(events[2], requests[2])
    people.write_attributions([(W, [(b"", S), (middle, V)])])
    assert persons(store) == ids(S, S, V, V, OTHER)
    people.write_attributions([(W, [(b"", NOBODY), (middle + b"\0", V)])])
    assert persons(store) == ids(None, None, None, V, OTHER)
    people.write_attributions([(an_id(99), [(b"", S)])])
    assert persons(store) == ids(None, None, None, V, OTHER)


def test_an_alias_leads_to_the_person_until_it_is_taken_away(
    store: Store, people: PeopleStore
) -> None:
    insert_by(store, at(0), subject=S)
    insert_by(store, at(1), subject=W)
    people.write_attributions([(W, [(b"", V)])])
    people.write_aliases([(S, OTHER), (V, OTHER)])
    assert persons(store) == ids(OTHER, OTHER)
    people.write_aliases([(V, V)])
    assert persons(store) == ids(OTHER, V)


def test_what_another_has_written_is_replaced_too(store: Store, people: PeopleStore) -> None:
    insert_by(store, at(0), subject=W)
    for person in (S, V, OTHER):
        PeopleStore(store.writing()).write_attributions([(W, [(b"", person)])])
        assert persons(store) == ids(person)


def test_derived_sessions_follow_the_person(store: Store, people: PeopleStore) -> None:
    old, first, second = an_id(50), an_id(51), an_id(52)
    vaix = make_request(dialect="vaix")
    for seconds in (0, 10, 20, 30):
        insert_by(store, at(seconds, scope="g"), subject=S, session=old, request=vaix)
    insert_by(store, at(40, scope="other"), subject=S, session=old, request=vaix)
    insert_by(store, at(50, scope="g"), subject=V, principal=NOBODY, session=old, request=vaix)
    people.write_resessions(
        [
            Resession(
                "acme",
                "vaix",
                "g",
                S,
                [AT + 10 * SECOND, AT + 20 * SECOND, AT + 21 * SECOND],
                [first, second, NOBODY],
            )
        ]
    )
    sql = "SELECT session_id FROM events ORDER BY occurred_at"
    expected = ids(old, first, second, old, old, None)
    assert [row[0] for row in store.query(sql).rows] == expected
    moments = people.moments("acme", [S])
    assert [one.session_id for one in moments] == [old, first, second, old, old]
    assert [one.ordered_at for one in moments] == [AT + s * SECOND for s in (0, 10, 20, 30, 40)]
    assert {(one.person, one.dialect) for one in moments} == {(S, "vaix")}
    assert [one.scope for one in moments] == ["g"] * 4 + ["other"]
    assert people.moments("other", [S]) == []


def test_moments_are_found_however_a_row_became_the_persons(
    store: Store, people: PeopleStore
) -> None:
    vaix = make_request(dialect="vaix")
    for number, subject in enumerate((S, W, V, OTHER)):
        insert_by(store, at(number), subject=subject, request=vaix)
    insert_by(store, at(9), subject=S)  # Nucleus: its sessions are the client's
    people.write_attributions([(W, [(b"", V)]), (OTHER, [(b"", NOBODY)])])
    people.write_aliases([(V, S)])
    found = people.moments("acme", [S, OTHER])
    assert [one.ordered_at for one in found] == [AT, AT + SECOND, AT + 2 * SECOND]
    assert found[0].order == order_bytes(AT, vaix.received_at, vaix.request_id, 0)


def test_evidence_is_every_event_that_carries_a_key(store: Store, people: PeopleStore) -> None:
    both = [USER, DEVICE]
    event = at(5, identities=both, raw={"alias": True})
    request = insert_by(store, event, subject=S, keys=[S, W])
    insert_by(store, at(1, identities=[DEVICE]), subject=W, keys=[W])
    insert_by(store, at(2, identities=both), subject=S, keys=[S, NOBODY])
    insert_by(store, at(3, identities=both), subject=V, keys=[V, OTHER])
    insert_by(store, at(4, identities=both), keys=[S, W], request=make_request(account="elsewhere"))
    found = people.evidence("acme", [W, *(an_id(1_000 + n) for n in range(500)), S])
    assert [one.identities for one in found] == [
        [("nucleus:anon", "weak", W)],
        [("nucleus:user", "strong", S)],
        [("nucleus:user", "strong", S), ("nucleus:anon", "weak", W)],
    ]
    assert [one.alias for one in found] == [False, False, True]
    assert found[2].order == order_of(event, request)
    assert found[2].dialect == "nucleus"
    ((newest,),) = store.query(
        "SELECT event_id FROM events WHERE account = 'acme' ORDER BY occurred_at DESC LIMIT 1"
    ).rows
    assert UUID(bytes=found[2].event_id) == newest
    assert people.evidence("acme", []) == []


# --- the fold ----------------------------------------------------------------------------------


class Killed(Exception):
    pass


def shown(store: Store) -> list[Any]:
    return store.query("SELECT event_id, person_id, session_id FROM events ORDER BY event_id").rows


def fill(store: Store, people: PeopleStore) -> None:
    vaix = make_request(dialect="vaix")
    for number in range(6):
        insert_by(store, at(number), subject=W, session=an_id(60))
        insert_by(store, at(number, scope="g"), subject=W, session=an_id(60), request=vaix)
        vaix = make_request(dialect="vaix")
    insert_by(store, at(1, scope="g"), subject=V, session=an_id(60), request=vaix)
    insert_by(store, at(2), subject=OTHER)
    bound = order_bytes(AT + 3 * SECOND, 0, NOBODY, 0)
    people.write_attributions([(W, [(b"", S), (bound, V)]), (OTHER, [(b"", NOBODY)])])
    people.write_aliases([(V, an_id(70))])
    people.write_resessions(
        [Resession("acme", "vaix", "g", an_id(70), [AT + 4 * SECOND], [an_id(61)])]
    )


def counts(store: Store) -> list[int]:
    return [
        store.writing().rows(f"SELECT count() FROM headwater_store.{table}")[0][0]
        for table in ("attributions", "resessions", "aliases")
    ]


def fold(people: PeopleStore, now: int) -> int:
    """Begun and ended."""
    until = time.monotonic() + 60
    gone = people.fold(now)
    while not gone and people.folding and time.monotonic() < until:
        time.sleep(0.01)
        gone = people.fold(now)
    return gone


def test_what_is_learned_during_a_fold_is_kept(store: Store, people: PeopleStore) -> None:
    fill(store, people)
    now = time.time_ns() // 1_000 + LATER
    people.fold(now)
    people.write_attributions([(W, [(b"", OTHER)])])
    before = shown(store)
    assert fold(people, now) == 3
    assert counts(store) == [1, 0, 1]
    assert shown(store) == before


def test_a_fold_changes_nothing_that_is_shown(store: Store, people: PeopleStore) -> None:
    fill(store, people)
    before = shown(store)
    now = time.time_ns() // 1_000
    assert people.fold(now) == 0
    assert counts(store) == [2, 1, 1]
    assert fold(people, now + LATER) == 3
    assert counts(store) == [0, 0, 1]
    assert shown(store) == before
    assert people.fold(now + LATER) == 0
    rows = store.writing().rows(
        "SELECT uniqExact(principal), countIf(session_id IS NOT NULL) "
        "FROM headwater_store.events_rows WHERE dialect = 'vaix'"
    )
    assert rows == [(2, 7)]


def test_many_overrides_are_folded_at_once(
    store: Store, people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "overrides_max", 1)
    fill(store, people)
    before = shown(store)
    assert fold(people, time.time_ns() // 1_000) == 3
    assert shown(store) == before


@pytest.mark.parametrize("after", range(11) if FULL else (1, 4, 7, 10))
def test_a_fold_that_is_cut_short_anywhere_is_done_again(
    store: Store, people: PeopleStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    fill(store, people)
    before = shown(store)
    now = time.time_ns() // 1_000 + LATER
    writing = store.writing()
    command = writing.command
    left = [after]

    def until_killed(sql: str) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        command(sql)
        assert shown(store) == before, sql

    with monkeypatch.context() as patched:
        patched.setattr(writing, "command", until_killed)
        if after < 10:
            with pytest.raises(Killed):
                fold(people, now)
        else:
            fold(people, now)
    # A new process reads the dictionaries anew.
    for dictionary in ("attributed", "aliased", "resessioned", "overrides", "touched"):
        command(f"SYSTEM RELOAD DICTIONARY headwater_store.{dictionary}")
    assert shown(store) == before
    fold(PeopleStore(writing), now)
    assert shown(store) == before
    assert counts(store) == [0, 0, 1]


def test_a_fold_that_the_engine_cannot_do_is_taken_back(
    store: Store, people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, people)
    before = shown(store)
    now = time.time_ns() // 1_000 + LATER
    with monkeypatch.context() as patched:
        patched.setattr("headwater.store.people._TOUCHED", "throwIf(idx >= 0, 'no luck')")
        with pytest.raises(StoreError, match="no luck"):
            fold(people, now)
    assert counts(store) == [2, 1, 1]
    assert fold(people, now) == 3
    assert shown(store) == before


# --- merges, pulses, receipts ------------------------------------------------------------------


def test_a_merge_is_shown_until_it_has_never_been(store: Store, people: PeopleStore) -> None:
    merge = Merge(
        account="acme", merge_id=an_id(80), at=AT, kept=S, gone=W, cause=an_id(81), first=S,
        second=W,
    )  # fmt: skip
    people.write_merges([merge])
    row = store.query("SELECT account, kept, gone, cause, undone_at, merge_id FROM merges").rows
    assert row == [["acme", *ids(S, W, an_id(81)), None, UUID(bytes=an_id(80))]]
    people.write_merges([Merge(**{**vars_of(merge), "undone_at": AT + SECOND})])
    ((undone,),) = store.query("SELECT toUnixTimestamp64Micro(undone_at) FROM merges").rows
    assert undone == AT + SECOND
    people.write_merges([Merge(**{**vars_of(merge), "gone_away": True})])
    assert store.query("SELECT count() FROM merges").rows == [[0]]


def vars_of(merge: Merge) -> dict[str, Any]:
    return {name: getattr(merge, name) for name in merge.__struct_fields__}


def test_a_receipt_is_kept_once(store: Store, people: PeopleStore) -> None:
    for _ in range(2):
        people.write_erasure("acme", S, at=AT, receipt='{"events":3}')
    rows = store.query("SELECT account, person_id, receipt FROM erasures").rows
    assert rows == [["acme", UUID(bytes=S), '{"events":3}']]


def test_heartbeats_prolong_a_session_and_make_none(store: Store, people: PeopleStore) -> None:
    now = time.time_ns() // 1_000
    request = make_request(received_at=now - 7_200 * SECOND)
    event = make_event(occurred_at=now - 7_200 * SECOND, kind="error")
    insert_by(store, event, subject=S, request=request)
    columns = "session_id, person_id, events, errors, derived, over, session, started_at, ended_at"
    ((session, person, *rest),) = store.query(f"SELECT {columns} FROM sessions").rows
    assert (person, rest[:5]) == (UUID(bytes=S), [1, 1, False, 1, "4821"])
    assert rest[5] == rest[6]
    pulse = Pulse("acme", session.bytes, now - 60 * SECOND)
    people.write_pulses([pulse, pulse, Pulse("acme", an_id(90), now)])
    ((over, alive),) = store.query(
        "SELECT over, toUnixTimestamp64Micro(ended_at) FROM sessions"
    ).rows
    assert (over, alive) == (0, now - 60 * SECOND)
    people.write_pulses([Pulse("acme", session.bytes, now - 30 * SECOND, closed=True)])
    assert store.query("SELECT over FROM sessions").rows == [[1]]
    people.write_pulses([Pulse("acme", session.bytes, now - 20 * SECOND)])
    assert store.query("SELECT over FROM sessions").rows == [[0]]
    people.write_pulses([Pulse("acme", session.bytes, now, closed=True)])
    assert store.query("SELECT over FROM sessions").rows == [[0]]
