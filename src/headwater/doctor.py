"""`headwater doctor`: is this a place where the promise can be kept?

The checks stand in `CHECKS`, in the order in which they are shown; each is a function of what is
`Examined` and gives one finding. Nothing is repaired and nothing is started, but for a store in a
scratch folder; beside a running server only files are read, and the hub is asked. What cannot be
known is said to be unknown, as a warning where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from headwater.config import Config
from headwater.config_reader import load
from headwater.doctor_data import files_are_whole, journal_is_there, marked, permissions, space
from headwater.doctor_disk import file_system, fsync
from headwater.doctor_finding import Examined, Finding, fail, ok
from headwater.doctor_machine import (
    clock,
    dependencies,
    memory,
    open_files,
    ports,
    python,
    sqlite,
    store,
)
from headwater.errors import HeadwaterError
from headwater.folder import Folder
from headwater.hub_client import HubClient

Check = Callable[[Examined], Finding]

#: Those that need no configuration.
EVERYWHERE: tuple[tuple[str, Check], ...] = (
    ("python", python),
    ("dependencies", dependencies),
    ("sqlite", sqlite),
    ("clock", clock),
    ("store", store),
)
#: Those of one data folder and its server.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("version mark", marked),
    ("permissions", permissions),
    ("file system", file_system),
    ("fsync", fsync),
    ("space", space),
    ("journal", journal_is_there),
    ("sqlite files", files_are_whole),
    ("open files", open_files),
    ("memory", memory),
    ("ports", ports),
)


def examine(path: Path) -> Iterator[Finding]:
    """All findings, as they come."""
    config: Config | None = None
    try:
        config = load(path)
    except HeadwaterError as error:
        yield fail("configuration", error.message, error.remedy)
    else:
        accounts = len(config.accounts)
        yield ok("configuration", f"{path}: {accounts} account{'' if accounts == 1 else 's'}")
    examined = Examined(config or Config(data=Path()), None)
    if config is not None:
        examined = Examined(config, _hub(Folder(config.data)))
        running = examined.holders()
        said = ", ".join(f"{name} of process {pid}" for name, pid in running.items())
        yield ok("server", f"running: {said}" if running else "not running")
    for name, check in (*EVERYWHERE, *(CHECKS if config is not None else ())):
        try:
            yield check(examined).named(name)
        except (OSError, HeadwaterError, ValueError) as error:
            yield fail(name, f"it could not be examined: {error}", "run this as the server's user")


def _hub(folder: Folder) -> HubClient | None:
    try:
        return HubClient.find(folder)
    except HeadwaterError:
        return None  # the token is unreadable, which `permissions` says
