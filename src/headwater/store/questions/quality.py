"""What the quality page asks: what was rejected, what was odd, what breaks the tracking plan, which
names and property types there are, and whether the books close.

`account` "" is all accounts; `days` is how far back, 0 for ever. Texts come from users and clients.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.store.questions.fields import literal

#: A new path or type counts as new for so long; one that is not seen for so long is gone.
DRIFT_DAYS = 7
#: Rows of a list that a page shows.
_LISTED = 500
_SAMPLES = 20
_DRAFTED = 20_000
#: Shown of a request; the row has up to 64 KiB.
_REQUEST_CHARS = 16_000
#: A new name has new paths for a day without any of them being a change.
_SETTLED = "INTERVAL 1 DAY"


def rejected_over_time(account: str, days: int) -> str:
    """By step of time and reason: `at`, `reason`, `rejected`."""
    return (
        f"SELECT {_step('received_at', days)} AS at, reason, count() AS rejected\n"
        f"FROM rejected{_where(_account(account), _since('received_at', days))}\n"
        "GROUP BY at, reason\nORDER BY at, reason"
    )


def reasons(account: str, days: int) -> str:
    """What was rejected, by account, dialect and reason, with first and last time."""
    return (
        "SELECT account, dialect, reason, count() AS rejected, min(received_at) AS first_seen,\n"
        "    max(received_at) AS last_seen\n"
        f"FROM rejected{_where(_account(account), _since('received_at', days))}\n"
        f"GROUP BY account, dialect, reason\nORDER BY rejected DESC\nLIMIT {_LISTED}"
    )


def rejected_samples(account: str, dialect: str, reason: str, days: int) -> str:
    """The latest requests that were rejected for a reason, readable."""
    conditions = (
        _account(account),
        f"dialect = {literal(dialect)}" if dialect else "",
        f"reason = {literal(reason)}",
        _since("received_at", days),
    )
    return (
        "SELECT request_id, account, dialect, received_at, reason, detail,\n"
        f"    substringUTF8(request, 1, {_REQUEST_CHARS}) AS request\n"
        f"FROM rejected{_where(*conditions)}\n"
        f"ORDER BY received_at DESC\nLIMIT {_SAMPLES}"
    )


def issues_over_time(account: str, days: int) -> str:
    """By step of time and kind of issue: `at`, `issue`, `events`."""
    return (
        f"SELECT {_step('received_at', days)} AS at,\n"
        "    splitByChar(':', text)[1] AS issue, count() AS events\n"
        "FROM events\nARRAY JOIN issues AS text"
        f"{_where(_account(account), _since('received_at', days))}\n"
        "GROUP BY at, issue\nORDER BY at, issue"
    )


def issues(account: str, days: int) -> str:
    """What was odd about events that were accepted, by text."""
    return (
        "SELECT account, dialect, issue, count() AS events, min(received_at) AS first_seen,\n"
        "    max(received_at) AS last_seen\n"
        "FROM events\nARRAY JOIN issues AS issue"
        f"{_where(_account(account), _since('received_at', days))}\n"
        f"GROUP BY account, dialect, issue\nORDER BY events DESC\nLIMIT {_LISTED}"
    )


def issue_samples(account: str, dialect: str, issue: str, days: int) -> str:
    """The latest events with an issue of that text."""
    conditions = (
        _account(account),
        f"dialect = {literal(dialect)}" if dialect else "",
        f"has(issues, {literal(issue)})",
        _since("received_at", days),
    )
    return (
        "SELECT event_id, request_id, account, dialect, name, received_at, issues, properties\n"
        f"FROM events{_where(*conditions)}\n"
        f"ORDER BY received_at DESC\nLIMIT {_SAMPLES}"
    )


def names(account: str, days: int) -> str:
    """The names seen: how many events, when first and last."""
    return (
        "SELECT account, dialect, name, count() AS events, min(received_at) AS first_seen,\n"
        "    max(received_at) AS last_seen\n"
        f"FROM events{_where(_account(account), _since('received_at', days))}\n"
        f"GROUP BY account, dialect, name\nORDER BY events DESC\nLIMIT {_LISTED}"
    )


def properties(account: str, dialect: str, name: str) -> str:
    """The types of each property of a name, from the profile: `seen` is how many events had it,
    about, `share` how many of its name's. `mixed`: it has more than one type (integer and number
    count as one); `fresh`: it, or that type, is new; `gone`: the name is still seen, and it is not.
    The row without a path is the event itself."""
    of_dialect = f"dialect = {literal(dialect)}" if dialect else ""
    return _properties((_account(account), of_dialect, f"name = {literal(name)}"), "", 4 * _LISTED)


def drift(account: str) -> str:
    """The same of every name, only what drifts."""
    drifting = "\nWHERE path != '' AND (mixed OR fresh OR gone)"
    return _properties((_account(account),), drifting, _LISTED)


def all_properties(account: str) -> str:
    """The same, all of an account's."""
    return _properties((_account(account),), "", _DRAFTED)


def _properties(conditions: Sequence[str], drifting: str, rows: int) -> str:
    name_of = "PARTITION BY account, dialect, name"
    return (
        "SELECT account, dialect, name, path, type, first_seen, last_seen, seen,\n"  # noqa: S608
        "    seen / greatest(of_name, seen) AS share, mixed, fresh, gone\n"
        "FROM\n(\n"
        "    SELECT *, max(if(path = '', seen, 0)) OVER ("
        f"{name_of}) AS of_name,\n"
        "        length(groupUniqArray(if(type = 'integer', 'number', type))\n"
        f"            OVER ({name_of}, path)) > 1 AS mixed,\n"
        f"        first_seen > now() - INTERVAL {DRIFT_DAYS} DAY\n"
        f"            AND first_seen > min(first_seen) OVER ({name_of}) + {_SETTLED} AS fresh,\n"
        f"        last_seen < max(last_seen) OVER ({name_of})"
        f" - INTERVAL {DRIFT_DAYS} DAY AS gone\n"
        "    FROM\n    (\n"
        "        SELECT account, dialect, name, path, type, min(types.first_seen) AS first_seen,\n"
        "            max(types.last_seen) AS last_seen, sum(types.seen) AS seen\n"
        f"        FROM property_types AS types{_where(*conditions)}\n"
        "        GROUP BY account, dialect, name, path, type\n"
        f"    )\n){drifting}\n"
        f"ORDER BY account, dialect, name, path, seen DESC\nLIMIT {rows}"
    )


def violations_over_time(account: str, days: int) -> str:
    """Events that broke the plan, by day and mode."""
    return (
        "SELECT day, mode, sum(violations.events) AS events\n"
        f"FROM plan_violations AS violations{_where(_account(account), _day_since(days))}\n"
        "GROUP BY day, mode\nORDER BY day, mode"
    )


def violations(account: str, days: int) -> str:
    """What broke the plan, by name, mode and rule, with the last request that did."""
    return (
        "SELECT account, dialect, name, mode, rule, sum(violations.events) AS events,\n"
        "    min(violations.first_seen) AS first_seen, max(violations.last_seen) AS last_seen,\n"
        "    argMax(violations.request_id, violations.last_seen) AS request_id\n"
        f"FROM plan_violations AS violations{_where(_account(account), _day_since(days))}\n"
        "GROUP BY account, dialect, name, mode, rule\n"
        f"ORDER BY events DESC\nLIMIT {_LISTED}"
    )


def events_of_request(request_id: str, at: str) -> str:
    """What became of a request, received at about a time (text, UTC): its stored events."""
    return (
        "SELECT event_id, account, dialect, name, received_at, issues, properties\n"
        f"FROM events{_where(_request(request_id), *_about(at))}\nLIMIT {_SAMPLES}"
    )


def rejected_of_request(request_id: str, at: str) -> str:
    """The same: what of it was rejected."""
    return (
        "SELECT account, dialect, received_at, reason, detail,\n"
        f"    substringUTF8(request, 1, {_REQUEST_CHARS}) AS request\n"
        f"FROM rejected{_where(_request(request_id), *_about(at))}\nLIMIT {_SAMPLES}"
    )


def books(account: str) -> str:
    """The books, and whether they close."""
    return (
        "SELECT account, dialect, received, stored, duplicate, rejected, in_flight,\n"
        "    received = stored + duplicate + rejected + in_flight AS closes\n"
        f"FROM accounting{_where(_account(account))}\nORDER BY account, dialect"
    )


# --- conditions ---------------------------------------------------------------------------------


def _where(*conditions: str) -> str:
    given = [one for one in conditions if one]
    return f"\nWHERE {' AND '.join(given)}" if given else ""


def _account(account: str) -> str:
    return f"account = {literal(account)}" if account else ""


def _since(column: str, days: int) -> str:
    return f"{column} > now() - INTERVAL {int(days)} DAY" if days else ""


def _day_since(days: int) -> str:
    return f"day > today() - {int(days)}" if days else ""


def _step(column: str, days: int) -> str:
    if 0 < days <= 2:
        return f"toStartOfHour({column})"
    if 0 < days <= 10:
        return f"toStartOfInterval({column}, INTERVAL 6 HOUR)"
    return f"toStartOfDay({column})"


def _request(request_id: str) -> str:
    return f"request_id = {literal(request_id)}"


def _about(at: str) -> Sequence[str]:
    """The day's rows only: request ids are no key."""
    moment = f"toDateTime64({literal(at)}, 6, 'UTC')"
    return (
        f"received_at >= {moment} - INTERVAL 1 SECOND",
        f"received_at <= {moment} + INTERVAL 1 SECOND",
    )
