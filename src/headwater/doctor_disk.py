"""Is the data folder on a disk that keeps what it says it has kept?"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from headwater.doctor_finding import Examined, Finding, fail, ok, warn

#: SQLite's write-ahead log shares memory between processes, which these do not offer.
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "gfs2", "ocfs2")
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_LAYERED = ("overlay", "aufs", "unionfs")
#: Options that keep a flush from reaching the disk.
_UNSAFE = ("nobarrier", "barrier=0", "data=writeback", "eatmydata")

_WRITES = 64
_WRITE_BYTES = 8_192
#: The fastest devices with a cache that survives a power loss take some 10 to 30 microseconds to
#: answer a flush over the bus; what answers sooner has not asked any device.
_HONEST_SECONDS_MIN = 15e-6
#: Each acknowledgement waits for one.
_SLOW_SECONDS = 0.05


class Mount(msgspec.Struct, frozen=True):
    """One line of /proc/self/mountinfo."""

    point: str
    kind: str
    device: str
    options: tuple[str, ...]


def mount_of(path: Path, mountinfo: str) -> Mount | None:
    """The mount that a path lies on, given the text of mountinfo; None when it is not there."""
    found: Mount | None = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        words, rest = head.split(), tail.split()
        if len(words) < 6 or len(rest) < 3:
            continue
        point = words[4].encode().decode("unicode_escape")
        if path == Path(point) or Path(point) in path.parents:
            options = (*words[5].split(","), *rest[2].split(","))
            # The last one mounted on a point hides those before.
            if found is None or len(point) >= len(found.point):
                found = Mount(point, rest[0], rest[1], options)
    return found


def _mount(examined: Examined) -> Mount | None:
    try:
        text = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    return mount_of(examined.place.resolve(), text)


def file_system(examined: Examined) -> Finding:
    """Its type, and whether its options let a flush reach the disk."""
    mount = _mount(examined)
    if mount is None:
        return warn("", "the file system is not known", "see that it is a local disk")
    return judged(mount)


def judged(mount: Mount) -> Finding:
    """What is to be said of a mount."""
    said = f"{mount.kind} on {mount.point} ({mount.device})"
    kind = mount.kind.lower().removeprefix("fuse.")
    if kind.startswith(_NETWORK) or mount.device.startswith("//"):
        return fail("", f"{said}: a network file system", "put the data folder on a local disk")
    if kind in _MEMORY:
        return warn("", f"{said}: gone after a power loss", "put the data folder on a disk")
    if kind in _LAYERED:
        return warn(
            "", f"{said}: a container's own layer, gone with it", "mount a volume for the data"
        )
    unsafe = [option for option in mount.options if option in _UNSAFE]
    if unsafe:
        return fail("", f"{said} with {', '.join(unsafe)}", "mount it without that option")
    if "ro" in mount.options:
        return fail("", f"{said}, mounted read-only", "mount it for writing")
    return ok("", said)


def fsync(examined: Examined) -> Finding:
    """Write and flush, many times, and compare with writes that are not flushed."""
    if not os.access(examined.place, os.W_OK):
        return fail("", f"{examined.place} cannot be written", "run this as the server's user")
    flushed, plain = latencies(examined.place)
    mount = _mount(examined)
    return judged_latencies(flushed, plain, _cache(mount) if mount else "")


def judged_latencies(flushed: list[float], plain: list[float], cache: str) -> Finding:
    """What is to be said of times, in seconds, with and without a flush."""
    median, rare, unflushed = (
        statistics.median(flushed),
        max(flushed),
        statistics.median(plain),
    )
    said = (
        f"write and fdatasync of 8 KiB: median {median * 1e6:,.0f} us, longest "
        f"{rare * 1e3:,.1f} ms of {len(flushed)}; unflushed {unflushed * 1e6:,.0f} us"
    )
    said += f"; the disk's cache is {cache}" if cache else ""
    if median < max(_HONEST_SECONDS_MIN, 1.5 * unflushed):
        return warn(
            "",
            f"{said}: no disk answers so fast",
            "the file system, the virtual machine or the disk acknowledges what is not on disk: "
            "turn that off, or a power loss takes acknowledged requests with it",
        )
    if median > _SLOW_SECONDS:
        return warn("", f"{said}: every answer waits so long", "use a faster disk, an SSD")
    return ok("", said)


def latencies(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds for a write with fdatasync, and without, over blocks that are already allocated."""
    block = os.urandom(_WRITE_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        descriptor = file.fileno()
        for place in range(_WRITES):
            os.pwrite(descriptor, block, place * _WRITE_BYTES)
        os.fsync(descriptor)
        flushed: list[float] = []
        plain: list[float] = []
        for flush, times in ((False, plain), (True, flushed)):
            for place in range(_WRITES):
                began = time.perf_counter()
                os.pwrite(descriptor, block, place * _WRITE_BYTES)
                if flush:
                    os.fdatasync(descriptor)
                times.append(time.perf_counter() - began)
    return flushed, plain


def _cache(mount: Mount) -> str:
    """What the disk says of its own cache: `write back` needs flushes, `write through` none."""
    name = os.path.basename(os.path.realpath(mount.device))
    for folder in (Path("/sys/class/block") / name, Path("/sys/class/block") / name / ".."):
        try:
            return (folder / "queue" / "write_cache").read_text().strip()
        except OSError:
            continue
    return ""
