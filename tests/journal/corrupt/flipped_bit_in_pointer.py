"""One bit of a pointer from page to page is flipped: a batch's data go on in a wrong place."""

from pathlib import Path

PAGE_BYTES = 8192


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A long row goes on in pages of its own, each beginning with the number of the next.
    page = content.index(b"body of batch 3") // PAGE_BYTES * PAGE_BYTES
    content[page + PAGE_BYTES] ^= 0x40
    path.write_bytes(content)
