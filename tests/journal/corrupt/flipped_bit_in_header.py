"""One bit of the file's first page flips, in the words that say what kind of file it is."""

from __future__ import annotations

from pathlib import Path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 0x10
    path.write_bytes(content)
