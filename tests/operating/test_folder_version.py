"""R12: a data folder of an older layout is taken forward, a newer one refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import apsw
import msgspec
import pytest

import headwater
from headwater.errors import DataError, FolderInUse
from headwater.folder import Folder
from headwater.folder_version import FORMAT, STEPS, Mark, open_version, read_mark
from tests.served import HEADWATER, NotReady, Served
from tests.test_app import ACCOUNTS, click, send

CLICKS = "SELECT toInt64(properties.position) AS n, person_id FROM events ORDER BY n"
#: Makes a store of the first schema; what `_ROWS` has written goes into it.
_OLDER = """
import sys
from pathlib import Path
from headwater.store import schema, session
data = Path(sys.argv[1])
writing = session.Writing(session.Connector(f"chdb://{data / 'store'}", data / "tmp"))
writing.command("CREATE DATABASE IF NOT EXISTS headwater_store")
writing.command(schema._VERSIONS)
number, sql = schema.schema_files()[0]
assert number == 1
for statement in schema.statements(sql):
    writing.command(statement)
writing.command("INSERT INTO headwater_store.schema_versions (version) VALUES (1)")
for rows in sorted(data.parent.glob("*.rows")):
    with writing._using() as client:
        table = "headwater_store." + rows.stem
        client.raw_insert(table, insert_block=rows.read_bytes(), fmt="JSONEachRow")
writing.close()
"""
#: Writes a store's rows beside the data folder, with the columns that they had at first.
_ROWS = """
import sys
from pathlib import Path
from headwater.store import session
data = Path(sys.argv[1])
writing = session.Writing(session.Connector(f"chdb://{data / 'store'}", data / "tmp"))
later = {"events_rows": "EXCEPT (ordered_at, keys, subject, principal)"}
for table in ("events_rows", "rejected_rows", "loads"):
    sql = f"SELECT * {later.get(table, '')} FROM headwater_store.{table}"
    with writing._using() as client:
        (data.parent / f"{table}.rows").write_bytes(client.raw_query(sql, fmt="JSONEachRow"))
writing.close()
"""


def mark(data: Path) -> Mark:
    return msgspec.json.decode((data / "version").read_bytes(), type=Mark)


def test_the_steps_lead_to_the_format_of_today() -> None:
    assert [format for format, _ in STEPS] == list(range(1, FORMAT + 1))


def test_a_new_folder_is_marked(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    open_version(folder, held=())
    assert mark(tmp_path) == Mark(FORMAT, headwater.__version__)


def test_a_newer_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    served = Served(tmp_path, ACCOUNTS)
    served.data.mkdir(mode=0o700)
    text = b'{"format": 99, "headwater": "9.9.9", "something": "new"}\n'
    (served.data / "version").write_bytes(text)
    with pytest.raises(NotReady, match=r"format 99, written by Headwater 9\.9\.9"):
        served.start()
    asked = subprocess.run(
        [str(HEADWATER), "query", "SELECT 1", "--config", str(served.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 1
    assert "format 99" in asked.stderr
    assert (served.data / "version").read_bytes() == text
    assert not any(served.data.glob("journal/w*"))


def test_a_folder_from_before_there_were_marks_is_taken_forward(tmp_path: Path) -> None:
    """The first release's layout: store schema 1, no people, sessions or erasures."""
    served = Served(tmp_path, ACCOUNTS)
    with Served(tmp_path, ACCOUNTS, command="collect") as collecting:
        for number in range(30):
            assert click(collecting.collect, number) == 204
    for name in ("version", "registry/people.sqlite", "registry/sessions.sqlite"):
        (served.data / name).unlink(missing_ok=True)
    run_on(served, _OLDER)
    assert read_mark(Folder(served.data)) == Mark(0)
    with served:
        served.wait_loaded()
        rows = served.query(CLICKS)
        assert [row["n"] for row in rows] == list(range(30))
        assert all(row["person_id"] for row in rows)
        assert mark(served.data) == Mark(FORMAT, headwater.__version__)


def test_rows_of_the_first_schema_are_there_and_a_replay_says_who_it_was(tmp_path: Path) -> None:
    """Loaded under the first schema, by whose loader nobody was anybody; some more wait in the
    journal."""
    served = Served(tmp_path, ACCOUNTS)
    with served:
        for number in range(30):
            assert click(served.collect, number) == 204
        assert send(served.collect, "POST", "/collect/1/1/event", b"{}")[0] == 400
        books = served.wait_loaded()
        today = served.query(CLICKS)
    run_on(served, _ROWS)
    assert (tmp_path / "events_rows.rows").read_bytes().count(b"\n") == 30
    shutil.rmtree(served.data / "store")
    for name in ("version", "registry/people.sqlite", "registry/sessions.sqlite"):
        (served.data / name).unlink(missing_ok=True)
    run_on(served, _OLDER)
    with Served(tmp_path, ACCOUNTS, command="collect") as collecting:
        for number in range(30, 40):
            assert click(collecting.collect, number) == 204
    with served:
        rows = served.query(CLICKS) if served.wait_loaded() else []
        assert [row["n"] for row in rows] == list(range(40))
        assert not any(row["person_id"] for row in rows[:30]), "as it was loaded"
        assert all(row["person_id"] for row in rows[30:])
        found = served.accounting()
        assert found["acme", "vaix"]["stored"] == 40
        assert found["acme", "orbee"] == books["acme", "orbee"]
        assert len(served.query("SELECT * FROM rejected")) == 1
        served.run("replay", "--since", "1d")
        rows = served.query(CLICKS)
        assert rows[:30] == today, "the same rows, and the same people as today's loader says"
        assert [row["n"] for row in rows] == list(range(40))
        assert served.accounting()["acme", "vaix"]["stored"] == 40


def run_on(served: Served, script: str) -> None:
    """A program of ours in a process of its own, on a server's data folder."""
    python = str(HEADWATER.with_name("python"))
    subprocess.run([python, "-c", script, str(served.data)], check=True)


def test_an_upgrade_waits_for_nobody_else_on_the_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    (folder.journal / "w0").mkdir()
    other = Folder(tmp_path)
    held = other.lock("lock-collect", "testing")
    assert held
    with pytest.raises(FolderInUse, match="in use by process"):
        open_version(folder, held=("lock",))
    assert read_mark(folder) == Mark(0)
    open_version(folder, held=("lock", "lock-collect"))
    assert read_mark(folder) == Mark(FORMAT, headwater.__version__)


def test_another_headwater_of_the_same_format_signs_the_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    (tmp_path / "version").write_bytes(msgspec.json.encode(Mark(FORMAT, "0.0.1")))
    open_version(folder, held=())
    assert mark(tmp_path).headwater == headwater.__version__


def test_a_mark_that_cannot_be_read_is_not_guessed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    (tmp_path / "version").write_bytes(b"\0\0\0\0")
    with pytest.raises(DataError, match="version cannot be read"):
        open_version(folder, held=())


def test_each_file_of_the_registry_refuses_what_is_newer(tmp_path: Path) -> None:
    """The mark speaks of the folder; a file goes on speaking for itself."""
    served = Served(tmp_path, ACCOUNTS)
    with served:
        assert click(served.collect, 1) == 204
        served.wait_loaded()
    connection = apsw.Connection(str(served.data / "registry" / "people.sqlite"))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(NotReady, match="format 99"):
        served.start()
