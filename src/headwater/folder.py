"""The data folder: where what lies in it, who may use it, and the console's token.

    data/
    ├── lock            held by the hub's side: the process that may open the store
    ├── lock-collect    held by the collectors' side: the processes that may write the journal
    ├── version         format and writer of the folder, see folder_version.py
    ├── console-token   the console's own token, mode 0600
    ├── queries/        queries that were kept in the console, as files
    ├── hub.json        address of the running hub, for `headwater query` and its like
    ├── loaded.json     how far the store was loaded, see journal_end.py
    ├── collect.json    address of the running collectors, for the console's page Try it
    ├── journal/ registry/ store/
    └── tmp/            the store's temporary files; metrics/ holds the workers' counters

Locks are flock(2) on an open file: the kernel lets go of them when the last process that holds the
file open has ended, however it ended. Children inherit the open file, so that a lock lives until
the last of them is gone, even when the supervisor was killed before them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

import msgspec

from headwater.errors import DataError, FolderInUse

#: A killed supervisor's children need a moment to notice; so long a new one waits for their locks.
LOCK_SECONDS_MAX = 5.0


class HubAddress(msgspec.Struct):
    """What hub.json says: the console's URL without a path, and the hub's process id."""

    console: str
    pid: int


class CollectAddress(msgspec.Struct):
    """What collect.json says: the collectors' URL without a path, and their supervisor's id."""

    collect: str
    pid: int


def free_bytes(path: Path) -> int:
    """What the path's disk has left for this user."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Folder:
    """The data folder's paths; makes what is missing. Raises DataError."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = root / "journal"
        self.registry = root / "registry"
        self.store = root / "store"
        self.tmp = root / "tmp"
        self.metrics = self.tmp / "metrics"
        self.hub_json = root / "hub.json"
        self.collect_json = root / "collect.json"
        self.token_file = root / "console-token"
        self.queries = root / "queries"

    def make(self) -> None:
        """Make the folders that are missing, readable for their owner only."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (self.journal, self.registry, self.store, self.tmp, self.metrics):
                path.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise DataError(
                f"the data folder {self.root} cannot be made: {error.strerror}",
                remedy=f"make {error.filename} a folder that this user may write, or change "
                '"data" in the configuration',
            ) from error

    def lock(self, name: str, doing: str, *, seconds: float = LOCK_SECONDS_MAX) -> int:
        """Hold a lock file until the returned descriptor closes. Raises FolderInUse, DataError."""
        path = self.root / name
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataError(
                f"{path} cannot be opened: {error.strerror}",
                remedy="let this user write the data folder",
            ) from error
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                holder = os.pread(held, 64, 0).decode(errors="replace").strip()
                os.close(held)
                raise FolderInUse(
                    f"{self.root} is in use by process {holder or '(unknown)'}",
                    remedy=f"stop it before {doing}, or give another data folder",
                ) from error
            os.ftruncate(held, 0)
            os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
            return held

    def hub(self) -> HubAddress | None:
        """The running hub's address, None when there is none."""
        try:
            found = msgspec.json.decode(self.hub_json.read_bytes(), type=HubAddress)
            os.kill(found.pid, 0)
        except (OSError, msgspec.MsgspecError):
            return None
        return found

    def put_hub(self, address: HubAddress) -> None:
        """Say where the hub is, atomically."""
        fresh = self.hub_json.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(address) + b"\n")
        os.replace(fresh, self.hub_json)

    def collector(self) -> CollectAddress | None:
        """The running collectors' address, None when there are none."""
        try:
            found = msgspec.json.decode(self.collect_json.read_bytes(), type=CollectAddress)
            os.kill(found.pid, 0)
        except (OSError, msgspec.MsgspecError):
            return None
        return found

    def put_collector(self, address: CollectAddress) -> None:
        """Say where the collectors are, atomically."""
        fresh = self.collect_json.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(address) + b"\n")
        os.replace(fresh, self.collect_json)

    def token(self) -> str:
        """The console's token. Raises DataError when there is none that this user may read."""
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise DataError(
                f"{self.token_file} cannot be read: {error.strerror}",
                remedy="run this as the user that runs the server",
            ) from error

    def make_token(self) -> tuple[str, bool]:
        """The console's token, and whether it was made just now."""
        try:
            made = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if kept := self.token():
                return kept, False
            # An empty file is what a kill between making and writing leaves.
            made = os.open(self.token_file, os.O_WRONLY | os.O_TRUNC)
        token = secrets.token_urlsafe(32)
        with os.fdopen(made, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        return token, True
