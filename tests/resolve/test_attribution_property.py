"""The engine and the reference agree on any history, however it arrives.

A few hundred histories as a rule; with HEADWATER_FULL=1 many thousands. A failure prints the moves
of its history, which can be pasted into a test, and the arrival.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from headwater.accept.request import Request
from tests.journaled import AT
from tests.resolve.attributed import ENDS, Attributed
from tests.resolve.histories import (
    Kept,
    Move,
    kept_events,
    moves,
    named,
    rearranged,
    requests_of,
    shared,
    stored,
)
from tests.resolve.reference import STAND_INS, Label, Pair, Rules, attribute, together
from tests.resolve.scenarios import SCENARIOS, Scenario, orbee, vibetrace

FULL = bool(os.environ.get("HEADWATER_FULL"))
Shared = Mapping[str, frozenset[str]]
often = settings(
    max_examples=20_000 if FULL else 120,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

#: Whatever is left to chance is drawn as well, so that it is shrunk with the history.
_CHANCES = st.randoms(use_true_random=False)


def batches_of(kept: Sequence[Kept], chance: random.Random) -> Iterator[Sequence[Kept]]:
    """An arrival cut up anywhere."""
    rest = list(kept)
    while rest:
        size = chance.choice([1, 1, 2, 3, 5, len(rest)])
        yield rest[:size]
        rest = rest[size:]


def attributed(
    requests: Sequence[Request],
    shared: Shared,
    chance: random.Random,
    ends: Collection[str] = ("well",),
    withdrawn: Collection[Pair] = (),
    allowed: Collection[Pair] = (),
) -> dict[Label, bytes | None]:
    """Who did each event, having been told of them in random batches; between them some pairs were
    withdrawn, and those of them that are `allowed` were allowed again in the end."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Attributed(Path(folder) / "registry", shared)
        try:
            left = list(withdrawn)
            for batch in batches_of(kept_events(requests), chance):
                asserted = {pair for row in engine.loaded for pair in pairs_of(row, shared)}
                for pair in [pair for pair in left if pair in asserted]:
                    if chance.choice([False, False, True]):
                        left.remove(pair)
                        engine.withdraw(pair, AT)
                end = chance.choice([*["well"] * 6, *ends])
                if currently_in_test_context():
                    note(f"{named([stored(kept).label for kept in batch])} ends {end}")
                engine.load(batch, end)
            for pair in left:
                engine.withdraw(pair, AT)
            for pair in allowed:
                engine.allow(pair)
            return engine.rows.persons()
        finally:
            engine.close()


def people(found: Mapping[Label, object]) -> list[list[str]]:
    """Who is together, to be read."""
    return sorted(named(one) for one in together(found))


def check(
    history: Sequence[Move],
    shared: Shared,
    chance: random.Random,
    ends: Collection[str] = ("well",),
) -> None:
    """One arrival of a history."""
    requests = requests_of(history)
    arrived = rearranged(requests, chance)
    expected = attribute(map(stored, kept_events(requests)), shared=shared).persons
    assert people(attributed(arrived, shared, chance, ends)) == people(expected)


@often
@given(moves, shared, _CHANCES)
def test_any_history_in_any_arrival_ends_as_the_rules_say(
    history: list[Move], shared: Shared, chance: random.Random
) -> None:
    check(history, shared, chance)


@often
@given(moves, shared, _CHANCES)
def test_a_kill_after_any_step_changes_nothing(
    history: list[Move], shared: Shared, chance: random.Random
) -> None:
    check(history, shared, chance, ENDS)


@often
@given(moves, shared, st.data())
def test_what_is_undone_is_as_if_it_had_never_been_asserted(
    history: list[Move], shared: Shared, data: st.DataObject
) -> None:
    requests = requests_of(history)
    kept = kept_events(requests)
    pairs = sorted({pair for one in kept for pair in pairs_of(one, shared)}, key=sorted)
    if not pairs:
        return
    withdrawn = data.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=2, unique=True))
    allowed = data.draw(st.sampled_from([[], [], withdrawn[:1]]))
    chance = data.draw(_CHANCES)
    arrived = rearranged(requests, chance)
    expected = attribute(
        map(stored, kept),
        shared=shared,
        withdrawn=[pair for pair in withdrawn if pair not in allowed],
    ).persons
    found = attributed(arrived, shared, chance, withdrawn=withdrawn, allowed=allowed)
    assert people(found) == people(expected)


def pairs_of(kept: Kept, shared: Shared) -> Iterator[Pair]:
    """The pairs of keys that an event may assert."""
    event = stored(kept)
    keys = Rules(shared, ()).keys(event)
    asserting = [
        key
        for key in keys
        if key[1] not in STAND_INS and not (key[1] == "nucleus:device" and len(keys) > 2)
    ]
    return (frozenset(pair) for pair in itertools.combinations(asserting, 2) if len(set(pair)) == 2)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_ends_as_written_in_every_order_of_arrival(scenario: Scenario) -> None:
    for arrived in itertools.islice(scenario.arrivals(), None if FULL else 40):
        found = attributed(
            arrived,
            {"acme": scenario.shared},
            random.Random(1),
            withdrawn=scenario.withdrawn,
        )
        assert {frozenset(named(one)) for one in together(found)} == scenario.expected


# --- histories that were told wrong once ----------------------------------------------------------


def one_by_one(history: Sequence[Move], order: Sequence[int] = ()) -> list[list[str]]:
    """Who is together once each request was taken in by itself, in an order of arrival."""
    requests = requests_of(history)
    with tempfile.TemporaryDirectory() as folder:
        engine = Attributed(Path(folder) / "registry", {})
        try:
            for place in order or range(len(requests)):
                engine.load(kept_events([requests[place]]))
            return people(engine.rows.persons())
        finally:
            engine.close()


def test_a_login_that_was_undone_is_still_the_emails() -> None:
    history = [
        vibetrace(0, email="a@x.de"),
        vibetrace(1, userId="w1", email="a@x.de"),
        vibetrace(2, userId="w1"),
    ]
    email, browser = ("acme", "email", "", "a@x.de"), ("acme", "vibetrace:user", "VA", "w1")
    found = attributed(
        requests_of(history), {}, random.Random(1), withdrawn=[frozenset({email, browser})]
    )
    assert people(found) == [["1.0"], ["2.0"]]


def test_an_email_that_only_orbee_holds_is_not_known_any_more() -> None:
    history = [
        orbee(0, instance_id="i1", email="a@x.de"),
        vibetrace(1, userId="w1", generic={"email": "a@x.de"}),
        vibetrace(2, email="a@x.de"),
        vibetrace(0, userId="w1", email="b@x.de"),
    ]
    assert one_by_one(history) == [["0.0"], ["1.0", "3.0"]]
