"""From the journal to the store: every event once, whatever happens on the way."""

from __future__ import annotations

import gzip
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from headwater import limits
from headwater.accept.accounts import Accounts
from headwater.accept.request import Request
from headwater.clock import system_clock
from headwater.config import Account, VaixAccount
from headwater.decode import vaix as vaix_dialect
from headwater.errors import StoreError
from headwater.journal.journal import Position
from headwater.store.clickhouse import Store
from tests.journaled import APP, Loading, each, journal, nucleus, vaix, with_decode
from tests.store.opened import empty_store
from tests.trust.serving import FULL

CHECKPOINTS = ("claimed", "rejected", "events", "loads")
Start = Callable[..., Loading]


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


def test_events_of_a_journal_become_rows(start: Start, tmp_path: Path) -> None:
    request = nucleus({"name": "A", "id": 1}, {"name": "B", "id": 2})
    journal(tmp_path, each(request, events=2), each(vaix("u1")))
    loading = start()
    assert loading.all() == 3
    assert loading.names() == ["A", "B", "clicks:event"]
    found = loading.store.query(
        "SELECT request_id, account, scope, context.ip FROM events WHERE name = 'A'"
    )
    assert found.rows == [[UUID(bytes=request.request_id), "acme", APP, "192.0.2.7"]]
    assert loading.books() == {"nucleus": (2, 2, 0, 0, 0), "vaix": (1, 1, 0, 0, 0)}


def test_loading_goes_on_where_it_ended(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1")))
    assert start().all() == 1
    journal(tmp_path, each(vaix("u2")), each(vaix("u3")))
    loading = start()
    assert loading.all() == 2
    assert loading.books() == {"vaix": (3, 3, 0, 0, 0)}


def test_all_writers_are_loaded(start: Start, tmp_path: Path) -> None:
    for writer in (0, 1, 7):
        journal(tmp_path, each(vaix("u1")), each(vaix("u2")), writer=writer)
    loading = start()
    assert loading.all() == 6
    assert set(loading.store.watermarks()) == {0, 1, 7}


def test_a_second_copy_is_dropped_and_counted(start: Start, tmp_path: Path) -> None:
    twice = {"name": "A", "id": 1}
    journal(tmp_path, each(nucleus(twice, twice, {"name": "B", "id": 1}), events=3))
    loading = start()
    loading.all()
    journal(tmp_path, each(nucleus(twice)))
    again = start()
    again.all()
    assert again.names() == ["A", "B"]
    assert again.books() == {"nucleus": (4, 2, 2, 0, 0)}


def test_heartbeats_count_as_stored_and_are_no_rows(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(nucleus({"type": "heartbeat"}, {"name": "A", "id": 1}), events=2))
    loading = start()
    loading.all()
    assert loading.names() == ["A"]
    assert loading.books() == {"nucleus": (2, 2, 0, 0, 0)}


def test_what_cannot_be_decoded_is_a_rejected_row(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(nucleus(body=b"{", refused=True), nucleus({"id": 1}, {"name": "A"})))
    loading = start()
    loading.all()
    rows = loading.store.query("SELECT reason, request FROM rejected ORDER BY received_at").rows
    assert [row[0] for row in rows] == ["bad_json", "missing_name"]
    assert rows[0][1].startswith(f"POST /app/{APP}/track")
    assert rows[1][1].endswith('"id":1}') or '"id": 1' in rows[1][1]
    assert loading.books()["nucleus"][1:] == (1, 0, 2, 0)


def test_a_decoder_that_raises_costs_one_request(start: Start, tmp_path: Path) -> None:
    def decode(request: Any, rules: Any) -> Any:
        if b"bad" in request.body:
            raise ZeroDivisionError
        return vaix_dialect.decode(request, rules)

    journal(tmp_path, each(vaix("good"), vaix("bad"), vaix("good")))
    loading = start(dialects=tuple(with_decode(vaix_dialect, decode)))
    loading.all()
    assert loading.store.query("SELECT reason, detail FROM rejected").rows == [
        ["undecodable", "ZeroDivisionError"]
    ]
    assert loading.books() == {"vaix": (3, 2, 0, 1, 0)}


def test_compressed_bodies_are_inflated(start: Start, tmp_path: Path) -> None:
    plain = nucleus({"name": "A", "id": 1})
    headers = {"content-encoding": "gzip"}
    journal(
        tmp_path,
        each(
            nucleus(body=gzip.compress(plain.body), headers=headers),
            nucleus(body=b"no gzip", headers=headers),
        ),
    )
    loading = start()
    loading.all()
    assert loading.names() == ["A"]
    assert loading.store.query("SELECT reason FROM rejected").rows == [["bad_encoding"]]


def vaix_accounts(*event_types: str) -> Accounts:
    account = Account(name="acme", vaix=VaixAccount(event_types=event_types))
    return Accounts({"acme": account}, public_host="", clock=system_clock)


def test_an_acknowledged_request_is_decided_whatever_the_rules_say_now(
    start: Start, tmp_path: Path
) -> None:
    journal(tmp_path, each(vaix("u1")))
    loading = start(accounts=vaix_accounts("other:event"))
    loading.all()
    assert loading.names() == ["clicks:event"]


def test_a_refused_request_is_never_stored_at_first(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1", refused=True)))
    loading = start(accounts=vaix_accounts("other:event"))
    loading.all()
    loosened = start(accounts=vaix_accounts("clicks:event"))
    journal(tmp_path, each(vaix("u2", refused=True)))
    loosened.all()
    assert loosened.names() == []
    rows = loosened.store.query("SELECT reason FROM rejected ORDER BY received_at").rows
    assert rows == [["unknown_event_type"], ["refused_at_arrival"]]


def test_what_is_journaled_and_not_loaded_is_in_flight(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1")))
    loading = start()
    loading.all()
    journal(tmp_path, each(vaix("u2"), vaix("u3")), each(nucleus({"name": "A"}, {"name": "B"})))
    assert loading.books() == {"vaix": (3, 1, 0, 0, 2), "nucleus": (1, 0, 0, 0, 1)}
    loading.all()
    assert loading.books() == {"vaix": (3, 3, 0, 0, 0), "nucleus": (2, 2, 0, 0, 0)}


def test_a_request_that_holds_another_number_of_events_than_its_answer_counted_is_said(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal(tmp_path, each(vaix("u1")), each(nucleus({"name": "A"}, {"name": "B"}), events=5))
    loading = start()
    loading.all()
    assert loading.loader.counters.miscounted == 3
    assert (
        "the books do not close: acme, nucleus counted 5 events in the journal and 2" in caplog.text
    )


def test_the_books_close_at_every_moment(start: Start, tmp_path: Path) -> None:
    batches = [each(*(vaix(f"u{n}") for n in range(20))) for _ in range(200)]
    journal(tmp_path, *batches[:100])
    loading = start()
    stop = threading.Event()
    thread = threading.Thread(target=loading.loader.run, args=(stop,))
    thread.start()
    try:
        journal(tmp_path, *batches[100:], writer=1)
        deadline = time.monotonic() + 30
        while True:
            received, *parts = loading.books().get("vaix", (0, 0, 0, 0, 0))
            assert received == sum(parts)
            if parts == [4_000, 0, 0, 0]:
                break
            assert time.monotonic() < deadline
    finally:
        stop.set()
        thread.join()


def test_whoever_watches_sees_what_became_of_each_event(start: Start, tmp_path: Path) -> None:
    twice = {"name": "A", "id": 1}
    journal(tmp_path, each(nucleus(twice, twice, {"id": 3}), events=3))
    loading = start()
    loading.all()
    assert sorted((row.status, row.name) for row in loading.seen_rows) == [
        ("duplicate", "A"),
        ("rejected", ""),
        ("stored", "A"),
    ]
    (stored,) = (row for row in loading.seen_rows if row.status == "stored")
    (found,) = loading.store.query("SELECT event_id, request_id, received_at FROM events").rows
    assert [UUID(stored.event_id), UUID(stored.request_id), stored.received_at] == found


def test_lag_is_the_age_of_the_oldest_batch_that_waits(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1")))
    lags: list[float] = []
    loading: Loading = start(checkpoint=lambda reached: lags.append(loading.loader.lag_seconds))
    assert loading.loader.lag_seconds == 0
    time.sleep(0.2)
    loading.all()
    assert all(0.2 <= lag < 30 for lag in lags)
    assert loading.loader.lag_seconds == 0


def test_a_damaged_stretch_is_skipped_and_said(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal(tmp_path, *(each(vaix(f"u{n}", peer="DAMAGE-ME" * 3)) for n in range(3)))
    journal(tmp_path, each(vaix("later")))
    first = min((tmp_path / "journal" / "w0").glob("*.sqlite"))
    raw = first.read_bytes()
    place = raw.index(b"DAMAGE-ME", raw.index(b"DAMAGE-ME") + 200)
    first.write_bytes(raw[:place] + b"X" + raw[place + 1 :])
    loading = start()
    loading.all()
    assert 0 < len(loading.names()) < 4
    assert loading.loader.counters.damaged_stretches > 0
    assert any("is damaged" in record.message for record in caplog.records)
    loading.loader.reconcile()
    assert loading.loader.step() == 0


def test_what_a_replay_left_open_is_concluded_whoever_asked_first(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, each(vaix("u1")))
    loading = start()
    loading.books()  # the console asks before the loader's first step
    concluded: list[int] = []
    monkeypatch.setattr(loading.identifying, "recheck", lambda: concluded.append(1))
    loading.all()
    assert concluded == [1]


class Failing:
    """Raises on the way to the store, as often as it is told to."""

    def __init__(self, store: Store, method: str, times: int) -> None:
        self._store = store
        self._method = method
        self.left = times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._method:
            return found

        def call(*given: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                raise StoreError("it does not answer")
            return found(*given, **named)

        return call


@pytest.mark.parametrize("method", ["insert_rejected", "insert_events", "insert_loads"])
def test_a_store_that_fails_is_asked_again_until_it_answers(
    start: Start, tmp_path: Path, method: str
) -> None:
    journal(tmp_path, each(nucleus({"name": "A", "id": 1}, {"id": 2}), events=2))
    loading = start()
    failing = Failing(loading.store, method, 2)
    loading.loader.store = failing  # type: ignore[assignment]
    stop = threading.Event()
    thread = threading.Thread(target=loading.loader.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while not loading.loader.counters.loads and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert loading.loader.counters.store_errors == 2
    assert loading.books() == {"nucleus": (2, 1, 0, 1, 0)}


class Killed(BaseException):
    """Ends a loader as a kill would, as far as one process can."""


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_loader_that_ends_after_any_step_leaves_nothing_out_and_nothing_twice(
    start: Start, tmp_path: Path, checkpoint: str
) -> None:
    twice = {"name": "A", "id": 1}
    journal(tmp_path, each(nucleus(twice, twice, {"name": "B", "id": 2}, {"id": 3}), events=4))
    journal(tmp_path, each(vaix("u1")), each(nucleus(twice)), writer=1)

    def die(reached: str) -> None:
        if reached == checkpoint:
            raise Killed

    with pytest.raises(Killed):
        start(checkpoint=die).all()
    loading = start()
    loading.all()
    assert loading.names() == ["A", "B", "clicks:event"]
    assert loading.store.query("SELECT count() FROM rejected").rows == [[1]]
    assert loading.books() == {"nucleus": (5, 2, 2, 1, 0), "vaix": (1, 1, 0, 0, 0)}


def test_old_journal_files_go_once_they_are_loaded(start: Start, tmp_path: Path) -> None:
    journal(tmp_path, each(vaix("u1", received_at=1_000_000)))
    journal(tmp_path, each(vaix("u2", received_at=1_000_000)))
    loading = start()
    loading.all()
    before = loading.reader.bytes_used()
    days = 30 * 86_400_000_000
    assert loading.reader.expire(system_clock() + days, loading.loader.marks()) > 0
    assert loading.reader.bytes_used() < before
    assert loading.reader.read(Position(0, 0), batches_max=9, bytes_max=10**6) is not None


def test_what_a_kill_left_behind_is_known_until_its_writers_turn(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start may read other writers first, and no more than a step's worth."""
    monkeypatch.setattr(limits, "load_events_max", 10)

    def cut(reached: str) -> None:
        if reached == "events":
            raise Killed

    def events(*numbers: int) -> list[tuple[Request, int]]:
        return each(*(nucleus({"name": f"E{n}", "id": n}, {"id": n}) for n in numbers), events=2)

    journal(tmp_path, events(0, 1))
    journal(tmp_path, events(2, 3), writer=1)
    with pytest.raises(Killed):
        start(checkpoint=cut).all()
    journal(tmp_path, events(*range(4, 9)))
    loading = start()
    loading.all()
    assert loading.names() == [f"E{number}" for number in range(9)]
    rejected = loading.store.query("SELECT count() FROM rejected").rows
    assert (rejected, loading.books()) == ([[9]], {"nucleus": (18, 9, 0, 9, 0)})


# --- kill -9 ----------------------------------------------------------------------------------

ROUNDS = 6 if FULL else 4


def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """R3: a real process, killed by its number, after each step of a load and in the midst."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    expected = 0
    for number in range(ROUNDS):
        batches = []
        for batch in range(30):
            events = [{"name": f"E{number}.{batch}.{n}", "id": n} for n in range(20)]
            batches.append([(nucleus(*events, events[0], {"id": 1}), 22), (vaix("u"), 1)])
        expected += 30
        journal(tmp_path, *batches, writer=number % 2)
        command = [sys.executable, "-m", "tests.loading_process", str(tmp_path)]
        aim = CHECKPOINTS[number % len(CHECKPOINTS)]
        loading = subprocess.Popen([*command, aim], stdout=subprocess.PIPE)
        assert loading.stdout is not None
        assert loading.stdout.readline() == b"open\n"
        if number < len(CHECKPOINTS):
            assert loading.stdout.readline() == aim.encode() + b"\n"
        else:
            time.sleep(chance.uniform(0.0, 0.3))
        loading.send_signal(signal.SIGKILL)
        loading.wait()
        loading.stdout.close()
    done = subprocess.run([*command, "end"], stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout.decode().splitlines()[1:] == [
        f"nucleus {expected * 22} {expected * 20} {expected} {expected} 0",
        f"vaix {expected} {expected} 0 0 0",
        f"events {expected * 21} {expected * 21}",
        f"names {expected * 20 + 1}",
        f"rejected {expected}",
    ]
    shutil.rmtree(tmp_path / "store")
