"""What `headwater doctor` finds, and what it examines."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from headwater.config import Config
from headwater.folder import Folder
from headwater.hub_client import HubClient

OK, WARN, FAIL = "ok", "warn", "fail"


class Finding(msgspec.Struct, frozen=True):
    """One check's result: what was measured, and what to do about it."""

    check: str
    status: str
    measured: str
    remedy: str = ""

    def named(self, check: str) -> Finding:
        return Finding(check, self.status, self.measured, self.remedy)


def ok(check: str, measured: str) -> Finding:
    return Finding(check, OK, measured)


def warn(check: str, measured: str, remedy: str) -> Finding:
    return Finding(check, WARN, measured, remedy)


def fail(check: str, measured: str, remedy: str) -> Finding:
    return Finding(check, FAIL, measured, remedy)


def worst(findings: list[Finding], otherwise: str) -> Finding:
    """Several findings of one check as one; `otherwise` is what is measured when all are well."""
    wrong = [one for one in findings if one.status != OK]
    if not wrong:
        return ok("", otherwise)
    status = FAIL if any(one.status == FAIL for one in wrong) else WARN
    remedies = dict.fromkeys(one.remedy for one in wrong if one.remedy)
    return Finding("", status, "; ".join(one.measured for one in wrong), "; ".join(remedies))


class Examined:
    """A configuration, and the server that runs on it, if one does."""

    def __init__(self, config: Config, hub: HubClient | None) -> None:
        self.config = config
        self.folder = Folder(config.data)
        self.hub = hub

    @property
    def place(self) -> Path:
        """The data folder, or what is there of the path to it."""
        path = self.folder.root
        while not path.exists() and path != path.parent:
            path = path.parent
        return path

    def holders(self) -> dict[str, int]:
        """The running halves of a server and their supervisors' process ids, by what they are."""
        found = {}
        for name, half in (("lock-collect", "collectors"), ("lock", "hub")):
            try:
                descriptor = os.open(self.folder.root / name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
                found[half] = int(text) if text.isdigit() else 0
            finally:
                os.close(descriptor)
        return found
