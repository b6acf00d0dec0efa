"""R4: a power loss. What was acknowledged is on the disk at the moment of the answer: shown by the
system calls of a collector under load, and by opening what they made durable and nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from headwater.journal.sqlite import SqliteReader
from tests.faults.clients import CONFIG
from tests.faults.kill import changed, under_load
from tests.faults.ledger import Ledger
from tests.faults.schedule import send
from tests.faults.traced import Call, Disk, calls, strace
from tests.journal.requests import read_all
from tests.served import Served, descendants
from tests.trust.serving import FULL

SEED = 11
LOOKS = 40 if FULL else 6
SECONDS = 8.0 if FULL else 1.0
_SUCCESS = re.compile(rb"HTTP/1\.1 2\d\d ")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian package strace)"
)


class Kept(NamedTuple):
    """What a data folder holds: requests over HTTP, events of Nucleus, visitors of Gamooga."""

    requests: int
    numbers: set[int]
    visitors: set[str]


def trace(folder: Path, change: str) -> Path:
    """A collector under the load of all clients, followed."""
    out = folder / "trace"
    ledger = Ledger(folder / "ledger")
    served = Served(
        folder,
        CONFIG,
        command="collect",
        prefix=strace(out),
        program=changed(change),
        tables="[journal]\nmax_bytes = 200_000_000",  # so small that no log is made ahead of time
    )
    served.start()
    asyncio.run(under_load(served, ledger, asyncio.sleep(SECONDS)))
    for pid in descendants(served.pid):
        send(pid, signal.SIGKILL)
    served.stop()  # strace ends with what it follows
    ledger.close()
    return out


def answers(call: Call) -> bytes:
    """What a call sent to a client; empty when it is none."""
    if call.name in ("write", "writev", "sendto", "sendmsg") and "socket:" in call.file():
        return b"".join(call.strings())
    return b""


def kept(folder: Path) -> Kept:
    """Open what a power loss left."""
    reader = SqliteReader(folder / "journal")
    requests = [each for batch in read_all(reader, 0) for each in batch.requests]
    reader.close()
    numbers: set[int] = set()
    for request in requests:
        if request.dialect == "nucleus":
            sent = json.loads(request.body).get("data", [])
            numbers |= {event["id"] for event in sent if "id" in event}
    visitors: set[str] = set()
    file = folder / "registry" / "visitors.sqlite"
    if file.exists():
        connection = apsw.Connection(str(file))
        visitors = {row[0] for row in connection.execute("SELECT visitor FROM visitors")}
        connection.close()
    http = [request for request in requests if request.transport == "http"]
    return Kept(len(http), numbers, visitors)


class Answered:
    """What the clients were told so far."""

    def __init__(self) -> None:
        self.requests = 0
        self.numbers: set[int] = set()
        self.visitors: set[str] = set()

    def hear(self, said: bytes) -> bool:
        """Take in bytes that left for a client; whether they promise anything."""
        before = self.requests, len(self.numbers)
        for body in re.findall(rb'\{"reportedIds":\[([0-9,]*)\]\}', said):
            self.numbers |= {int(number) for number in body.split(b",") if number}
        for visitor in re.findall(rb'"vid": ?"([0-9a-z]{16})"', said):
            self.visitors.add(visitor.decode())
        self.requests += len(_SUCCESS.findall(said))
        return before != (self.requests, len(self.numbers))

    def missing_in(self, found: Kept) -> list[str]:
        """What was promised and is not there."""
        lost = sorted(self.numbers - found.numbers)
        wrong = [f"{len(lost)} events of Nucleus, such as {lost[:5]}"] if lost else []
        if found.requests < self.requests:
            wrong.append(f"{self.requests} requests answered, {found.requests} there")
        if self.visitors - found.visitors:
            wrong.append(f"visitors: {sorted(self.visitors - found.visitors)[:5]}")
        return wrong


def losses(folder: Path, out: Path) -> Iterator[tuple[int, list[str]]]:
    """Cut the power right after some of the answers: how much had been promised, what is lost."""
    promises = [number for number, call in enumerate(calls(out)) if _SUCCESS.search(answers(call))]
    looks = sorted(random.Random(SEED).sample(promises, min(LOOKS, len(promises))))
    looks.append(promises[-1])
    disk, told = Disk(folder / "data"), Answered()
    for number, call in enumerate(calls(out)):
        told.hear(answers(call))
        disk.feed(call)
        if number in looks:
            left = folder / f"left-{number}"
            left.mkdir()
            disk.leave(left)
            yield told.requests, told.missing_in(kept(left))
            shutil.rmtree(left)


def early(out: Path) -> tuple[int, list[int]]:
    """Events of Nucleus whose way into a journal's log was seen, and those of them that were
    reported before an fsync of that log had begun behind their write and returned 0."""
    written: dict[int, tuple[str, int]] = {}
    synced: set[int] = set()
    seen, wrong = 0, []
    for call in calls(out):
        path = call.file() if call.name in ("pwrite64", "fdatasync", "fsync") else ""
        if path.endswith("-wal") and "/journal/" in path:
            if call.name == "pwrite64":
                for number in re.findall(rb'"id": (\d{8}),', call.strings()[0]):
                    written.setdefault(int(number), (path, call.left))
            elif call.result == 0:
                done = [
                    n for n, (at, left) in written.items() if at == path and left < call.entered
                ]
                synced.update(done)
        for body in re.findall(rb'\{"reportedIds":\[([0-9,]+)\]\}', answers(call)):
            reported = {int(number) for number in body.split(b",")} & written.keys()
            seen += len(reported)
            wrong += sorted(reported - synced)
    return seen, wrong


@needs_strace
@pytest.mark.timeout(300)
def test_what_was_answered_is_on_the_disk(tmp_path: Path) -> None:
    out = trace(tmp_path, "whole")
    seen, wrong = early(out)
    assert (seen > 20, wrong) == (True, [])
    looked = list(losses(tmp_path, out))
    print(f"seed {SEED}: power cut after {[promised for promised, _ in looked]} answers")
    assert [wrong for _, wrong in looked if wrong] == []
    assert looked[-1][0] > 20


@needs_strace
@pytest.mark.timeout(300)
def test_without_fsync_it_would_not_be(tmp_path: Path) -> None:
    """The negative control: the same look finds what is lost when commits do not wait."""
    out = trace(tmp_path, "unsynced")
    assert early(out)[1]
    assert any(wrong for _, wrong in losses(tmp_path, out))
