"""Who did it, over the whole path: journal, loader, store; killed on the way; in two arrivals.

Drawn histories, each under accounts of its own, are loaded together: once as they were received,
once in a random arrival, in small steps, by a loader that is killed at each of its checkpoints.
What a user sees in the end is what the reference says, both times, and again once every override
has been folded into the rows.

HEADWATER_FULL=1 draws hundreds. The seed is printed: HEADWATER_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from headwater.accept.request import Request
from headwater.store.rows import event_ids
from tests.journaled import journal
from tests.resolve.histories import (
    Move,
    account_of,
    count_of,
    kept_events,
    moves,
    named,
    rearranged,
    requests_of,
    shared,
    stored,
)
from tests.resolve.reference import Label, Outcome, attribute, together

FULL = bool(os.environ.get("HEADWATER_FULL"))
HISTORIES = 300 if FULL else 16
SEED = int(os.environ.get("HEADWATER_SEED") or random.randrange(2**32))
ROUNDS = 5 if FULL else 1
#: Small enough that a history comes in several steps.
STEP_EVENTS = 40
CHECKPOINTS = ("claimed", "rejected", "events", "settled", "loads")


class Drawn(NamedTuple):
    """A history, and the requests of it under accounts of its own."""

    moves: list[Move]
    shared: dict[str, frozenset[str]]
    requests: list[Request]


def drawn(count: int, number: int) -> list[Drawn]:
    """Histories as the property test draws them, the same for the same number."""
    found: list[Drawn] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(moves, shared)
    def draw(history: list[Move], sharing: dict[str, frozenset[str]]) -> None:
        place = len(found) + 1
        theirs = {account_of(account, place): dialects for account, dialects in sharing.items()}
        found.append(Drawn(history, theirs, requests_of(history, place)))

    draw()
    return found


def mixed(histories: Sequence[Sequence[Request]], chance: random.Random) -> list[Request]:
    """Several arrivals side by side, each in its own order."""
    left = [list(requests) for requests in histories if requests]
    found = []
    while left:
        place = chance.randrange(len(left))
        found.append(left[place].pop(0))
        if not left[place]:
            del left[place]
    return found


def load(folder: Path, aim: str, events: int) -> None:
    """Run a loader until it reaches its aim, and kill it there; or to the end."""
    command = [sys.executable, "-m", "tests.identifying_process", str(folder), aim, str(events)]
    loading = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert loading.stdout is not None
    with loading.stdout:
        said = loading.stdout.readline()
        if said == b"there\n":
            loading.send_signal(signal.SIGKILL)
            loading.wait()
        else:
            assert said == b"done\n"
            assert loading.wait(60) == 0


def seen_in(folder: Path) -> list[dict[str, list[list[Any]]]]:
    found: list[dict[str, list[list[Any]]]] = json.loads((folder / "seen.json").read_text())
    return found


def journaled(
    folder: Path, arrived: Sequence[Request], histories: Sequence[Drawn], chance: random.Random
) -> None:
    """Write requests in batches of one to eight, and who shares user ids."""
    folder.mkdir()
    batches = []
    rest = [(request, count_of(request)) for request in arrived]
    while rest:
        size = chance.randint(1, 8)
        batches.append(rest[:size])
        rest = rest[size:]
    journal(folder, *batches)
    sharing = {
        account: sorted(dialects) for one in histories for account, dialects in one.shared.items()
    }
    (folder / "shared.json").write_text(json.dumps(sharing))


# --- what has to be seen -------------------------------------------------------------------------


class Expected(NamedTuple):
    """What the reference says about one history, with its events' ids in the store."""

    history: Drawn
    outcome: Outcome
    ids: dict[str, Label]


def expected_of(history: Drawn, arrived: Sequence[Request]) -> Expected:
    kept = kept_events(arrived)
    outcome = attribute(map(stored, kept), shared=history.shared)
    ids = event_ids([one.event for one in kept], [one.request for one in kept]).to_pylist()
    labels = [stored(one).label for one in kept]
    return Expected(
        history,
        outcome,
        {str(UUID(bytes=id)): label for id, label in zip(ids, labels, strict=True)},
    )


def grouped(found: Mapping[Label, Hashable | None]) -> list[list[str]]:
    return sorted(named(one) for one in together(found))


def differences(expected: Expected, seen: Mapping[str, list[list[Any]]]) -> list[str]:
    """What a user sees of one history otherwise than the reference says."""
    ids, outcome = expected.ids, expected.outcome
    rows = [row for row in seen["events"] if row[0] in ids]
    wrong = []
    if len(rows) != len(ids) or {row[0] for row in rows} != set(ids):
        wrong.append(f"events: {len(rows)} instead of {len(ids)}")
    persons = {ids[event]: person for event, person, _ in rows}
    sessions = {ids[event]: session for event, _, session in rows}
    for what, theirs, ours in (
        ("people", persons, outcome.persons),
        ("sessions", sessions, outcome.sessions),
    ):
        if grouped(theirs) != grouped(ours):
            wrong.append(f"{what}: {grouped(theirs)} instead of {grouped(ours)}")
    wrong += _wrong_profiles(expected, persons, seen)
    wrong += _wrong_sessions(persons, sessions, seen)
    return wrong


def _wrong_profiles(
    expected: Expected, persons: Mapping[Label, str | None], seen: Mapping[str, list[list[Any]]]
) -> list[str]:
    wrong = []
    people = {person: msgspec.json.decode(text) for person, text in seen["people"]}
    if len(people) != len(seen["people"]):
        wrong.append("somebody stands twice in people")
    for label, person in expected.outcome.persons.items():
        shown = persons.get(label)
        if person is None or shown is None:
            continue
        profile = expected.outcome.profiles[person]
        if people.get(shown) != profile:
            wrong.append(f"profile of {named([label])}: {people.get(shown)} instead of {profile}")
    return wrong


def _wrong_sessions(
    persons: Mapping[Label, str | None],
    sessions: Mapping[Label, str | None],
    seen: Mapping[str, list[list[Any]]],
) -> list[str]:
    rows = {session: (person, int(events)) for session, person, events, _ in seen["sessions"]}
    wrong = [] if len(rows) == len(seen["sessions"]) else ["a session stands twice in sessions"]
    for session, events in Counter(filter(None, sessions.values())).items():
        if session not in rows or rows[session][1] != events:
            wrong.append(f"session {session}: {rows.get(session)} instead of {events} events")
            continue
        theirs = {persons[label] for label in persons if sessions[label] == session}
        if rows[session][0] not in theirs:
            wrong.append(f"session {session} is of {rows[session][0]}, not of {theirs}")
    return wrong


def check(
    expected: Sequence[Expected], folder: Path, arrived: Mapping[int, Sequence[Request]]
) -> None:
    """Both dumps of a folder against the reference."""
    for number, seen in enumerate(seen_in(folder)):
        when = "folded" if number else "loaded"
        assert {row[0] for row in seen["events"]} == {id for one in expected for id in one.ids}
        shown = {row[1] for row in seen["events"]} - {None}
        assert {row[0] for row in seen["people"]} == shown, "people are those of events"
        for place, one in enumerate(expected):
            wrong = differences(one, seen)
            if wrong:
                order = [int.from_bytes(each.request_id[-2:], "big") for each in arrived[place]]
                pytest.fail(
                    f"HEADWATER_SEED={SEED}, {when}: "
                    + "\n".join(wrong)
                    + f"\nhistory = {one.history.moves!r}\nshared = {one.history.shared!r}"
                    + f"\narrived as {order}"
                )


@pytest.mark.timeout(3_000 if FULL else 300)
def test_two_arrivals_and_a_loader_that_is_killed_end_as_the_rules_say(tmp_path: Path) -> None:
    print(f"HEADWATER_SEED={SEED}")
    chance = random.Random(SEED)
    histories = drawn(HISTORIES, SEED)
    aimed_at = CHECKPOINTS if FULL else chance.sample(CHECKPOINTS, 3)

    plain = {place: one.requests for place, one in enumerate(histories)}
    other = {place: rearranged(one.requests, chance) for place, one in enumerate(histories)}
    for name, arrived, aims, events in (
        ("plain", plain, ["end"], 5_000),
        (
            "killed",
            other,
            [
                *(f"{aim}:{chance.randint(1, 3)}" for aim in aimed_at for _ in range(ROUNDS)),
                "end",
            ],
            STEP_EVENTS,
        ),
    ):
        folder = tmp_path / name
        requests = mixed(list(arrived.values()), chance)
        if name == "plain":
            requests.sort(key=lambda request: request.received_at)
        journaled(folder, requests, histories, chance)
        for aim in aims:
            load(folder, aim, events)
        # Copies that came at one time may have been sorted otherwise than the history has them.
        order = {request.request_id: place for place, request in enumerate(requests)}
        came = {
            place: sorted(one, key=lambda request: order[request.request_id])
            for place, one in arrived.items()
        }
        check([expected_of(one, came[place]) for place, one in enumerate(histories)], folder, came)
