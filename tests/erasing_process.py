"""Erasing without a server, killed when it gets to a step; run as a module.

    python -m tests.erasing_process CONFIG STEP [PERSON]

Erases PERSON (an id, its account is acme), or without one finishes what was cut short; a STEP that
is none lets it end. Prints ``done`` and the seconds between the steps.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from headwater.config_reader import load
from headwater.parts import Parts


def main(config: str, step: str, person: str = "") -> None:
    began = time.monotonic()

    def reached(name: str) -> None:
        nonlocal began
        now = time.monotonic()
        print(f"{name} {now - began:.2f}", flush=True)
        began = now
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with Parts.alone(load(Path(config)), "a test") as parts:
        reached("opened")
        parts.erasing.checkpoint = reached
        if person:
            parts.erase(person, "acme", lambda told: None)
        else:
            parts.erasing.finish_begun()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
