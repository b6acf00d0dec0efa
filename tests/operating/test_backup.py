"""R13: a backup taken under load, restored elsewhere, started, replayed: equal sets."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headwater import backup as backups
from headwater.errors import DataError, FolderInUse
from headwater.folder import Folder
from headwater.folder_version import RESTORING, open_version
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.served import HEADWATER, NotReady, Served
from tests.test_app import ACCOUNTS, COMPANY, click, send, soon

ROWS = (
    "SELECT event_id, request_id, dialect, name, person_id, session_id, occurred_at, received_at, "
    "toString(identities), toJSONString(properties) FROM events ORDER BY event_id, request_id"
)


class Load:
    """Clients that send until they are told to stop. `acknowledged` is appended to after each
    answer: the positions of clicks, and the visitor ids by user."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stop = threading.Event()
        self.acknowledged: list[int] = []
        self.visitors: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._click, args=(first,)) for first in range(3)
        ] + [threading.Thread(target=self._identify)]

    def _click(self, number: int) -> None:
        while not self._stop.is_set():
            assert click(self._served.collect, number) == 204
            self.acknowledged.append(number)
            number += 3

    def _identify(self) -> None:
        number = 0
        while not self._stop.is_set():
            user = f"user-{number}"
            self.visitors[user] = visitor(self._served, user)
            number += 1
            time.sleep(0.005)

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def visitor(served: Served, user: str) -> str:
    """The visitor id that a user is told."""
    status, body = send(served.collect, "GET", f"/id/?c={COMPANY}&u={user}")
    assert status == 200
    return body.decode()


def clicks(served: Served) -> list[int]:
    rows = served.query(
        "SELECT toInt64(properties.position) AS n FROM events WHERE dialect = 'vaix' LIMIT 1000000"
    )
    return [int(row["n"]) for row in rows]


def rows(served: Served) -> dict[str, Any]:
    return {row["event_id"]: row for row in served.query(ROWS)}


def test_a_backup_under_load_restored_elsewhere_holds_all_that_came_before(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    target = tmp_path / "backup"
    with Served(tmp_path / "here", ACCOUNTS, workers=2) as here:
        with Load(here).running() as load:
            assert soon(lambda: len(load.acknowledged) > 500, 60)
            before, visitors = list(load.acknowledged), dict(load.visitors)
            here.run("backup", str(target))
            after = len(load.acknowledged)
        assert after > len(before), "the load stood still"
        here.wait_loaded()
        original = rows(here)
    sent = set(load.acknowledged)

    there = Served(tmp_path / "there", ACCOUNTS, workers=2)
    there.run("restore", str(target))
    with there:
        books = there.wait_loaded()
        found = clicks(there)
        assert set(before) - set(found) == set()
        assert set(found) - sent == set()
        assert len(found) == len(set(found))
        assert all(
            book["received"] == book["stored"] + book["duplicate"] + book["rejected"]
            for book in books.values()
        )
        restored = rows(there)
        assert {key: original[key] for key in restored} == restored
        assert {user: visitor(there, user) for user in visitors} == visitors
        there.wait_loaded()
        restored = rows(there)
        there.run("replay", "--since", "1d")
        assert rows(there) == restored
        # and it goes on from there, on numbers of its own
        assert click(there.collect, -1) == 204
        there.wait_loaded()
        assert -1 in clicks(there)
    assert "damaged" not in there.log.read_text()


def test_a_second_start_has_nothing_left_of_the_backup_in_the_data_folder(tmp_path: Path) -> None:
    with Served(tmp_path, ACCOUNTS) as served:
        assert click(served.collect, 1) == 204
        served.run("backup", str(tmp_path / "backup"))
        assert not (served.data / "tmp" / "backup").exists()
        assert not (served.data / "store" / "shadow" / "headwater_backup").exists()


def test_what_a_killed_backup_has_staged_goes_at_the_next_start(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    with served:
        assert click(served.collect, 1) == 204
        served.wait_loaded()
    left = (served.data / "tmp" / "backup", served.data / "store" / "shadow" / "headwater_backup")
    for folder in left:
        (folder / "store").mkdir(parents=True)
        (folder / "store" / "data.bin").write_bytes(b"x")
    with served:
        assert not any(folder.exists() for folder in left)
        served.run("backup", str(tmp_path / "backup"))
    assert (tmp_path / "backup" / "manifest.json").exists()


def test_a_backup_that_is_killed_harms_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    """kill -9 of the command once the hub has begun, while it copies, and before the manifest."""
    (tmp_path / "there").mkdir()
    with Served(tmp_path, ACCOUNTS) as served:
        for number in range(50):
            assert click(served.collect, number) == 204
        served.wait_loaded()
        before = rows(served)
        reached = {
            "staged": served.data / "tmp" / "backup",
            "copying": tmp_path / "copying" / "store",
            "journal": tmp_path / "journal" / "journal",
        }
        for name, path in reached.items():
            target = tmp_path / name
            taking = subprocess.Popen(
                [str(HEADWATER), "backup", str(target), "--config", str(served.config)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not path.exists():
                assert taking.poll() is None, f"too late: {name}"
                time.sleep(0.001)
            taking.kill()
            taking.wait()
            with pytest.raises(DataError, match="it has no manifest"):
                backups.verify(target, progress=lambda files, size: None)
            assert click(served.collect, 50 + len(before)) == 204
            served.wait_loaded()
            found = rows(served)
            assert {key: found[key] for key in before} == before
            assert len(found) == len(before) + 1
            before = found
        served.run("backup", str(tmp_path / "again"))
        assert not (served.data / "tmp" / "backup").exists()
        assert not (served.data / "store" / "shadow" / "headwater_backup").exists()
    backups.verify(tmp_path / "again", progress=lambda files, size: None)
    there = Served(tmp_path / "there", ACCOUNTS)
    there.run("restore", str(tmp_path / "again"))
    with there:
        there.wait_loaded()
        assert rows(there) == before


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that has ended, with a few events, and a backup of it beside it."""
    served = Served(tmp_path_factory.mktemp("stopped"), ACCOUNTS)
    with served:
        for number in range(20):
            assert click(served.collect, number) == 204
        served.wait_loaded()
    served.run("backup", str(served.folder / "backup"))
    return served


def command(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), *arguments, "--config", str(served.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_server_it_is_as_good(stopped: Served, tmp_path: Path) -> None:
    there = Served(tmp_path, ACCOUNTS)
    there.run("restore", str(stopped.folder / "backup"))
    with there:
        there.wait_loaded()
        assert sorted(clicks(there)) == list(range(20))


def test_the_console_token_is_not_in_it(stopped: Served) -> None:
    token = (stopped.data / "console-token").read_bytes().strip()
    for path in (stopped.folder / "backup").rglob("*"):
        if path.is_file():
            assert path.name != "console-token"
            assert token not in path.read_bytes()


def test_a_backup_is_only_readable_for_its_owner(stopped: Served) -> None:
    for path in (stopped.folder / "backup").rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o077 == 0, path


def copied(backup: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(backup), str(target)], check=True)
    return target


def a_registry_file(backup: Path) -> Path:
    return backup / "registry" / "seen.sqlite"


@pytest.mark.parametrize("how", ["changed", "shorter", "missing", "foreign", "no manifest"])
def test_a_backup_that_is_not_whole_is_refused(stopped: Served, tmp_path: Path, how: str) -> None:
    backup = copied(stopped.folder / "backup", tmp_path / "backup")
    path = a_registry_file(backup)
    if how == "changed":
        content = bytearray(path.read_bytes())
        content[1_000] ^= 1
        path.write_bytes(content)
    elif how == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "missing":
        path.unlink()
    elif how == "foreign":
        path = backup / "journal" / "w0" / "00000009.sqlite"
        path.write_bytes(b"")
    else:
        path = backup / "manifest.json"
        path.unlink()
    there = Served(tmp_path, ACCOUNTS)
    done = command(there, "restore", str(backup))
    assert done.returncode == 1
    assert path.name in done.stderr.replace("\n", "")
    assert not there.data.exists()
    assert command(there, "restore", "--check", str(backup)).returncode == 1


def test_a_manifest_that_leads_elsewhere_is_refused(stopped: Served, tmp_path: Path) -> None:
    backup = copied(stopped.folder / "backup", tmp_path / "backup")
    text = (backup / "manifest.json").read_text()
    (backup / "manifest.json").write_text(text.replace("registry/seen", "registry/../../seen"))
    with pytest.raises(DataError, match="leads out"):
        backups.verify(backup, progress=lambda files, size: None)


def test_a_data_folder_with_something_in_it_is_left_alone(stopped: Served) -> None:
    before = (stopped.data / "version").read_bytes()
    done = command(stopped, "restore", str(stopped.folder / "backup"))
    assert done.returncode == 1
    assert "is not empty" in done.stderr.replace("\n", " ")
    assert (stopped.data / "version").read_bytes() == before


def test_a_backup_into_the_data_folder_or_over_another_one_is_refused(stopped: Served) -> None:
    for target in (stopped.data / "backup", stopped.folder / "backup"):
        done = command(stopped, "backup", str(target))
        assert done.returncode == 1, target
    assert (stopped.folder / "backup" / "manifest.json").exists()


def test_a_restore_that_was_cut_short_does_not_start(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    served.data.mkdir()
    (served.data / RESTORING).write_bytes(b"")
    with pytest.raises(NotReady, match="restore again"):
        served.start()


def test_two_backups_at_once_are_one_too_many(stopped: Served, tmp_path: Path) -> None:
    folder = Folder(stopped.data)

    def second() -> backups.Staged:
        with pytest.raises(FolderInUse):
            backups.take(
                folder,
                tmp_path / "second",
                staged_by=lambda: pytest.fail("it was begun"),
                progress=lambda files, size: None,
            )
        raise DataError("enough")

    with pytest.raises(DataError, match="enough"):
        backups.take(
            folder, tmp_path / "first", staged_by=second, progress=lambda files, size: None
        )
    assert list((tmp_path / "first").iterdir()) == []


def test_a_damaged_segment_is_backed_up_as_it_is(stopped: Served, tmp_path: Path) -> None:
    """What a reader of the original says, a reader of the copy says."""
    data = copied(stopped.data, tmp_path / "data")
    segment = data / "journal" / "w0" / "00000001.sqlite"
    content = segment.read_bytes()
    segment.write_bytes(b"no SQLite file at all" + content[21:])
    folder = Folder(data)
    (folder.tmp / "backup" / "registry").mkdir(parents=True)

    def staged() -> backups.Staged:
        return backups.Staged(at=0, loaded={}, paused_seconds=0, store="")

    backups.take(folder, tmp_path / "b", staged_by=staged, progress=lambda files, size: None)
    copy = tmp_path / "b" / "journal" / "w0" / "00000001.sqlite"
    assert copy.read_bytes() == segment.read_bytes()


def test_what_a_writer_wrote_meanwhile_is_no_gap_in_the_copy(stopped: Served) -> None:
    reader = SqliteReader(stopped.folder / "backup" / "journal")
    try:
        found = reader.read(Position(0, 0), batches_max=100, bytes_max=10**9)
        assert sum(len(batch.requests) for batch in found) == 20
    finally:
        reader.close()


def test_a_restored_folder_has_a_version_mark(stopped: Served, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    backups.restore(stopped.folder / "backup", folder, progress=lambda files, size: None)
    assert (folder.root / "version").read_bytes() == (stopped.data / "version").read_bytes()
    open_version(folder, held=())
