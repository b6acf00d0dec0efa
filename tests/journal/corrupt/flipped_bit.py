"""One bit of a batch's data is flipped, as by a dying disk or memory."""

from pathlib import Path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A body says which batch it belongs to; the damage is to the middle one of five.
    place = content.index(b"body of batch 3")
    content[place + 3] ^= 0x10
    path.write_bytes(content)
