"""The file lost its second half, as by a copy that was broken off."""

from pathlib import Path


def damage(path: Path) -> None:
    content = path.read_bytes()
    place = content.index(b"body of batch 3")
    path.write_bytes(content[:place])
