"""Is the data folder private, roomy and whole?"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from headwater.doctor_finding import Examined, Finding, fail, ok, warn, worst
from headwater.folder_version import FORMAT, RESTORING, read_mark
from headwater.journal.sqlite_file import open_file
from headwater.journal.sqlite_segment import folder_bytes, segment_numbers, segment_path
from headwater.journal_end import loaded_segments, missing, remedy

_FREE_INODES_MIN = 10_000
_FREE_BYTES_MIN = 1024**3
#: Registry files and the newest journal files come first; so long the rest is read.
_CHECK_SECONDS = 20.0


def marked(examined: Examined) -> Finding:
    """The folder's format."""
    folder = examined.folder
    if not folder.root.exists():
        return ok("", f"{folder.root} does not exist yet: the first start makes it")
    if (folder.root / RESTORING).exists():
        return fail(
            "", "a restore was cut short", f"delete what is in {folder.root}, restore again"
        )
    mark = read_mark(folder)
    if mark is None:
        return ok("", f"{folder.root} is empty")
    if mark.format > FORMAT:
        return fail(
            "",
            f"format {mark.format}, by Headwater {mark.headwater}; this one knows {FORMAT}",
            "run the newer Headwater",
        )
    if mark.format < FORMAT:
        return warn(
            "", f"format {mark.format}: the next start brings it to {FORMAT}", "take a backup first"
        )
    return ok("", f"format {mark.format}, written by Headwater {mark.headwater or '(unknown)'}")


def permissions(examined: Examined) -> Finding:
    """Only its owner may read the folder and the token, and that is us."""
    folder = examined.folder
    if not folder.root.exists():
        return ok("", "nothing is there yet")
    findings = []
    for path, wanted in ((folder.root, 0o700), (folder.token_file, 0o600)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            what = "the console's token" if path == folder.token_file else "the data folder"
            findings.append(
                fail(
                    "",
                    f"others may use {path}: mode {mode:04o}, {what}",
                    f"chmod {wanted:o} {path}",
                )
            )
        if found.st_uid != os.geteuid():
            findings.append(
                warn(
                    "",
                    f"{path} belongs to user {found.st_uid}, this is {os.geteuid()}",
                    "run this as the server's user: what it measures is what that user may do",
                )
            )
    token = "token 0600" if folder.token_file.exists() else "no token yet"
    return worst(findings, f"data folder {stat.S_IMODE(folder.root.stat().st_mode):04o}, {token}")


def space(examined: Examined) -> Finding:
    """Room for what the journal may still take, and for files."""
    found = os.statvfs(examined.place)
    free = found.f_bavail * found.f_frsize
    journal = examined.folder.journal
    used = sum(folder_bytes(path) for path in journal.glob("w*") if path.is_dir())
    bound = examined.config.journal.max_bytes
    said = (
        f"{_gib(free)} free; the journal has {_gib(used)} of its {_gib(bound)}; "
        f"{found.f_favail:,} inodes free"
    )
    if free < _FREE_BYTES_MIN:
        return fail("", f"{said}: soon nothing can be written", "make room")
    if found.f_files and found.f_favail < _FREE_INODES_MIN:
        return fail(
            "", f"{said}: soon no file can be made", "delete files, or a larger file system"
        )
    if free < bound - used:
        return warn(
            "",
            f"{said}: the disk is full before the journal's bound is reached",
            "make room, or lower journal.max_bytes so that the store has some too",
        )
    return ok("", said)


def journal_is_there(examined: Examined) -> Finding:
    """It reaches as far as the store was loaded from it."""
    if gone := missing(examined.folder):
        return fail("", gone, remedy(examined.folder))
    loaded = loaded_segments(examined.folder)
    return ok("", "reaches as far as the store was loaded" if loaded else "nothing is loaded yet")


def _gib(size: int) -> str:
    return f"{size / 1024**3:,.1f} GiB"


def files_are_whole(examined: Examined) -> Finding:
    """SQLite's own look at each file, read-only, beside whoever uses them."""
    findings, checked, left = [], 0, 0
    deadline = time.monotonic() + _CHECK_SECONDS
    for path in _files(examined):
        if time.monotonic() > deadline:
            left += 1
            continue
        checked += 1
        if complaint := _complaint(path):
            findings.append(
                fail(
                    "",
                    f"{path}: {complaint}",
                    'see "When the journal is damaged" in docs/operating.md; for the registry, put '
                    "a backup in place",
                )
            )
    said = f"quick_check of {checked} files" + (
        f", {left} older ones not looked at" if left else ""
    )
    return worst(findings, said if checked else "there are none yet")


def _files(examined: Examined) -> Iterator[Path]:
    yield from sorted(examined.folder.registry.glob("*.sqlite"))
    segments = [
        (number, segment_path(folder, number))
        for folder in examined.folder.journal.glob("w*")
        if folder.is_dir()
        for number in segment_numbers(folder)
    ]
    for _, path in sorted(segments, reverse=True):
        yield path


def _complaint(path: Path) -> str:
    """What SQLite says of a file; empty when it is whole or was deleted meanwhile."""
    try:
        connection = open_file(path, write=False, busy_seconds=5.0)
        try:
            said = connection.pragma("quick_check", 1)
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error) if path.exists() else ""
    return "" if said == "ok" else str(said)
