"""`headwater doctor`, on real folders, with and without a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.doctor import CHECKS, EVERYWHERE
from headwater.doctor_disk import Mount, judged, judged_latencies, latencies, mount_of
from headwater.doctor_machine import allowed
from tests.served import HEADWATER, Served
from tests.test_app import ACCOUNTS, click

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:44 / /srv/my\040data rw,relatime shared:5 - nfs4 host:/export rw,vers=4.2
31 27 0:45 / /srv ro,relatime - tmpfs tmpfs ro
"""


def doctor(served: Served, code: int = 0) -> dict[str, dict[str, Any]]:
    """Findings by check."""
    done = subprocess.run(
        [str(HEADWATER), "doctor", "--json", "--config", str(served.config)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    said = msgspec.json.decode(done.stdout)
    assert said["ok"] == (code == 0)
    return {one["check"]: one for one in said["checks"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("doctor"), ACCOUNTS) as running:
        for number in range(5):
            assert click(running.collect, number) == 204
        running.wait_loaded()
        yield running


def test_a_running_server_is_examined_without_being_disturbed(served: Served) -> None:
    found = doctor(served)
    assert set(found) == {"configuration", "server", *dict(EVERYWHERE), *dict(CHECKS)}
    assert f"process {served.pid}" in found["server"]["measured"]
    assert "the hub answers" in found["store"]["measured"]
    assert "quick_check of" in found["sqlite files"]["measured"]
    assert f"process {served.pid}" in found["open files"]["measured"]
    assert click(served.collect, 99) == 204


def test_before_the_first_start_nothing_is_made(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    found = doctor(served)
    assert "works in a scratch folder" in found["store"]["measured"]
    assert not served.data.exists()


def test_a_wrong_configuration_is_a_failure_and_the_machine_is_examined_all_the_same(
    tmp_path: Path,
) -> None:
    served = Served(tmp_path, "[accounts.acme.nonsense]")
    found = doctor(served, 1)
    assert found["configuration"]["status"] == "fail"
    assert set(found) == {"configuration", *dict(EVERYWHERE)}


def test_the_table_says_what_to_do(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    served.data.mkdir(mode=0o755)
    done = subprocess.run(
        [str(HEADWATER), "doctor", "--config", str(served.config)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 1
    assert f"chmod 700 {served.data}" in done.stdout


def test_what_is_wrong_with_a_data_folder_is_named(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    with served:
        assert click(served.collect, 1) == 204
        served.wait_loaded()
    (served.data / "console-token").chmod(0o644)
    registry = served.data / "registry" / "sessions.sqlite"
    content = registry.read_bytes()
    registry.write_bytes(b"\xff" * 200 + content[200:])
    (served.data / "version").write_text('{"format": 99}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = served.config.read_text()
        port = taken.getsockname()[1]
        served.config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        found = doctor(served, 1)
    wrong = {name for name, one in found.items() if one["status"] == "fail"}
    assert wrong == {"permissions", "sqlite files", "version mark", "ports"}
    assert "sessions.sqlite" in found["sqlite files"]["measured"]
    assert "taken by another program" in found["ports"]["measured"]
    assert all(found[name]["remedy"] for name in wrong)


def test_memory_that_calls_itself_a_disk_is_found_out() -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("no file system in memory here")
    folder = Path(tempfile.mkdtemp(dir=shared))
    try:
        served = Served(folder, ACCOUNTS)
        found = doctor(served)
        assert found["file system"]["status"] == "warn"
        assert found["fsync"]["status"] == "warn"
        assert "no disk answers so fast" in found["fsync"]["measured"]
    finally:
        shutil.rmtree(folder)


def test_flushes_that_nothing_waits_for_are_found_out(tmp_path: Path) -> None:
    """The control: on this very disk, writes that are not flushed look like a disk that lies."""
    flushed, plain = latencies(tmp_path)
    assert judged_latencies(plain, plain, "").status == "warn"
    assert len(flushed) == len(plain)


@pytest.mark.parametrize(
    ("seconds", "status"), [(2e-6, "warn"), (60e-6, "ok"), (2e-3, "ok"), (0.2, "warn")]
)
def test_times_of_a_flush(seconds: float, status: str) -> None:
    assert judged_latencies([seconds] * 9, [2e-6] * 9, "write back").status == status


@pytest.mark.parametrize(
    ("mount", "status"),
    [
        (Mount("/", "ext4", "/dev/sda1", ("rw", "relatime")), "ok"),
        (Mount("/", "xfs", "/dev/sda1", ("rw", "nobarrier")), "fail"),
        (Mount("/", "ext4", "/dev/sda1", ("ro",)), "fail"),
        (Mount("/", "nfs4", "host:/x", ("rw",)), "fail"),
        (Mount("/", "fuse.glusterfs", "host:/x", ("rw",)), "fail"),
        (Mount("/", "cifs", "//host/x", ("rw",)), "fail"),
        (Mount("/", "tmpfs", "tmpfs", ("rw",)), "warn"),
        (Mount("/", "overlay", "overlay", ("rw",)), "warn"),
    ],
)
def test_a_mount_is_judged_by_what_a_power_loss_leaves(mount: Mount, status: str) -> None:
    found = judged(mount)
    assert found.status == status
    assert bool(found.remedy) == (status != "ok")


def test_the_mount_of_a_path_is_the_nearest_above_it() -> None:
    found = mount_of(Path("/srv/my data/headwater"), MOUNTINFO)
    assert found is not None
    assert (found.kind, found.point) == ("nfs4", "/srv/my data")
    assert mount_of(Path("/srvx"), MOUNTINFO) == Mount(
        "/", "ext4", "/dev/vda", ("rw", "relatime", "rw", "discard")
    )
    assert mount_of(Path("/x"), "") is None


@pytest.mark.parametrize(
    ("version", "bounds", "inside"),
    [
        ("3.54.1.0", ">=3.51.3,<4", True),
        ("3.51.2", ">=3.51.3,<4", False),
        ("4.0.0", ">=3.51.3,<4", False),
        ("0.25.0rc1", ">=0.25", True),
        ("21", ">=21", True),
        ("1.2", "", True),
    ],
)
def test_versions_are_compared_number_by_number(version: str, bounds: str, inside: bool) -> None:
    assert allowed(version, bounds) == inside
