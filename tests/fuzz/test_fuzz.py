"""F1: every decoder and the connection, fuzzed; seconds here, minutes with HEADWATER_FULL=1."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.inputs import kept, seeds
from tests.fuzz.targets import TARGETS, heard, pieces
from tests.trust.serving import FULL

SECONDS = 120 if FULL else 1
SEED = 1
needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="atheris has no wheel for this Python or machine"
)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_case_keeps_the_promises_that_fuzzing_looks_for(target: str) -> None:
    number = 0
    for number, data in enumerate(seeds(target), start=1):  # noqa: B007
        TARGETS[target](data)
    assert number


@pytest.mark.parametrize(
    ("target", "file"),
    [(target, file) for target in sorted(TARGETS) for file in kept(target)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_an_input_of_the_corpus(target: str, file: Path) -> None:
    TARGETS[target](file.read_bytes())


@needs_atheris
@pytest.mark.timeout(SECONDS + 90)
def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    """All targets at the same time; this takes longer to start than it fuzzes."""
    running = {}
    for target in sorted(TARGETS):
        command = [sys.executable, "-m", "tests.fuzz.run", target, "--found", str(tmp_path)]
        command += ["--seconds", str(SECONDS), "--seed", str(SEED)]
        running[target] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    for target, process in running.items():
        said = process.communicate(timeout=SECONDS + 80)[1]
        again = f"python -m tests.fuzz.run {target} --seconds {SECONDS} --seed {SEED}"
        assert process.returncode == 0, f"again: {again}\n{said[-3_000:]}"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == []


def test_a_target_with_raw_utf_8_means_the_same_however_it_is_cut() -> None:
    data = (
        "GET /event/ACCT123/s?data=[{%22query%22:%22café%22}] HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    )
    whole = asyncio.run(heard([data]))
    assert whole[0] == [200]
    assert asyncio.run(heard(pieces(b"\x10" + data))) == whole
