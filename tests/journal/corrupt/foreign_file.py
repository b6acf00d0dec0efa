"""Something else altogether lies under the name of a segment."""

from pathlib import Path


def damage(path: Path) -> None:
    path.write_bytes(b"This is not a database.\n" * 4096)
