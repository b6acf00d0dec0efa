"""The scenarios of identity.md §5, each with who is together with whom, written out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

from headwater.accept.request import Request
from tests.resolve.histories import COMPANY, Move, rearranged_as, requests_of
from tests.resolve.reference import Pair


class Scenario(NamedTuple):
    """`people` names the events of each person as ``move.index``; those of nobody are not there."""

    name: str
    history: list[Move]
    people: list[str]
    shared: frozenset[str] = frozenset()
    withdrawn: frozenset[Pair] = frozenset()

    @property
    def expected(self) -> set[frozenset[str]]:
        return {frozenset(person.split()) for person in self.people}

    def arrivals(self) -> Iterator[list[Request]]:
        """The requests in every order of arrival."""
        requests = requests_of(self.history)
        for order in permutations(range(len(requests))):
            arrived = rearranged_as(requests, order)
            if arrived is not None:
                yield arrived


def nucleus(minute: int, app: str = "appX", **event: Any) -> Move:
    said = {"type": "event", "name": "A", "date": minute, "sessionId": 1, "deviceId": "d1", **event}
    return Move("nucleus", minute, app, [said])


def vibetrace(minute: int, **item: Any) -> Move:
    return Move("vibetrace", minute, "VA", [item])


def orbee(minute: int, **body: Any) -> Move:
    return Move("orbee", minute, "1/1", {"dtm": minute, **body})


def gamooga(minute: int, endpoint: str, *pairs: tuple[str, str]) -> Move:
    return Move("gamooga", minute, endpoint, [*pairs, ("tm", minute)])


U, U2 = ("u", "u1"), ("u", "u2")
V = ("v", "v1")
MADE = ("v", "made-for-u1")

SCENARIOS = (
    Scenario(
        "1 late identification",
        [
            nucleus(0, type="init", anonId="A"),
            nucleus(1, anonId="A"),
            nucleus(2, type="userid", anonId="A", userId="u1"),
            nucleus(3, userId="u1"),
            nucleus(14, anonId="B"),
        ],
        ["0.0 1.0 2.0 3.0", "4.0"],
    ),
    Scenario(
        "2 the anon id changes hands",
        [
            nucleus(0, anonId="A"),
            nucleus(1, type="userid", anonId="A", userId="u1"),
            nucleus(2, anonId="A"),
            nucleus(3, type="userid", anonId="A", userId="u2"),
            nucleus(14, anonId="A"),
        ],
        ["0.0 1.0 2.0", "3.0 4.0"],
    ),
    Scenario(
        "3 one user on two anon ids",
        [
            nucleus(0, anonId="A"),
            nucleus(1, anonId="B", deviceId="d2"),
            nucleus(2, anonId="A", userId="u1"),
            nucleus(3, anonId="B", userId="u1"),
        ],
        ["0.0 1.0 2.0 3.0"],
    ),
    Scenario(
        "4 a copy with a userId stamped",
        [
            nucleus(0, anonId="A", id=1),
            Move("again", 2, "", (0, "u1")),
            nucleus(1, anonId="A", id=2),
        ],
        ["0.0 2.0"],
    ),
    Scenario(
        "5 a visitor becomes known",
        [gamooga(0, "ev", V), gamooga(1, "id", U, V), gamooga(2, "ev", V), gamooga(3, "evwid", U)],
        ["0.0 1.0 2.0 3.0"],
    ),
    Scenario(
        "6 the sticky visitor",
        [
            gamooga(0, "evwid", U),
            gamooga(1, "ev", V),
            gamooga(2, "id", U, V),
            gamooga(3, "ev", V),
            gamooga(14, "ev", MADE),
        ],
        ["0.0 1.0 2.0 3.0 4.0"],
    ),
    Scenario(
        "7 two users on one visitor",
        [
            gamooga(0, "ev", V),
            gamooga(1, "id", U, V),
            gamooga(2, "ev", V),
            gamooga(3, "id", U2, V),
            gamooga(14, "ev", V),
        ],
        ["0.0 1.0 2.0", "3.0 4.0"],
    ),
    Scenario(
        "8 an email that waits",
        [
            vibetrace(0, email="a@x.de"),
            vibetrace(1, userId="w1", sessionId="s1"),
            vibetrace(2, userId="w1", sessionId="s1", email="A@x.de"),
            vibetrace(3, email="b@x.de"),
        ],
        ["0.0 1.0 2.0"],
    ),
    Scenario(
        "9 a _vtsid before its binding",
        [
            vibetrace(0, _vtsid="t1"),
            vibetrace(1, userId="w1", sessionId="s1", _vtsid="t1"),
            vibetrace(2, _vtsid="t1"),
            vibetrace(3, userId="w2", sessionId="s2", _vtsid="t1"),
            vibetrace(14, _vtsid="t1"),
        ],
        ["0.0 1.0 2.0", "3.0 4.0"],
    ),
    Scenario(
        "10 server, web, server",
        [
            orbee(0, instance_id="i1"),
            orbee(1, instance_id="i1", duid="D1"),
            orbee(2, instance_id="i1"),
            orbee(3, instance_id="i2", duid="D1"),
            orbee(14, instance_id="i3"),
        ],
        ["0.0 1.0 2.0 3.0", "4.0"],
    ),
    Scenario(
        "11 a user in two client groups",
        [Move("vaix", 0, "a", "5"), Move("vaix", 1, "b", "5"), Move("vaix", 2, "a", "5")],
        ["0.0 2.0", "1.0"],
    ),
    Scenario(
        "12 a userId in two apps",
        [
            nucleus(0, "appX", userId="u1"),
            nucleus(1, "appY", userId="u1"),
            nucleus(2, "appX", userId="u1"),
        ],
        ["0.0 2.0", "1.0"],
    ),
    Scenario(
        "13 shared user ids",
        [
            nucleus(0, anonId="A"),
            gamooga(1, "ev", V),
            Move("vaix", 2, "a", "77"),
            gamooga(3, "id", ("u", "77"), V),
            nucleus(14, anonId="A", userId="77"),
        ],
        ["0.0 1.0 2.0 3.0 4.0"],
        shared=frozenset({"vaix", "nucleus", "gamooga"}),
    ),
    Scenario(
        "14 a merge undone",
        [
            gamooga(0, "ev", V),
            gamooga(1, "evwid", U),
            gamooga(2, "id", U, V),
            gamooga(3, "ev", V),
        ],
        ["0.0 3.0", "1.0 2.0"],
        withdrawn=frozenset(
            {
                frozenset(
                    {
                        ("acme", "gamooga:user", COMPANY, "u1"),
                        ("acme", "gamooga:visitor", COMPANY, "v1"),
                    }
                )
            }
        ),
    ),
)
