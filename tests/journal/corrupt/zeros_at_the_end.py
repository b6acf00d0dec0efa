"""The file's end is zeros, as by a file system that kept the length and lost the blocks."""

from pathlib import Path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(b"body of batch 3")
    content[place:] = bytes(len(content) - place)
    path.write_bytes(content)
