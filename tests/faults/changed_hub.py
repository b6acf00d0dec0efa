"""A hub process, changed: ``changed_hub CHANGE headwater.hub DESCRIPTOR``; see serving_process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater import hub, parts
from headwater.config import Config
from headwater.folder import Folder
from headwater.resolve.registry import Claim
from headwater.resolve.sqlite import SqliteRegistry
from headwater.store.clickhouse import Store
from headwater.store.rows import Place

DIE_AT = "die-at"


class Forgetful(Store):
    """Does not know what a load that was cut short has left."""

    def places_after(self, table: str, watermarks: Mapping[int, int]) -> set[Place]:
        return set()


class Blind(SqliteRegistry):
    """Has never seen a key."""

    def claim(self, claims: Sequence[Claim], *, received_at: int) -> list[bool]:
        return [True] * len(super().claim(claims, received_at=received_at))


class Mortal(parts.Parts):
    """Ends the process at the checkpoint that a file names."""

    def __init__(self, config: Config, folder: Folder, *given: Any, **named: Any) -> None:
        super().__init__(config, folder, *given, **named)
        aim = folder.root.parent / DIE_AT
        self.loader._checkpoint = lambda reached: die(aim, reached)


def die(aim: Path, reached: str) -> None:
    if aim.exists() and aim.read_text() == reached:
        aim.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    change, _, *rest = sys.argv[1:]
    hub.Parts = Mortal  # type: ignore[attr-defined]
    if change == "unreconciled":
        parts.Store = Forgetful  # type: ignore[attr-defined]
    if change == "undeduped":
        parts.SqliteRegistry = Blind  # type: ignore[attr-defined]
    return hub.main(rest)


if __name__ == "__main__":
    sys.exit(main())
