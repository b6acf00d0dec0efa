"""The file is there and has nothing in it."""

from pathlib import Path


def damage(path: Path) -> None:
    path.write_bytes(b"")
