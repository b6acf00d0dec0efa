"""Replay: what a mended decoder makes of old requests, and that nothing else changes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.accept.accounts import Accounts
from headwater.clock import system_clock
from headwater.config import Account, VaixAccount
from headwater.decode import nucleus as nucleus_dialect
from headwater.decode import vaix as vaix_dialect
from headwater.event import Decoded, Event, Rejection
from headwater.replay import ReplayResult, finish_interrupted, replay
from headwater.store.clickhouse import EVENTS
from tests.journaled import AT, Loading, each, journal, nucleus, vaix, with_decode
from tests.store.opened import empty_store
from tests.trust.serving import FULL

Start = Callable[..., Loading]
TWICE = {"name": "A", "id": 1}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts loaders on one folder and an empty store."""
    started: list[Loading] = []
    store = empty_store()

    def begin(**given: Any) -> Loading:
        started.append(Loading(tmp_path, store, **given))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def content(loading: Loading) -> list[Any]:
    """Everything that a replay must leave as it is."""
    events = loading.store.query("SELECT * FROM events ORDER BY event_id").rows
    rejected = loading.store.query("SELECT * FROM rejected ORDER BY ALL").rows
    loads = loading.store.query("SELECT * FROM accounting").rows
    return [events, rejected, loads]


def fill(folder: Path) -> None:
    """Two writers, duplicates within and between them, rejected items, other dialects."""
    journal(
        folder,
        each(nucleus(TWICE, TWICE, {"name": "B", "id": 2}, {"id": 3}), events=4),
        each(vaix("u1"), vaix("u2", body=b"{", refused=True)),
    )
    journal(folder, each(vaix("u3")), each(nucleus(TWICE)), writer=1)


def changed(change: Callable[[Event], None]) -> Callable[[Any, Any], Decoded]:
    """The Nucleus decoder, changed in what it makes of each event."""

    def decode(request: Any, rules: Any) -> Decoded:
        decoded = nucleus_dialect.decode(request, rules)
        for event in decoded.events:
            change(event)
        return decoded

    return decode


def test_a_replay_without_a_change_changes_nothing(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    before = content(loading)
    for _ in range(2):
        result = replay(loading.loader, since=0)
        assert result == ReplayResult(requests=5, unchanged=6)
        assert content(loading) == before


def test_a_mended_decoder_changes_only_its_rows(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    others = loading.store.query("SELECT * FROM events WHERE name != 'B' ORDER BY ALL").rows

    def rename(event: Event) -> None:
        if event.name == "B":
            event.name = "C"

    mended = start(dialects=tuple(with_decode(nucleus_dialect, changed(rename))))
    mended.loader.reconcile()
    result = replay(mended.loader, since=0)
    assert (result.changed, result.unchanged, result.added, result.removed) == (1, 5, 0, 0)
    assert mended.names() == ["A", "C", "clicks:event", "clicks:event"]
    after = mended.store.query("SELECT * FROM events WHERE name != 'C' ORDER BY ALL").rows
    assert after == others
    assert replay(mended.loader, since=0).changed == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event.properties.update(more=1),
        lambda event: event.context.update(more=1),
        lambda event: event.raw.update(more=1),
        lambda event: event.profile_set.update(more=1),
        lambda event: event.profile_unset.append("more"),
        lambda event: event.identities.clear(),
        lambda event: setattr(event, "occurred_at", AT + 1),
        lambda event: setattr(event, "session", "other"),
        lambda event: setattr(event, "kind", "page"),
        lambda event: setattr(event, "scope", "other"),
    ],
    ids=range(10),
)
def test_whatever_a_decoder_changes_is_seen(
    start: Start, tmp_path: Path, change: Callable[[Event], None]
) -> None:
    journal(tmp_path, each(nucleus({"name": "A", "id": 1})))
    start().all()
    mended = start(dialects=tuple(with_decode(nucleus_dialect, changed(change))))
    assert replay(mended.loader, since=0).changed == 1
    assert replay(mended.loader, since=0).unchanged == 1


def test_what_was_undecodable_becomes_events_after_the_fix(start: Start, tmp_path: Path) -> None:
    def broken(request: Any, rules: Any) -> Decoded:
        raise KeyError

    fill(tmp_path)
    loading = start(dialects=tuple(with_decode(nucleus_dialect, broken)))
    loading.all()
    assert loading.books()["nucleus"] == (2, 0, 0, 2, 0)
    mended = start()
    result = replay(mended.loader, since=0)
    assert (result.added, result.removed) == (2, 1)
    assert result.changed == 1  # one of the two rejections is now of the item that has no name
    assert mended.names() == ["A", "B", "clicks:event", "clicks:event"]
    assert mended.books() == {"nucleus": (5, 2, 2, 1, 0), "vaix": (3, 2, 0, 1, 0)}


def test_a_refused_request_is_judged_by_the_rules_in_force(start: Start, tmp_path: Path) -> None:
    def accounts(*event_types: str) -> Accounts:
        account = Account(name="acme", vaix=VaixAccount(event_types=event_types))
        return Accounts({"acme": account}, public_host="", clock=system_clock)

    journal(tmp_path, each(vaix("u1", refused=True), vaix("u2")))
    start(accounts=accounts("other:event")).all()
    widened = start(accounts=accounts("clicks:event"))
    assert widened.names() == ["clicks:event"]
    result = replay(widened.loader, since=0)
    assert (result.added, result.removed) == (1, 1)
    assert widened.names() == ["clicks:event", "clicks:event"]
    assert widened.books() == {"vaix": (2, 2, 0, 0, 0)}
    assert replay(widened.loader, since=0) == ReplayResult(requests=2, unchanged=2)


def test_an_acknowledged_request_stays_accepted(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1")))
    start().all()
    account = Account(name="acme", vaix=VaixAccount(event_types=("other:event",)))
    narrowed = start(accounts=Accounts({"acme": account}, public_host="", clock=system_clock))
    assert replay(narrowed.loader, since=0) == ReplayResult(requests=1, unchanged=1)


def test_the_time_and_the_request_choose_the_range(start: Start, tmp_path: Path) -> None:
    one, other = vaix("u1"), vaix("u2")
    journal(tmp_path, each(one))
    loading = start()
    loading.all()
    journal(tmp_path, each(other))
    loading.all()
    loader = loading.loader
    assert replay(loader, request_id=one.request_id).requests == 1
    assert replay(loader, request_id=b"\0" * 16).requests == 0
    assert replay(loader, since=other.received_at).requests == 1
    assert replay(loader, since=0, until=other.received_at).requests == 1
    assert replay(loader, since=0).requests == 2
    assert replay(loader, since=other.received_at + 1).requests == 0


def test_progress_is_told(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    told: list[ReplayResult] = []
    replay(loading.loader, since=0, progress=told.append)
    assert told[-1].requests == 5


def test_what_is_not_loaded_yet_is_not_replayed(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    assert replay(start().loader, since=0) == ReplayResult()


def test_a_range_that_the_journal_no_longer_has_is_left_alone(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    before = content(loading)
    loading.store.writing().command(
        "INSERT INTO headwater_store.loads SELECT * REPLACE (batches + 1 AS batches, "
        "version + 1 AS version) FROM headwater_store.loads WHERE writer = 0"
    )
    result = replay(loading.loader, since=0)
    assert (result.expired, result.requests) == (1, 2)
    assert content(loading) == before


def test_a_replay_that_was_cut_short_is_finished_at_the_next_start(
    start: Start, tmp_path: Path
) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    before = content(loading)
    ((writer, after, last),) = loading.store.writing().rows(
        "SELECT DISTINCT writer, after, last FROM headwater_store.loads WHERE writer = 0"
    )
    writing = loading.store.writing()
    # As a kill leaves it between the deletion and the insertion.
    writing.command(f"INSERT INTO headwater_store.replays VALUES ({writer}, {after}, {last})")
    writing.command(f"DELETE FROM {EVENTS} WHERE writer = 0 AND batch <= {last}")
    assert content(loading) != before
    again = start()
    assert finish_interrupted(again.loader).added == 3
    assert content(again) == before
    assert finish_interrupted(again.loader) == ReplayResult()


def test_a_replay_between_loads_leaves_the_watermark(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    loading = start()
    loading.all()
    journal(tmp_path, each(vaix("later")))
    replay(loading.loader, since=0)
    loading.all()
    assert start().all() == 0
    assert loading.books()["vaix"] == (4, 3, 0, 1, 0)


def test_many_ranges_are_rewritten_together(start: Start, tmp_path: Path) -> None:
    loading = start()
    for number in range(5):
        journal(tmp_path, each(vaix(f"u{number}")))
        loading.all()

    def decode(request: Any, rules: Any) -> Decoded:
        decoded = vaix_dialect.decode(request, rules)
        if b"u3" in request.body:
            rejection = Rejection(index=0, reason="bad_field", detail="new rule")
            return Decoded(rejected=[rejection])
        return decoded

    stricter = start(dialects=tuple(with_decode(vaix_dialect, decode)))
    result = replay(stricter.loader, since=0)
    assert msgspec.structs.astuple(result) == (5, 4, 0, 1, 1, 0)
    assert stricter.books() == {"vaix": (5, 4, 0, 1, 0)}
    assert replay(loading.loader, since=0).added == 1
    assert loading.books() == {"vaix": (5, 5, 0, 0, 0)}


STATEMENTS = ("INSERT INTO headwater_store.replays", "DELETE", "INSERT", "loads")


def test_kill_9_in_a_replay_leaves_nothing_out_and_nothing_twice(tmp_path: Path) -> None:
    batches = [
        [(nucleus(*({"name": f"E{batch}.{n}", "id": n} for n in range(50))), 50)]
        for batch in range(20)
    ]
    journal(tmp_path, *batches)
    command = [sys.executable, "-m", "tests.replaying_process", str(tmp_path)]
    subprocess.run([*command, "load"], check=True, timeout=60)
    seed = random.randrange(2**32)
    print("seed", seed)
    for statement in STATEMENTS if FULL else random.Random(seed).sample(STATEMENTS, 1):
        replaying = subprocess.Popen([*command, statement], stdout=subprocess.PIPE)
        assert replaying.stdout is not None
        assert replaying.stdout.readline() == b"there\n"
        replaying.send_signal(signal.SIGKILL)
        replaying.wait()
        replaying.stdout.close()
    done = subprocess.run([*command, "end"], stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout.split() == b"1000 1000 1000 mended 1000 1000 0 0 0".split()
