"""A store of an older Headwater, and one that was closed: what is there is shown by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.store.made import an_id


def run(folder: Path, step: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.reopening_process", str(folder), step],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_an_old_store_is_brought_up_to_date_and_remembers_what_it_learned(tmp_path: Path) -> None:
    for step in ("old", "learn"):
        run(tmp_path, step)
    person = f"00000000-0000-0000-0000-{an_id(3).hex()[-12:]}"
    assert run(tmp_path, "show") == [
        "old None 2026-11-20",
        f"one {person} 2026-11-21",
        f"two {person} 2026-11-21",
        "[UUID('00000000-0000-0000-0000-000000000000')] 1",
        "1 2",
    ]
