"""Client times: numbers and ISO 8601 text to microseconds, with flags for what is odd."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from headwater.event import Issue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND

#: Below this a number counts seconds, from it on milliseconds: 1e11 ms is March 1973, 1e11 s is
#: the year 5138 (dialects, ambiguity 17).
_SECONDS_BELOW = 1e11
#: Milliseconds of 2001 to 2128, which are nothing else.
_PLAIN_MS_FROM, _PLAIN_MS_TO = 10**12, 5 * 10**12
#: DateTime64(6) holds 1900 to 2299; anything else cannot be stored as a time.
_EARLIEST = -70 * 365 * _DAY
_LATEST = 10_400_000_000 * _SECOND
_NUMERIC = re.compile(r"[+-]?\d+(\.\d+)?")
#: fromisoformat also takes "20261121" and "2026-W47", which no client means as a time
_ISO_START = re.compile(r"[+-]?\d{4,}-\d{2}-\d{2}")


def client_time(value: Any, field: str, received_at: int) -> tuple[int | None, list[Issue]]:
    """The instant in `value`, in microseconds, and what was odd.

    Numbers (and numeric strings) are milliseconds from 1e11 on, else seconds (issue
    ``seconds_assumed``); ISO 8601 text without an offset is UTC (``tz_assumed``). None for an
    absent value (no issue), and for one that is unreadable (``bad_date``) or beyond what the store
    holds (``date_out_of_range``). Flags ``future_date`` (> 24 h ahead of `received_at`) and
    ``old_date`` (> 30 days behind).
    """
    if type(value) is int and _PLAIN_MS_FROM <= value < _PLAIN_MS_TO and received_at:
        micros = value * 1_000  # what most clients send: settled in a tenth of the time
        if -_DAY < received_at - micros < 30 * _DAY:
            return micros, []
    if value is None or value == "":
        return None, []
    issues: list[Issue] = []
    at: int | None = None
    if isinstance(value, str):
        text = value.strip()
        if _NUMERIC.fullmatch(text) and len(text) <= 32:
            value = float(text) if "." in text else int(text)
        else:
            at = _iso(text, field, issues)
    if isinstance(value, int | float) and not isinstance(value, bool):
        at = _number(value, field, issues)
    if at is None:
        return None, [Issue("bad_date", field, _short(value))]
    if not _EARLIEST <= at <= _LATEST:
        return None, [Issue("date_out_of_range", field, _short(value))]
    if received_at:
        if at - received_at > _DAY:
            issues.append(Issue("future_date", field))
        elif received_at - at > 30 * _DAY:
            issues.append(Issue("old_date", field))
    return at, issues


def _number(value: int | float, field: str, issues: list[Issue]) -> int | None:
    if value != value or abs(value) > 1e18:
        return None
    if abs(value) < _SECONDS_BELOW:
        issues.append(Issue("seconds_assumed", field))
        return round(value * _SECOND)
    return value * 1_000 if isinstance(value, int) else round(value * 1_000)


def _iso(text: str, field: str, issues: list[Issue]) -> int | None:
    if not _ISO_START.match(text) or len(text) > 64:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        issues.append(Issue("tz_assumed", field))
        at = at.replace(tzinfo=UTC)
    return (at - _EPOCH) // _MICROSECOND


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 64 else text[:61] + "..."
