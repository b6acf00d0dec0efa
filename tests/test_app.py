"""The supervisor and its processes, started as a user starts them: signals, kills, reloads."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.served import HEADWATER, NotReady, Served, children, command_of

TOKEN = "case-token"
VAIX = b'{"user_id":"u1","event_type":"clicks:event","data":{"position":%d}}'
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"


def digest(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


ACCOUNTS = f"""
[accounts.acme.vaix]
tokens = ["{digest(TOKEN)}"]
[accounts.acme.orbee]
trackers = ["1/1"]
[accounts.acme.nucleus]
apps = ["app1"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.gamooga]
companies = ["{COMPANY}"]
"""


def send(
    collect: str, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    at = urlsplit(collect)
    connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=10)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body or None, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def click(collect: str, number: int = 0, token: str = TOKEN) -> int:
    """One VAIX event; its status."""
    return send(
        collect,
        "POST",
        "/api/tracker/events",
        VAIX % number,
        authorization=f"Bearer {token}",
        x_vaix_client_id="g1",
    )[0]


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition becomes true within a time."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


class Collecting:
    """`headwater collect` as a process: the collectors alone."""

    def __init__(self, folder: Path, *, workers: int = 1, accounts: str = ACCOUNTS) -> None:
        self.data = folder / "data"
        self.config = folder / "headwater.toml"
        self.log = folder / "headwater.log"
        self.workers = workers
        self.write(accounts)
        self.process: subprocess.Popen[str]
        self.collect = ""

    def write(self, accounts: str) -> None:
        self.config.write_text(
            f'data = "{self.data}"\n[collect]\nlisten = "127.0.0.1:0"\n'
            f"workers = {self.workers}\n{accounts}"
        )

    def __enter__(self) -> Collecting:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(HEADWATER), "collect", "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready collect=http://127.0.0.1:"), self.log.read_text()
        self.collect = line.split("=", 1)[1].strip()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(35)

    def ready(self) -> bool:
        try:
            return send(self.collect, "GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def positions(self) -> list[int]:
        """The `position` of every journaled event, in the order of the journal."""
        reader = SqliteReader(self.data / "journal")
        found = []
        try:
            for writer in reader.writers():
                after = Position(writer, 0)
                while batches := reader.read(after, batches_max=100, bytes_max=1 << 24):
                    after = batches[-1].position
                    for batch in batches:
                        for request in batch.requests:
                            found.append(msgspec.json.decode(request.body)["data"]["position"])
        finally:
            reader.close()
        return found


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    with Collecting(tmp_path) as collector:
        yield collector


def test_the_collector_process_imports_neither_store_nor_arrow() -> None:
    probe = (
        "import sys, headwater.collector; "
        "print([m for m in ('chdb', 'pyarrow', 'pandas', 'clickhouse_connect', 'numpy', 'typer', "
        "'rich', 'starlette', 'headwater.store', 'headwater.view') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_supervisor_imports_no_store(tmp_path: Path) -> None:
    probe = (
        "import sys, headwater.cli; "
        "heavy = ('chdb', 'pyarrow', 'pandas', 'clickhouse_connect'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_what_a_collector_acknowledged_is_in_its_journal(collecting: Collecting) -> None:
    assert [click(collecting.collect, number) for number in range(20)] == [204] * 20
    assert collecting.positions() == list(range(20))


def test_a_collector_is_small(collecting: Collecting) -> None:
    for number in range(50):
        click(collecting.collect, number)
    (worker,) = children(collecting.process.pid)
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            assert int(line.split()[1]) < 150 * 1024
            return
    pytest.fail("no VmRSS")


def test_sigterm_ends_it_with_0_and_keeps_what_was_acknowledged(collecting: Collecting) -> None:
    assert click(collecting.collect, 7) == 204
    began = time.monotonic()
    assert collecting.stop() == 0
    assert time.monotonic() - began < 30
    assert collecting.positions() == [7]


def test_a_second_collector_on_the_same_folder_is_refused_with_the_holder(
    collecting: Collecting, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(collecting.config.read_text())
    done = subprocess.run(
        [str(HEADWATER), "collect", "--config", str(other)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"in use by process {collecting.process.pid}" in done.stderr
    assert done.stdout == ""
    assert click(collecting.collect) == 204


def test_a_killed_worker_is_replaced_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    acknowledged = []
    with Collecting(tmp_path, workers=2) as collecting:
        workers = children(collecting.process.pid)
        assert len(workers) == 2
        for round_ in range(3):
            victim = children(collecting.process.pid)[0]
            os.kill(victim, signal.SIGKILL)
            for number in range(round_ * 20, round_ * 20 + 20):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if click(collecting.collect, number) == 204:
                        acknowledged.append(number)
            assert soon(lambda: len(children(collecting.process.pid)) == 2, 5)
            assert soon(collecting.ready, 5)
        assert collecting.stop() == 0
        assert set(acknowledged) <= set(collecting.positions())
    assert len(acknowledged) >= 50


@pytest.mark.alone
def test_when_the_only_worker_is_killed_it_is_ready_again_within_five_seconds(
    collecting: Collecting,
) -> None:
    (worker,) = children(collecting.process.pid)
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    assert soon(collecting.ready, 5)
    assert time.monotonic() - began < 5
    assert click(collecting.collect) == 204


def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with Collecting(tmp_path, workers=2) as collecting:
        assert click(collecting.collect, 1) == 204
        workers = children(collecting.process.pid)
        collecting.process.kill()
        collecting.process.wait()
        assert soon(lambda: not any("headwater" in command_of(pid) for pid in workers), 5)
    with Collecting(tmp_path, workers=1) as again:
        assert click(again.collect, 2) == 204
        assert sorted(again.positions()) == [1, 2]


def test_sighup_swaps_tokens_within_five_seconds(collecting: Collecting) -> None:
    assert click(collecting.collect) == 204
    collecting.write(ACCOUNTS.replace(digest(TOKEN), digest("new-token")))
    collecting.process.send_signal(signal.SIGHUP)
    assert soon(lambda: click(collecting.collect, token="new-token") == 204, 5)
    assert click(collecting.collect) == 401


def test_a_reload_of_a_wrong_file_is_reported_and_changes_nothing(collecting: Collecting) -> None:
    collecting.write("[accounts.acme.vaix]\ntokens = ['plain']\n")
    collecting.process.send_signal(signal.SIGHUP)
    assert soon(lambda: "not reloaded" in collecting.log.read_text(), 5)
    assert "accounts.acme.vaix.tokens[0]" in collecting.log.read_text()
    assert click(collecting.collect) == 204
    (worker,) = children(collecting.process.pid)
    os.kill(worker, signal.SIGKILL)
    assert soon(collecting.ready, 5), "a restart takes the last right configuration, not the file"
    assert click(collecting.collect) == 204


def start_fails(folder: Path, config: str) -> subprocess.CompletedProcess[str]:
    (folder / "headwater.toml").write_text(config)
    done = subprocess.run(
        [str(HEADWATER), "collect", "--config", str(folder / "headwater.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def test_a_port_that_is_taken_is_said_with_its_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start_fails(
            tmp_path,
            f'data = "{tmp_path}/data"\n[collect]\nlisten = "127.0.0.1:{port}"\n{ACCOUNTS}',
        )
    assert f"collect.listen: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "port 0" in done.stderr


def test_a_data_folder_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = start_fails(tmp_path, f'data = "{tmp_path}/data"\n{ACCOUNTS}')
    assert done.stderr.count("cannot be made") == 1
    assert "what to do" in done.stderr


def test_a_worker_that_cannot_start_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "data" / "journal").mkdir(parents=True)
    (tmp_path / "data" / "journal" / "w0").write_text("a file")
    done = start_fails(
        tmp_path, f'data = "{tmp_path}/data"\n[collect]\nlisten = "127.0.0.1:0"\n{ACCOUNTS}'
    )
    assert done.stderr.count("error:") == 1
    assert "collector 0" in done.stderr


def test_a_bad_start_of_the_whole_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    served = Served(tmp_path, ACCOUNTS)
    with pytest.raises(NotReady, match="cannot be made"):
        served.start()
