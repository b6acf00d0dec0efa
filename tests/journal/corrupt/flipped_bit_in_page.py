"""One bit of the page that lists the batches is flipped: it is no page that SQLite knows."""

from pathlib import Path

PAGE_BYTES = 8192


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2 * PAGE_BYTES] ^= 0x40  # the third page: the table's root, and with few rows all of it
    path.write_bytes(content)
