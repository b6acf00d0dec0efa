"""Two cores, one for the server and one for the client: neither helps nor disturbs the other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_AVAILABLE = sorted(os.sched_getaffinity(0))
SERVER_CORE = _AVAILABLE[0]
CLIENT_CORE = _AVAILABLE[1] if len(_AVAILABLE) > 1 else _AVAILABLE[0]


def pinned(core: int) -> list[str]:
    """What goes before a command that is to run on one core."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


def warning() -> str:
    """What makes a comparison unfair on this machine, or nothing."""
    if len(_AVAILABLE) < 2:
        return "one core only: server and client share it, figures say little"
    if not shutil.which("taskset"):
        return "taskset is missing: nothing is pinned, figures say little"
    return ""


def resident_bytes(pids: list[int], *, peak: bool = False) -> int:
    """Resident memory of some processes together, now or at its peak."""
    field = "VmHWM:" if peak else "VmRSS:"
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field)
        )
    return total


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that some processes have used so far, user and system."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: proc(5), counted behind comm
    return ticks / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """The processor's name and how many cores may be used."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else 'unknown processor'}, {len(_AVAILABLE)} cores"
