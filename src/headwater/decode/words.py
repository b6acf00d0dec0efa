"""Issues and reasons in words, with where they are written down.

A code is for machines; who looks at one event wants a sentence, and the place where the rule
stands: the section of the dialect's card (`section`) and of its page in docs/ (`page`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """An issue or a reason: as it is stored (`code`, `field`, `detail`), in `words`, and where it
    is written down: the card's `section`, "" for what is no dialect's, and the documentation's
    `page` with its heading as anchor."""

    code: str
    field: str
    detail: str
    words: str
    section: str
    page: str


_ACCEPTED = "what-is-accepted"
_HOLDS = "what-an-event-holds"
_ANSWERS = "answers"


class _Entry(msgspec.Struct, frozen=True):
    """`words` say it for a field, which stands for {field}; `places` are the card's section and the
    page's anchor, by dialect."""

    words: str
    places: Mapping[str, tuple[str, str]]


_TIME = {"nucleus": ("7", _ACCEPTED), "gamooga": ("3", _ACCEPTED), "orbee": ("1", _ACCEPTED)}
_SHAPE = {
    "vaix": ("1", _ACCEPTED),
    "orbee": ("1", _ACCEPTED),
    "nucleus": ("8", _ACCEPTED),
    "vibetrace": ("1", _ACCEPTED),
    "gamooga": ("2", _ACCEPTED),
}
_REFUSED = {
    "vaix": ("2", _ANSWERS),
    "orbee": ("1", _ANSWERS),
    "nucleus": ("8", _ANSWERS),
    "vibetrace": ("2", _ANSWERS),
    "gamooga": ("4", _ANSWERS),
}

_ISSUES = {
    "bad_type": _Entry("{field} is not of the type that is expected; it is kept as sent", _SHAPE),
    "missing_field": _Entry("{field} is missing; the event is stored without it", _SHAPE),
    "bad_location": _Entry(
        "{field} is not of the form widget:type; it is kept as sent", {"vaix": ("1", _HOLDS)}
    ),
    "bad_date": _Entry("{field} cannot be read as a time; the time of arrival counts", _TIME),
    "date_out_of_range": _Entry(
        "{field} is a time that no store can hold; the time of arrival counts", _TIME
    ),
    "seconds_assumed": _Entry(
        "{field} is a small number and was read as seconds, not milliseconds", _TIME
    ),
    "tz_assumed": _Entry("{field} has no time zone and was read as UTC", _TIME),
    "future_date": _Entry("{field} is more than a day ahead of the collector's clock", _TIME),
    "old_date": _Entry("{field} is more than 30 days behind the collector's clock", _TIME),
    "local_as_utc": _Entry(
        "{field} says Z, but Electron clients write their local time so: it may be hours off",
        _TIME,
    ),
    "payload_not_object": _Entry(
        "{field} is no object; it is kept as the property payload", {"nucleus": ("8", _ACCEPTED)}
    ),
    "kept_as_text": _Entry(
        "{field} holds what no store can (a number beyond doubles, too many levels or names); it "
        "is kept as text",
        {"nucleus": ("8", _ANSWERS)},
    ),
    "lone_surrogate": _Entry(
        "the text had half a character; U+FFFD stands in its place", {"nucleus": ("8", _ANSWERS)}
    ),
    "bad_utf8": _Entry(
        "{field} had bytes that are no UTF-8; U+FFFD stands in their place",
        {"vibetrace": ("1", _HOLDS), "gamooga": ("2", _HOLDS)},
    ),
    "type_mismatch": _Entry(
        "the event's type and the path's differ; the event's own counts",
        {"vibetrace": ("1", _ACCEPTED)},
    ),
    "name_conflict": _Entry(
        "{field} and a key beside it have one name; the key beside it counts, the other is kept "
        "among the raw words",
        {"vibetrace": ("1", _HOLDS)},
    ),
    "bad_email": _Entry(
        "{field} is no address; it is kept as sent and names nobody", {"vibetrace": ("3", _HOLDS)}
    ),
    "bad_cookie": _Entry(
        "the cookie {field} is not userId_sessionId_flag_flag", {"vibetrace": ("3", _HOLDS)}
    ),
    "unpaired": _Entry(
        "{field} stands without what belongs to it",
        {"vibetrace": ("3", _HOLDS), "gamooga": ("2", _ACCEPTED)},
    ),
    "empty_name": _Entry("a property of {field} has no name and was left out", _SHAPE),
    "unknown_type": _Entry(
        "the type given for {field} is none of s, n, b; the value is kept as text",
        {"gamooga": ("2", _ACCEPTED)},
    ),
    "nested_value": _Entry(
        "{field} is an object or a list; it is stored as it is", {"gamooga": ("2", _ACCEPTED)}
    ),
    "plan": _Entry("the account's tracking plan asks for something else", {}),
}

_REASONS = {
    "bad_json": _Entry("what should be JSON cannot be read as JSON", _REFUSED),
    "bad_body": _Entry("the JSON has another shape than this dialect's events", _REFUSED),
    "bad_utf8": _Entry("the message is not UTF-8", _REFUSED),
    "bad_encoding": _Entry("the body cannot be inflated as its Content-Encoding says", _REFUSED),
    "bad_field": _Entry("a field has a value that cannot be taken", _REFUSED),
    "missing_field": _Entry("a field is missing that an event cannot be without", _REFUSED),
    "missing_name": _Entry("the event has no name, and its type needs one", _REFUSED),
    "missing_client_id": _Entry("the header x-vaix-client-id is missing or empty", _REFUSED),
    "group_not_allowed": _Entry("the token may not write this client group", _REFUSED),
    "too_early": _Entry("it was sent in TLS early data, which anybody may repeat", _REFUSED),
    "unknown_event_type": _Entry(
        "the event type is not of the form verb:object, or not on the account's list", _REFUSED
    ),
    "undecodable": _Entry("the decoder failed: a bug of ours; a replay after its fix helps", {}),
    "refused_at_arrival": _Entry(
        "it was answered as refused; by the rules of today it would be taken, and a replay takes "
        "it",
        {},
    ),
    "plan_violation": _Entry("the account's tracking plan refuses it", {}),
}
#: Whose pages are no dialect's.
_PAGES = {
    "plan": "docs/tracking-plan.md",
    "plan_violation": "docs/tracking-plan.md",
    "undecodable": "docs/operating.md#after-a-decoder-was-mended",
    "refused_at_arrival": "docs/operating.md#after-a-decoder-was-mended",
}


def issue(dialect: str, text: str) -> Said:
    """An issue as it is stored (``code: field: detail``), in words."""
    code, field, detail = (*text.split(": ", 2), "", "")[:3]
    if code == "plan":  # a text of its own, without a field
        field, detail = "", text.partition(": ")[2]
    return _said(_ISSUES, dialect, code, field, detail)


def reason(dialect: str, code: str, detail: str) -> Said:
    """Why something was rejected, in words."""
    return _said(_REASONS, dialect, code, "", detail)


def _said(table: Mapping[str, _Entry], dialect: str, code: str, field: str, detail: str) -> Said:
    entry = table.get(code)
    if entry is None:
        return Said(code=code, field=field, detail=detail, words=code, section="", page="")
    section, anchor = entry.places.get(dialect, ("", _ACCEPTED))
    return Said(
        code=code,
        field=field,
        detail=detail,
        words=entry.words.replace("{field}", field or "a value"),
        section=section,
        page=_PAGES.get(code, f"docs/dialects/{dialect}.md#{anchor}"),
    )
