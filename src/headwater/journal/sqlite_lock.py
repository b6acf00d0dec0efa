"""Locks on a writer's folder, and asking its writer to go on in another file.

``lock`` is held by the writer for as long as it runs. ``rewrite`` is held, for a moment each, by
whoever changes a segment behind SQLite's back or behind its writer's: the writer while it retires a
segment or looks where the journal ends, an erasure while it rewrites one. Nobody holds ``rewrite``
while a request waits for its answer.

``leave`` holds the number of a segment that is wanted for an erasure; a writer that still writes it
goes on in the next one. It is looked at once a second, in the thread that measures the folder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headwater.errors import FolderInUse

#: A killed process's locks go with it, but a moment later; and a reader that asks whether a writer
#: lives (`sqlite_damage`) holds the lock for some microseconds.
LOCK_SECONDS_MAX = 0.5
_PAUSE_SECONDS = 0.01


def lock_folder(folder: Path) -> int:
    """Hold the folder until the returned descriptor closes. Raises FolderInUse."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(descriptor, LOCK_SECONDS_MAX):
        os.close(descriptor)
        raise FolderInUse(
            f"another process writes the journal in {folder}",
            remedy="stop it, or give this one another data folder or worker number",
        )
    return descriptor


@contextmanager
def rewriting(folder: Path, seconds: float) -> Iterator[None]:
    """Be the only one who changes finished segments of the folder. Raises TimeoutError."""
    descriptor = os.open(folder / "rewrite", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(descriptor, seconds):
            raise TimeoutError(f"the segments in {folder} are being rewritten")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True


def ask_to_leave(folder: Path, segment: int) -> None:
    """Want a segment: its writer is to go on in another."""
    fresh = folder / "leave.new"
    fresh.write_text(f"{segment}\n")
    fresh.replace(folder / "leave")


def asked_to_leave(folder: Path) -> int:
    """The newest segment that is wanted, 0 for none."""
    try:
        return int((folder / "leave").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def stop_asking(folder: Path) -> None:
    """It has been left, or is wanted no more."""
    (folder / "leave").unlink(missing_ok=True)
