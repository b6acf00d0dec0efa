"""Versions, clock, memory and ports: what the machine has for Headwater."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import apsw

from headwater import limits
from headwater.clock import system_clock
from headwater.config import split_address
from headwater.doctor_finding import Examined, Finding, fail, ok, warn, worst
from headwater.errors import DataError, HeadwaterError
from headwater.journal.sqlite_file import check_sqlite

_PYTHON_MIN = (3, 11)
_CLOCK_SECONDS = 0.5
#: A clock that is slewed goes wrong by at most 0.05 %; more within half a second is a step.
_CLOCK_STEP_SECONDS = 0.02
#: The kernel's answer for a clock that nothing keeps right (adjtimex(2)).
_UNSYNCHRONISED = 5
#: What a server needs beside its connections: segments, the store's parts, libraries.
_FILES_BESIDE = 1_000
_HUB_BYTES = 1024**3
_COLLECTOR_BYTES = 256 * 1024**2
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")
#: Inserts, merges and asks once: a processor without the instructions ends it with a signal.
_SCRATCH = """
import sys
from chdb import session
opened = session.Session(sys.argv[1])
opened.query("CREATE DATABASE d ENGINE = Atomic")
opened.query("CREATE TABLE d.t (x UInt8, j JSON) ENGINE = MergeTree ORDER BY x")
opened.query("INSERT INTO d.t VALUES (1, '{\\"a\\": 1}')")
print(opened.query("SELECT version(), sum(x) FROM d.t", "TSV").data().strip())
opened.close()
"""


def python(examined: Examined) -> Finding:
    """The interpreter."""
    said = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info < _PYTHON_MIN:
        return fail("", said, "install Python 3.11 or later")
    return ok("", said)


def dependencies(examined: Examined) -> Finding:
    """Each requirement of this Headwater is there, in a version that it allows."""
    findings, versions = [], []
    for requirement in metadata.requires("headwater") or []:
        if "extra ==" in requirement or (match := _REQUIREMENT.match(requirement)) is None:
            continue
        name, bounds = match[1], match[2]
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(fail("", f"{name} is missing", "install Headwater again, with pip"))
            continue
        versions.append(f"{name} {have}")
        if not allowed(have, bounds):
            findings.append(
                warn("", f"{name} {have}, wanted {bounds}", "install Headwater again, with pip")
            )
    return worst(findings, ", ".join(versions))


def allowed(version: str, bounds: str) -> bool:
    """Whether a version is within bounds like ``>=1.2,<3``."""
    have = _numbers(version)
    tests = {
        ">=": lambda wanted: have >= wanted,
        "<=": lambda wanted: have <= wanted,
        "==": lambda wanted: have == wanted,
        "!=": lambda wanted: have != wanted,
        "<": lambda wanted: have < wanted,
        ">": lambda wanted: have > wanted,
    }
    return all(tests[sign](_numbers(wanted)) for sign, wanted in _BOUND.findall(bounds))


def _numbers(version: str) -> tuple[int, ...]:
    parts = re.match(r"[0-9.]*", version)
    found = [int(part) for part in (parts[0] if parts else "").split(".") if part]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def sqlite(examined: Examined) -> Finding:
    """The library that journal and registry use."""
    try:
        check_sqlite()
    except DataError as error:
        return fail("", error.message, error.remedy)
    return ok("", f"{apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})")


def store(examined: Examined) -> Finding:
    """The running hub answers; without one, a store starts in a scratch folder."""
    if examined.hub is not None:
        try:
            answer = examined.hub.query("SELECT version() AS version", "jsonl").decode().strip()
        except HeadwaterError as error:
            return fail("", f"the hub does not answer: {error.message}", error.remedy)
        return ok("", f"the hub answers: {answer}")
    if "hub" in examined.holders():
        return fail("", "a hub runs and does not answer", "see its log; restart it")
    with tempfile.TemporaryDirectory(prefix="headwater-doctor-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _SCRATCH, folder],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return fail("", "a scratch store did not start in 60 s", "see what the machine does")
    words = done.stdout.split()
    if done.returncode or len(words) != 2 or words[1] != "1":
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        return fail(
            "",
            f"a scratch store does not work: {said[0][:300]}",
            "install chdb again; it needs an x86-64 processor with AVX2, or an ARM one",
        )
    return ok(
        "", f"ClickHouse {words[0]} (chdb {metadata.version('chdb')}) works in a scratch folder"
    )


def clock(examined: Examined) -> Finding:
    """It runs evenly, and something keeps it right."""
    wall, steady = system_clock(), time.monotonic()
    time.sleep(_CLOCK_SECONDS)
    off = (system_clock() - wall) / 1e6 - (time.monotonic() - steady)
    said = f"{off * 1e3:+.2f} ms in {_CLOCK_SECONDS} s against the monotonic one"
    if abs(off) > _CLOCK_STEP_SECONDS:
        return warn("", f"{said}: it was stepped", "see what sets it; let one service slew it")
    kept = _synchronised()
    if kept is None:
        return ok("", f"{said}; whether it is synchronised cannot be known here")
    if not kept:
        return warn(
            "",
            f"{said}; the kernel says it is not synchronised",
            "run chrony or systemd-timesyncd: received_at and the order of events follow it",
        )
    return ok("", f"{said}; synchronised")


def _synchronised() -> bool | None:
    """What the kernel says, None when it does not."""
    try:
        # 208 bytes on Linux; modes = 0, the first field, only asks.
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else bool(state != _UNSYNCHRONISED)


def open_files(examined: Examined) -> Finding:
    """The bound of the running server, or of one that is started like this."""
    needed = limits.connections_max + _FILES_BESIDE
    have, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "here"
    if pid := examined.holders().get("collectors"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
                if line.startswith("Max open files"):
                    have, whose = int(line.split()[3]), f"process {pid}"
    said = f"{have:,} ({whose}); {limits.connections_max:,} connections a worker need {needed:,}"
    if have != resource.RLIM_INFINITY and have < needed:
        return warn("", said, "LimitNOFILE=65536 in the unit, or ulimit -n 65536")
    return ok("", said)


def memory(examined: Examined) -> Finding:
    """What a server may come to need, against what there is."""
    workers = examined.config.collect.workers
    needed = _HUB_BYTES + workers * _COLLECTOR_BYTES
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    have, whose = int(found[1]) * 1024 if found else 0, "of the machine"
    for bound in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            if (limit := int(Path(bound).read_text())) < have:
                have, whose = limit, "of this container"
    said = (
        f"{have / 2**30:,.1f} GiB {whose}; hub and {workers} worker{'' if workers == 1 else 's'} "
        f"need up to {needed / 2**30:,.2f} GiB"
    )
    if have < needed:
        return warn("", said, "more memory, or fewer workers")
    return ok("", said)


def ports(examined: Examined) -> Finding:
    """Free, or held by the server of this data folder."""
    findings, said = [], []
    running = examined.holders()
    for key, listen, half in (
        ("collect.listen", examined.config.collect.listen, "collectors"),
        ("console.listen", examined.config.console.listen, "hub"),
    ):
        state = _port(listen, half in running)
        said.append(f"{listen} {state}")
        if state.startswith("taken") or state.startswith("cannot"):
            findings.append(
                fail("", f"{key} {listen} {state}", f"stop what uses it, or change {key}")
            )
    return worst(findings, ", ".join(said))


def _port(listen: str, running: bool) -> str:
    host, port = split_address(listen)
    if port == 0:
        return "is any free port"
    if running:
        return "is ours" if _healthy(host, port) else "cannot be reached, though a server runs"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(1)
    except OSError as error:
        taken = isinstance(error, PermissionError) or error.errno != 98
        return f"cannot be used: {error.strerror}" if taken else "taken by another program"
    return "is free"


def _healthy(host: str, port: int) -> bool:
    aim = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to ask, not to bind
    connection = http.client.HTTPConnection(aim, port, timeout=3)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
