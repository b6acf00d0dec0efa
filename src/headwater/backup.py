"""A backup of the data folder, taken while it is in use, and putting one back.

Theory of operation. A crash may leave any of these differences between the parts, and the next
start reconciles them; so a copy may have them too, in this direction and no other:

    store, seen, people, sessions, erasures   fit together: no step of the loader lies between
    journal                                   the same or newer: what is not loaded is loaded
    visitors                                  newer than the journal: an answered id is always known

The hub makes the first line within one pause of the loader (`stage`): it opens read transactions on
its registry files and links the store's parts, some tenths of a second, and copies the registry
files afterwards, from those transactions. All that lies in the data folder, so that the hub needs
to write nowhere else. The command then copies it out (`take`), then the journal, then the visitors,
each SQLite file as of one instant. It ends with the manifest: a folder without one is no backup.

Erasures and replays wait while the hub stages. An erasure that begins while the command copies may
be half in the copy; whoever was erased since a backup has to be erased again after a restore.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import msgspec

import headwater
from headwater.clock import Clock
from headwater.errors import DataError
from headwater.folder import Folder
from headwater.folder_version import FORMAT, LOCKS, NAME, RESTORING, open_version, read_mark
from headwater.journal.sqlite_copy import Snapshot, copy_file, copy_journal
from headwater.journal.sqlite_file import sync_folder

MANIFEST = "manifest.json"
#: Where the hub puts its part, below the data folder's ``tmp``.
STAGED = "backup"
#: The registry file that the collectors write.
VISITORS = "visitors.sqlite"
_PIECE_BYTES = 1024 * 1024

#: Told of each file: how many there were so far, and their bytes.
Progress = Callable[[int, int], None]


class File(msgspec.Struct, frozen=True):
    """One file of a backup, by its path below the data folder."""

    path: str
    bytes: int
    sha256: str


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub says of its part: when it was, how far the store had loaded each writer, how
    long the loader stood still, and the version of the store's engine."""

    at: int
    loaded: dict[int, int]
    paused_seconds: float
    store: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. `format` is the data folder's, `loaded` how far the store had
    loaded each writer, `links` are symbolic links."""

    format: int
    headwater: str
    taken_at: str
    sqlite: str
    store: str
    loaded: dict[int, int]
    paused_seconds: float
    files: list[File]
    links: dict[str, str]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


# --- in the hub --------------------------------------------------------------------------------


def stage(
    folder: Folder,
    *,
    alone: threading.Lock,
    paused: Callable[[], Any],
    freeze: Callable[[Path], None],
    loaded: Callable[[], dict[int, int]],
    engine: str,
    clock: Clock,
) -> Staged:
    """Put a copy of what the hub writes into the data folder's ``tmp``. `alone` keeps erasures and
    replays away, `paused` the loader; `freeze` copies the store into a new folder.

    Raises StoreError, RegistryFailed, DataError.
    """
    staged = folder.tmp / STAGED
    with alone, ExitStack() as open_files:
        shutil.rmtree(staged, ignore_errors=True)
        (staged / "registry").mkdir(parents=True, mode=0o700)
        snapshots: list[Snapshot] = []
        try:
            with paused():
                began = time.monotonic()
                at = clock()
                for path in sorted(folder.registry.glob("*.sqlite")):
                    if path.name != VISITORS:
                        snapshots.append(Snapshot(path))
                        open_files.callback(snapshots[-1].close)
                freeze(staged / "store")
                marks = loaded()
                paused_seconds = time.monotonic() - began
            for snapshot in snapshots:
                snapshot.copy(staged / "registry" / snapshot.path.name)
        except (apsw.Error, OSError) as error:
            raise DataError(
                f"the registry cannot be copied: {error}",
                remedy="see that the data folder's disk has room for another copy of registry/",
            ) from error
    return Staged(at=at, loaded=marks, paused_seconds=paused_seconds, store=engine)


def sweep(folder: Folder) -> None:
    """Delete what a backup that was cut short has staged."""
    shutil.rmtree(folder.tmp / STAGED, ignore_errors=True)


# --- the command -------------------------------------------------------------------------------


def take(
    folder: Folder, target: Path, *, staged_by: Callable[[], Staged], progress: Progress
) -> Manifest:
    """Back up into `target`, a folder that is new or empty; durable on return. `staged_by` has the
    hub do its part. Raises DataError, FolderInUse, and what `staged_by` raises."""
    root = folder.root.resolve()
    if target.resolve() == root or root in target.resolve().parents:
        raise DataError(f"{target} lies in the data folder", remedy="give a folder on another disk")
    mark = read_mark(folder)
    if mark is None:
        raise DataError(
            f"there is nothing to back up in {folder.root}", remedy="see data in the configuration"
        )
    with _locked(folder, "lock-backup", "taking another backup"):
        _make_empty(target, "give a new folder")
        try:
            staged = staged_by()
            return _copy_all(folder, target, staged, progress)
        except (apsw.Error, OSError) as error:
            _clear(target)
            raise DataError(
                f"the backup broke off: {error}",
                remedy="see that the target has room, and take it again",
            ) from error
        except BaseException:
            _clear(target)
            raise
        finally:
            sweep(folder)


def _copy_all(folder: Folder, target: Path, staged: Staged, progress: Progress) -> Manifest:
    files: list[File] = []
    links: dict[str, str] = {}

    def add(path: str, size: int, digest: str) -> None:
        files.append(File(path, size, digest))
        progress(len(files), size)

    def measured(path: Path) -> None:
        add(str(path.relative_to(target)), *digest_of(path))

    source = folder.tmp / STAGED
    for path in _walk(source):
        name = path.relative_to(source)
        kept = target / name
        if path.is_symlink():
            kept.symlink_to(os.readlink(path))
            links[str(name)] = os.readlink(path)
        elif path.is_dir():
            kept.mkdir(mode=0o700)
        else:
            add(str(name), *_copy(path, kept))
    (target / "journal").mkdir(mode=0o700)
    for path in copy_journal(folder.journal, target / "journal", staged.loaded):
        measured(path)
    # After the journal: an id that an answer in it carries is known.
    if (folder.registry / VISITORS).exists():
        copy_file(folder.registry / VISITORS, target / "registry" / VISITORS)
        measured(target / "registry" / VISITORS)
    if (folder.root / NAME).exists():
        add(NAME, *_copy(folder.root / NAME, target / NAME))
    mark = read_mark(folder)
    manifest = Manifest(
        format=mark.format if mark else FORMAT,
        headwater=headwater.__version__,
        taken_at=datetime.fromtimestamp(staged.at / 1e6, UTC).isoformat(),
        sqlite=apsw.sqlite_lib_version(),
        store=staged.store,
        loaded=staged.loaded,
        paused_seconds=staged.paused_seconds,
        files=files,
        links=links,
    )
    _sync_folders(target)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    fresh = target / f"{MANIFEST}.new"
    _write(fresh, text + b"\n")
    os.replace(fresh, target / MANIFEST)
    sync_folder(target)
    return manifest


def read_manifest(backup: Path) -> Manifest:
    """A backup's manifest. Raises DataError: it is none, or a newer Headwater's."""
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise DataError(
            f"{backup} is no backup: it has no {MANIFEST}",
            remedy="give the folder that `headwater backup` has made; one without was cut short",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{backup / MANIFEST} cannot be read: {error}") from error
    if manifest.format > FORMAT:
        raise DataError(
            f"{backup} holds a data folder of format {manifest.format}, taken with Headwater "
            f"{manifest.headwater}; this is {headwater.__version__}, which knows up to {FORMAT}",
            remedy="restore it with the newer Headwater",
        )
    for name in (*(file.path for file in manifest.files), *manifest.links):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{backup / MANIFEST} leads out of its folder: {name}")
    return manifest


def verify(backup: Path, *, progress: Progress) -> Manifest:
    """Read everything and compare it with the manifest. Raises DataError that names all that is
    missing, changed or there without being listed."""
    manifest = read_manifest(backup)
    wrong = []
    for number, file in enumerate(manifest.files, 1):
        try:
            if digest_of(backup / file.path) != (file.bytes, file.sha256):
                wrong.append(f"{file.path} has changed")
        except OSError as error:
            wrong.append(f"{file.path}: {error.strerror}")
        progress(number, file.bytes)
    listed = {file.path for file in manifest.files} | {MANIFEST}
    wrong += [
        f"{name} is not in the manifest"
        for path in _walk(backup)
        if not path.is_symlink()
        and path.is_file()
        and (name := str(path.relative_to(backup))) not in listed
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(
            f"{backup} is not what was backed up: {'; '.join(wrong[:5])}{more}",
            remedy="take another backup; this one is not to be trusted",
        )
    return manifest


def restore(backup: Path, folder: Folder, *, progress: Progress) -> Manifest:
    """Put a backup into a data folder that is new or empty; durable on return. Call `verify`
    before. Raises DataError, FolderInUse."""
    manifest = read_manifest(backup)
    _make_empty(
        folder.root,
        'stop the server and move the folder aside, or change "data" in the configuration',
    )
    with ExitStack() as locks:
        try:
            # First and last: a server refuses to start on what a kill leaves half done.
            _write(folder.root / RESTORING, b"")
            sync_folder(folder.root)
            for name in LOCKS:
                locks.enter_context(_locked(folder, name, "restoring"))
            folder.make()
            for number, file in enumerate(manifest.files, 1):
                kept = folder.root / file.path
                kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if _copy(backup / file.path, kept) != (file.bytes, file.sha256):
                    raise DataError(f"{backup / file.path} has changed since it was verified")
                progress(number, file.bytes)
            for name, aim in manifest.links.items():
                kept = folder.root / name
                kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                kept.symlink_to(aim)
            _sync_folders(folder.root)
            (folder.root / RESTORING).unlink()
            sync_folder(folder.root)
            open_version(folder, held=LOCKS)
        except OSError as error:
            raise DataError(
                f"the restore broke off: {error}",
                remedy=f"make room, delete what is in {folder.root}, and restore again",
            ) from error
    return manifest


# --- files -------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Folder, name: str, doing: str) -> Iterator[None]:
    held = folder.lock(name, doing, seconds=0.5)
    try:
        yield
    finally:
        os.close(held)


def _make_empty(path: Path, remedy: str) -> None:
    """Make a folder, or take an empty one; a mount point's ``lost+found`` does not count."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        there = [entry.name for entry in path.iterdir() if entry.name != "lost+found"]
    except OSError as error:
        raise DataError(f"{path} cannot be used: {error.strerror}", remedy=remedy) from error
    if there:
        raise DataError(f"{path} is not empty", remedy=remedy)


def _clear(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _walk(root: Path) -> Iterator[Path]:
    """Everything below a folder, folders before what is in them; links are not followed."""
    for entry in sorted(root.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)


def _copy(path: Path, target: Path) -> tuple[int, str]:
    """Copy a file, durably; its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as copy, path.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    return size, digest.hexdigest()


def digest_of(path: Path) -> tuple[int, str]:
    """A file's size and SHA-256. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _write(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(root: Path) -> None:
    for path in (root, *_walk(root)):
        if path.is_dir() and not path.is_symlink():
            sync_folder(path)
