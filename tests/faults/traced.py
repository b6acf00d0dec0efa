"""What a power loss would leave, from a trace of the system calls (strace).

:class:`Disk` follows the writes, syncs and names of the files below a folder, and knows at each
moment what of them is durable: a file's content up to its last fsync that returned 0, and the names
that stood in a folder when that folder was last synced. It is stricter than any real disk: nothing
that was not asked for is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "openat,write,writev,sendto,sendmsg,pwrite64,pwritev,ftruncate,fallocate,"
    "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
)
#: A page and its frame's head; what is longer is zeros, written ahead of time.
_STRING_MAX = 8_400
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")


def strace(out: Path, *more: str) -> list[str]:
    """The prefix of a command whose system calls are to be followed."""
    return [
        *("strace", "-f", "-y", "-xx", "-s", str(_STRING_MAX), "-e", f"trace={CALLS}"),
        *("-e", "signal=none", "-o", str(out), *more),
    ]


class Call(NamedTuple):
    """One system call of one thread; `entered` and `left` order them (lines of the trace)."""

    name: str
    arguments: str
    result: int
    entered: int
    left: int

    def strings(self) -> list[bytes]:
        return [_bytes(match[1]) for match in _STRING.finditer(self.arguments)]

    def file(self) -> str:
        """The path behind the first descriptor."""
        found = _DESCRIPTOR.match(self.arguments)
        return _plain(found[2]) if found else ""


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _plain(text: str) -> str:
    return os.fsdecode(_bytes(text)) if text.startswith("\\x") else text


def calls(trace: Path) -> Iterator[Call]:
    """The calls of a trace, in the order in which they returned."""
    begun: dict[str, tuple[str, int]] = {}
    with trace.open() as lines:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:
                continue
            thread, text = match[1], match[2].rstrip("\n")
            entered = number
            if text.endswith(_UNFINISHED):
                begun[thread] = (text.removesuffix(_UNFINISHED), number)
                continue
            if resumed := _RESUMED.match(text):
                head, entered = begun.pop(thread, ("", number))
                text = head + resumed[2]
            found = _CALL.match(text)
            if found is not None and found[3] != "?":
                yield Call(found[1], found[2], int(found[3]), entered, number)


class _File:
    """A file's content as it stands, and what has changed since its last sync."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, bytes | int]] = []  # left, offset, bytes or a new size
        self.synced = 0  # so many of the changes

    def durable(self) -> bytearray:
        content = bytearray()
        for _, offset, change in self.changes[: self.synced]:
            if isinstance(change, int):
                if change < len(content):
                    del content[change:]
                content.extend(bytes(change - len(content)))
            else:
                if len(content) < offset:
                    content.extend(bytes(offset - len(content)))
                content[offset : offset + len(change)] = change
        return content


class Disk:
    """The files below `root`, fed with calls in order."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._names: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._ends: dict[tuple[str, str], int] = {}  # where a descriptor's next write goes
        self.syncs = 0

    def feed(self, call: Call) -> None:
        """Take in a call that has returned."""
        if call.result < 0:
            return
        if call.name.startswith(("openat", "rename", "link", "unlink")):
            self._name(call)
            return
        path = call.file()
        file = self._names.get(path)
        if call.name in ("fsync", "fdatasync"):
            self._sync(path, file, call)
        elif file is None:
            return
        elif call.name == "pwrite64":
            offset = int(call.arguments.rsplit(", ", 1)[1])
            file.changes.append((call.left, offset, self._written(call)))
        elif call.name == "write":
            key = (call.arguments.split("<", 1)[0], path)
            offset = self._ends.get(key, 0)
            file.changes.append((call.left, offset, self._written(call)))
            self._ends[key] = offset + call.result
        elif call.name == "ftruncate":
            file.changes.append((call.left, 0, int(call.arguments.rsplit(", ", 1)[1])))
        else:
            raise AssertionError(f"{call.name} of a file is not followed: {path}")

    def _written(self, call: Call) -> bytes:
        (content,) = call.strings()
        if len(content) < call.result:
            assert not any(content), f"a longer write is not followed: {call.file()}"
            content = bytes(call.result)
        return content[: call.result]

    def _name(self, call: Call) -> None:
        paths = [os.fsdecode(text) for text in call.strings()]
        if call.name == "openat":
            (path,) = paths
            if path.startswith(self._root) and "O_CREAT" in call.arguments:
                self._names.setdefault(path, _File())
            self._ends.pop((str(call.result), path), None)
        elif call.name.startswith("rename"):
            if paths[0] in self._names:
                self._names[paths[1]] = self._names.pop(paths[0])
        elif call.name.startswith("link"):
            if paths[0] in self._names:
                self._names[paths[1]] = self._names[paths[0]]
        else:
            self._names.pop(paths[0], None)

    def _sync(self, path: str, file: _File | None, call: Call) -> None:
        if file is not None:
            # Only what was written before the sync began.
            while file.synced < len(file.changes) and file.changes[file.synced][0] < call.entered:
                file.synced += 1
            self.syncs += 1
        elif path.startswith(self._root):
            here = {name: one for name, one in self._names.items() if os.path.dirname(name) == path}
            for name in [name for name in self._durable if os.path.dirname(name) == path]:
                del self._durable[name]
            self._durable |= here

    def leave(self, place: Path) -> None:
        """Write what is durable into an empty folder that stands for `root`."""
        for name, file in self._durable.items():
            path = place / os.path.relpath(name, self._root)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = file.durable()
            end = len(content.rstrip(b"\0"))
            with path.open("wb") as out:
                out.write(content[:end])
                out.truncate(len(content))
