"""How Headwater's processes log: lines on standard error, as text or as JSON.

The supervisor reads `[log]` and sends it to its children with the rest of the configuration. A line
that belongs to a request says so in ``extra={"request_id": …}``, the 16 bytes that
`events.request_id` shows as a UUID; then an exception is given without its words, which may quote
what a client has sent. Nothing logs a token, a header or a body.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from uuid import UUID

import msgspec

from headwater.config import LogSettings

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_Exception = tuple[type[BaseException], BaseException, TracebackType | None]


def configure(settings: LogSettings, process: str) -> None:
    """Log so from now on, every library's lines too. `process` names this one: ``hub``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(process) if settings.format == "json" else _Text(process))
    logging.basicConfig(level=_LEVELS[settings.level], handlers=[handler], force=True)
    logging.captureWarnings(True)


def request_of(record: logging.LogRecord) -> str:
    """The id of the request that a line belongs to, as SQL shows it; empty for none."""
    found = getattr(record, "request_id", None)
    return str(UUID(bytes=found)) if isinstance(found, bytes) and len(found) == 16 else ""


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _exception(found: _Exception, *, words: bool) -> str:
    """A traceback, without the exceptions' own words unless they are wanted."""
    if words:
        return "".join(traceback.format_exception(*found)).rstrip()
    frames = "".join(traceback.format_tb(found[2])).rstrip()
    return f"{frames}\n{found[0].__name__}" if frames else found[0].__name__


def _traced(record: logging.LogRecord) -> str:
    found = record.exc_info
    if not found or found[0] is None:
        return ""
    return _exception(found, words=not hasattr(record, "request_id"))


class _Text(logging.Formatter):
    """Time, level, process, logger, message; the request at its end."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        request, traced = request_of(record), _traced(record)
        name = record.name.removeprefix("headwater.")
        text = f"{_at(record)} {record.levelname} [{self._process}] {name}: {record.getMessage()}"
        if request:
            text += f" request_id={request}"
        return f"{text}\n{traced}" if traced else text


class _Json(logging.Formatter):
    """One object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_of(record):
            said["request_id"] = request
        if traced := _traced(record):
            said["exception"] = traced
        # A path may hold bytes that are no UTF-8, which Python shows as lone surrogates.
        return msgspec.json.encode({key: _encodable(value) for key, value in said.items()}).decode()


def _encodable(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
