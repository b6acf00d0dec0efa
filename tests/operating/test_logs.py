"""What Headwater writes to standard error: text or JSON, with the request, without its words."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from headwater.config import LogSettings
from headwater.logs import _Json, _Text
from tests.served import Served
from tests.test_app import ACCOUNTS, TOKEN, click, send, soon

ID = UUID("019aa0c2-7b1e-7c11-9d1a-3f0a5b0f9f10")


def record(
    *, request: bytes | None = ID.bytes, error: BaseException | None = None
) -> logging.LogRecord:
    made = logging.LogRecord(
        "headwater.accept", logging.ERROR, "", 0, "%s failed", ("it",), _info(error)
    )
    if request is not None:
        made.request_id = request
    return made


def _info(error: BaseException | None) -> tuple[type[BaseException], BaseException, None] | None:
    return None if error is None else (type(error), error, None)


def test_a_line_names_its_request_as_sql_does() -> None:
    said = msgspec.json.decode(_Json("hub").format(record()))
    assert said["request_id"] == str(ID)
    assert (said["message"], said["level"], said["process"]) == ("it failed", "error", "hub")
    assert f"request_id={ID}" in _Text("hub").format(record())


@pytest.mark.parametrize("form", [_Json, _Text])
def test_a_requests_exception_is_told_without_its_words(form: type[_Json] | type[_Text]) -> None:
    text = form("hub").format(record(error=ValueError("jane@example.com")))
    assert "ValueError" in text
    assert "jane" not in text


def test_other_exceptions_are_told_in_full() -> None:
    text = _Text("hub").format(record(request=None, error=ValueError("disk on fire")))
    assert "disk on fire" in text


def test_a_path_that_is_no_utf8_can_be_logged() -> None:
    made = logging.LogRecord("x", logging.INFO, "", 0, "a \udcff b", (), None)
    assert msgspec.json.decode(_Json("hub").format(made))["message"] == r"a \udcff b"


def test_settings_are_text_and_info_unless_told() -> None:
    assert LogSettings() == LogSettings(format="text", level="info")


def test_every_line_of_a_server_is_json_when_asked_so(tmp_path: Path) -> None:
    tables = '[log]\nformat = "json"\nlevel = "debug"\n'
    with Served(tmp_path, ACCOUNTS, tables=tables) as served:
        assert click(served.collect, 1) == 204
        assert click(served.collect, 1, token="wrong-secret") == 401
        assert send(served.collect, "GET", "/nowhere?secret=in-the-target")[0] == 404
        served.wait_loaded()
        served.reload()
        assert soon(lambda: "reloaded" in served.log.read_text())
    text = served.log.read_text()
    lines = [msgspec.json.decode(line) for line in text.splitlines()]
    assert {"supervisor"} <= {line["process"] for line in lines}
    assert all({"at", "level", "message", "logger", "pid"} <= set(line) for line in lines)
    for secret in (TOKEN, "wrong-secret", "in-the-target", served.token(), "clicks:event"):
        assert secret not in text


def test_a_level_leaves_out_what_is_below(tmp_path: Path) -> None:
    with Served(tmp_path, ACCOUNTS, tables='[log]\nlevel = "error"\n') as served:
        served.reload()
        assert click(served.collect, 1) == 204
        served.wait_loaded()
    assert served.log.read_text() == "", sys.platform
