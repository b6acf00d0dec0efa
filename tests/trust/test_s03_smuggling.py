"""S3: never two requests out of one. The journal is counted, not only the answers."""

from __future__ import annotations

import pytest

from tests.served import Served
from tests.trust.framing import BROKEN, SOUND
from tests.trust.serving import Heard, kept_from, source, talk, vaix

#: How the bytes arrive: at once, behind a request whose head is remembered, in small pieces.
WAYS = ("whole", "behind a known head", "in pieces")
HIDDEN = vaix("hidden")
KNOWN = vaix("known")


def sent(way: str, payload: bytes) -> tuple[bytes, ...]:
    data = payload + HIDDEN
    if way == "in pieces":
        return tuple(data[at : at + 11] for at in range(0, len(data), 11))
    return (KNOWN, KNOWN, data) if way == "behind a known head" else (data,)


@pytest.fixture(scope="module")
def heard(served: Served) -> dict[tuple[str, str], tuple[str, Heard]]:
    """Everything sent, each from its own address; the address and what was said to it."""
    found: dict[tuple[str, str], tuple[str, Heard]] = {}
    for case, payload in {**BROKEN, **SOUND}.items():
        for way in WAYS:
            address = source(3, len(found))
            count = None if case in BROKEN else 4 if way == "behind a known head" else 2
            pause = 0.004 if way == "behind a known head" else 0.0
            found[case, way] = (
                address,
                talk(
                    served.collect_port,
                    *sent(way, payload),
                    source=address,
                    count=count,
                    pause=pause,
                ),
            )
    return found


@pytest.fixture(scope="module")
def kept(served: Served, heard: object) -> dict[str, list[bytes]]:
    """The bodies that the journal has, by address."""
    return {peer: [one.body for one in found] for peer, found in kept_from(served, 3).items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", BROKEN)
def test_broken_framing_is_400_and_the_end(
    case: str,
    way: str,
    heard: dict[tuple[str, str], tuple[str, Heard]],
    kept: dict[str, list[bytes]],
) -> None:
    address, said = heard[case, way]
    known = 2 if way == "behind a known head" else 0
    assert said.statuses == [204] * known + [400]
    assert said.ended
    assert said.answers[-1].headers["connection"] == "close"
    assert said.rest == b""
    assert kept.get(address, []) == [KNOWN.partition(b"\r\n\r\n")[2]] * known


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", SOUND)
def test_what_only_looks_odd_is_one_request_and_the_next_is_the_next(
    case: str,
    way: str,
    heard: dict[tuple[str, str], tuple[str, Heard]],
    kept: dict[str, list[bytes]],
) -> None:
    address, said = heard[case, way]
    known = 2 if way == "behind a known head" else 0
    assert said.statuses == [204] * (known + 2)
    assert len(kept[address]) == known + 2
    assert kept[address][-1] == HIDDEN.partition(b"\r\n\r\n")[2]


def test_nothing_hidden_has_a_row(
    served: Served, heard: dict[tuple[str, str], tuple[str, Heard]]
) -> None:
    """As many rows of the hidden event as sound requests it stood behind."""
    served.wait_loaded()
    (row,) = served.query("SELECT count() AS n FROM events WHERE name = 'trust:hidden'")
    assert int(row["n"]) == len(SOUND) * len(WAYS)
