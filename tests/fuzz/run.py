"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.run TARGET --seconds 60``.

Starts from the inputs kept in ``corpus/TARGET`` and from the dialects' cases. An input that breaks
a promise is written to ``--found`` and printed with its traceback; it goes into the corpus with the
fix.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["headwater"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.inputs import corpus_of, seeds

INPUT_BYTES_MAX = 8_192
#: One input; the decoders take milliseconds for the largest.
INPUT_SECONDS_MAX = 5


def main() -> None:
    said = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    said.add_argument("target", choices=sorted(TARGETS))
    said.add_argument("--seconds", type=int, default=60)
    said.add_argument("--seed", type=int, default=1)
    said.add_argument("--found", type=Path, default=Path())
    given = said.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-fuzz-") as name:
        for number, data in enumerate(seeds(given.target)):
            (Path(name) / f"case-{number}").write_bytes(data)
        options = [
            sys.argv[0],
            f"-max_total_time={given.seconds}",
            f"-seed={given.seed}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-timeout={INPUT_SECONDS_MAX}",
            f"-artifact_prefix={given.found}/",
            "-print_final_stats=1",
            name,
        ]
        kept = corpus_of(given.target)
        if kept.is_dir():
            options.append(str(kept))
        atheris.Setup(options, TARGETS[given.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
