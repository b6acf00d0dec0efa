"""A journal that ends before what the store was loaded from: found at the start and by doctor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headwater.config import Config
from headwater.doctor_data import journal_is_there
from headwater.doctor_finding import Examined
from headwater.folder import Folder
from headwater.journal.sqlite_segment import segment_numbers
from headwater.journal_end import (
    GIVEN_UP,
    NAME,
    LoadedSegments,
    check_journal,
    first_segment,
    missing,
)
from tests.operating.test_backup import clicks
from tests.served import NotReady, Served
from tests.test_app import ACCOUNTS, click


def test_a_journal_that_was_deleted_is_refused_with_reason_and_remedy(tmp_path: Path) -> None:
    """Begun again below the watermark, it would be acknowledged and never be seen."""
    served = Served(tmp_path, ACCOUNTS)
    journal = served.data / "journal"
    for start in range(2):
        with served:
            assert click(served.collect, start) == 204
            served.wait_loaded()
    assert max(segment_numbers(journal / "w0")) == 2
    kept = tmp_path / "kept"
    shutil.copytree(journal, kept)
    first = [path for path in (journal / "w0").iterdir() if path.name.startswith("00000001")]

    shutil.rmtree(journal)
    for command in ("serve", "collect"):
        gone = Served(tmp_path, ACCOUNTS, command=command)
        with pytest.raises(NotReady, match=r"w0 has no segment.* loaded up to segment 2"):
            gone.start()
        assert "is its disk mounted?" in gone.tail_of_log().replace("\n", " ")
        assert not (journal / "w0").exists(), "nothing is begun in its place"
    examined = Examined(Config(data=served.data), None)
    found = journal_is_there(examined)
    assert found.status == "fail"
    assert GIVEN_UP in found.remedy

    # as it was before the last start
    (journal / "w0").mkdir(parents=True)
    for path in first:
        shutil.copy(kept / "w0" / path.name, path)
    with pytest.raises(NotReady, match="ends with segment 1, and the store was loaded up to"):
        served.start()

    shutil.rmtree(journal)
    shutil.copytree(kept, journal)
    assert journal_is_there(examined).status == "ok"

    shutil.rmtree(journal)
    (served.data / GIVEN_UP).touch()
    with served:
        assert click(served.collect, 2) == 204
        served.wait_loaded()
        assert sorted(clicks(served)) == [0, 1, 2], "it goes on behind what was loaded"
    assert "going on without a part of the journal" in served.log.read_text()
    check_journal(Folder(served.data))
    assert not (served.data / GIVEN_UP).exists(), "once"


def test_what_is_loaded_is_written_down_with_each_segment(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    assert missing(folder) == ""
    assert first_segment(folder, 0) == 1
    loaded = LoadedSegments(folder)
    loaded.note({0: 2_000_000_007, 1: 1_000_000_001})
    written = (tmp_path / NAME).stat().st_mtime_ns
    loaded.note({0: 2_000_000_008, 1: 1_000_000_001})
    assert (tmp_path / NAME).stat().st_mtime_ns == written
    assert (first_segment(folder, 0), first_segment(folder, 1)) == (3, 2)
    assert "w0 has no segment" in missing(folder)
