"""The reference itself: the scenarios of identity.md §5, and what they leave out."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.resolve.histories import Move, kept_events, moves, named, requests_of, stored
from tests.resolve.reference import Outcome, attribute, together
from tests.resolve.scenarios import SCENARIOS, Scenario, gamooga, nucleus, orbee, vibetrace


def outcome(history: list[Move]) -> Outcome:
    return attribute(map(stored, kept_events(requests_of(history))))


def people(history: list[Move]) -> set[str]:
    """Who is together, as the scenarios write it."""
    return {" ".join(named(group)) for group in together(outcome(history).persons)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_ends_as_written_in_every_order_of_arrival(scenario: Scenario) -> None:
    for arrived in scenario.arrivals():
        found = attribute(
            map(stored, kept_events(arrived)),
            shared={"acme": scenario.shared},
            withdrawn=scenario.withdrawn,
        )
        assert {frozenset(named(one)) for one in together(found.persons)} == scenario.expected


def test_a_late_user_does_not_take_what_another_has_identified() -> None:
    history = [
        nucleus(0, anonId="A", userId="u2"),
        nucleus(1, anonId="A"),
        nucleus(2, anonId="A", userId="u1"),
        nucleus(3, anonId="A", userId="u2"),
        nucleus(14, anonId="A"),
    ]
    assert people(history) == {"0.0 1.0 3.0 4.0", "2.0"}


def test_a_device_makes_a_person_only_without_an_anon_id() -> None:
    history = [
        nucleus(0, anonId="A"),
        nucleus(1, anonId="null"),
        nucleus(2),
        nucleus(3, anonId="null", userId="u1"),
    ]
    assert people(history) == {"0.0", "1.0 2.0 3.0"}


def test_an_alias_joins_for_all_time() -> None:
    history = [
        gamooga(0, "id", ("u", "u1"), ("v", "v1")),
        gamooga(1, "ev", ("v", "v1")),
        gamooga(2, "id", ("u", "u2"), ("v", "v1")),
        gamooga(3, "id", ("u", "u1"), ("u", "u2")),
    ]
    assert people(history) == {"0.0 1.0 2.0 3.0"}


def test_a_contact_email_is_an_identity_only_of_who_has_none() -> None:
    history = [
        vibetrace(0, userId="w1", generic={"email": "a@x.de"}),
        vibetrace(1, userId="w1", generic={"email": "b@x.de"}),
        vibetrace(2, email="a@x.de"),
        vibetrace(3, email="b@x.de"),
    ]
    assert people(history) == {"0.0 1.0 2.0"}


def test_an_earlier_top_level_email_turns_a_contact_email_into_a_property() -> None:
    history = [
        vibetrace(1, userId="w1", generic={"email": "a@x.de"}),
        vibetrace(0, userId="w1", email="b@x.de"),
        vibetrace(2, email="a@x.de"),
    ]
    assert people(history) == {"0.0 1.0"}


def test_a_browser_that_changes_hands_takes_its_stand_ins_along() -> None:
    history = [
        vibetrace(0, userId="w1", _vtsid="t1", email="a@x.de"),
        vibetrace(1, _vtsid="t1"),
        vibetrace(2, userId="w1", email="b@x.de"),
        vibetrace(3, _vtsid="t1"),
    ]
    assert people(history) == {"0.0 1.0", "2.0 3.0"}


def test_an_instance_never_changes_hands_and_a_duid_does() -> None:
    history = [
        vibetrace(0, userId="w1", email="a@x.de"),
        vibetrace(0, userId="w2", email="b@x.de"),
        orbee(1, instance_id="i1", duid="D1"),
        orbee(2, instance_id="i1", duid="D1", email="a@x.de"),
        orbee(3, instance_id="i1", duid="D1", email="b@x.de"),
        orbee(14, instance_id="i1"),
        orbee(14, instance_id="null", duid="D1"),
    ]
    assert people(history) == {"0.0 2.0 3.0 5.0", "1.0 4.0 6.0"}


def test_an_email_that_nobody_has_leaves_an_orbee_group_anonymous() -> None:
    history = [
        orbee(0, instance_id="i1", email="a@x.de"),
        orbee(1, instance_id="i2", email="a@x.de"),
        orbee(2, instance_id="i1"),
    ]
    assert people(history) == {"0.0 2.0", "1.0"}


def test_two_anonymous_groups_join_over_a_browser() -> None:
    history = [
        orbee(0, instance_id="i1"),
        orbee(1, instance_id="i2", duid="D1"),
        orbee(2, instance_id="i1", duid="D1"),
        orbee(3, instance_id="i2"),
    ]
    assert people(history) == {"0.0 1.0 2.0 3.0"}


def test_a_profile_is_merged_key_by_key_in_order() -> None:
    history = [
        nucleus(2, type="props", anonId="A", userId="u1", payload={"plan": None, "size": 1}),
        nucleus(1, type="props", anonId="A", payload={"plan": "pro", "size": 2}),
        nucleus(3, type="props", anonId="B", payload={"plan": "free"}),
    ]
    profiles = list(outcome(history).profiles.values())
    assert {"size": 1} in profiles
    assert {"plan": "free"} in profiles
    assert len(profiles) == 2


def test_half_an_hour_of_silence_ends_a_derived_session() -> None:
    history = [
        Move("vaix", 0, "a", "5"),
        Move("vaix", 14, "a", "5"),
        Move("vaix", 40, "a", "5"),
        Move("vaix", 95, "a", "5"),
        Move("vaix", 41, "a", "6"),
        Move("vaix", 41, "b", "5"),
        Move("vaix", 0, "a", "0"),
    ]
    sessions = {" ".join(named(one)) for one in together(outcome(history).sessions)}
    assert sessions == {"0.0 1.0 2.0", "3.0", "4.0", "5.0"}


@given(moves)
def test_every_history_can_be_told(history: list[Move]) -> None:
    found = outcome(history)
    assert set(found.profiles) == {person for person in found.persons.values() if person}
