"""What the People pages show, as SQL on the public views.

The pages themselves ask for one person by the store's filters (``headwater.person_rows``), which
takes as long with a billion events; these say the same of the same person, and are what stands
behind "SQL" there.
"""

from __future__ import annotations

from headwater import limits
from headwater.store.questions.fields import literal


def newest(account: str = "") -> str:
    """Who acted last."""
    where = f"WHERE account = {literal(account)}\n" if account else ""
    return (
        "SELECT account, person_id, first_seen, last_seen, events\nFROM people\n"
        f"{where}ORDER BY last_seen DESC, person_id\nLIMIT {limits.people_page_max}"
    )


def carriers(value: str, account: str = "") -> str:
    """Who carries an identifier of that value."""
    where = f" AND account = {literal(account)}" if account else ""
    return (
        "SELECT account, person_id, one.namespace AS namespace, one.value AS value,\n"
        "    min(occurred_at) AS first_seen, max(occurred_at) AS last_seen, count() AS events\n"
        f"FROM events\nARRAY JOIN identities AS one\nWHERE one.value = {literal(value)}"
        f" AND person_id IS NOT NULL{where}\n"
        "GROUP BY account, person_id, namespace, value\nORDER BY last_seen DESC"
    )


def timeline(person: str, *, dialect: str = "", kind: str = "", name: str = "") -> str:
    """A person's events, the newest first."""
    about = {"dialect": dialect, "kind": kind, "name": name}
    more = "".join(f" AND {of} = {literal(value)}" for of, value in about.items() if value)
    return (
        "SELECT occurred_at, dialect, kind, name, session_id, event_id, issues\nFROM events\n"
        f"WHERE person_id = {literal(person)}{more}\n"
        f"ORDER BY occurred_at DESC\nLIMIT {limits.person_events_page_max}"
    )


def about(person: str) -> dict[str, str]:
    """The parts of a person's page, by their names there."""
    whose = f"WHERE person_id = {literal(person)}"
    return {
        "person": f"SELECT * EXCEPT (properties, identities)\nFROM people\n{whose}",
        "identities": f"SELECT *\nFROM identities\n{whose}\nORDER BY last_seen DESC",
        # Named by the events first: the view alone would put together everybody's.
        "sessions": (
            f"SELECT *\nFROM sessions\n{whose}\n"  # noqa: S608
            f"    AND session_id IN (SELECT session_id FROM events {whose})\n"
            "ORDER BY started_at DESC"
        ),
        "profile": f"SELECT properties\nFROM people\n{whose}",
        "history": f"SELECT *\nFROM profile_history\n{whose}\nORDER BY at DESC",
        "merges": (
            f"SELECT *\nFROM merges\nWHERE kept = {literal(person)} OR gone = {literal(person)}\n"
            "ORDER BY at DESC"
        ),
    }


def merges(account: str = "") -> str:
    """Which two became one, the latest first."""
    where = f"WHERE account = {literal(account)}\n" if account else ""
    return f"SELECT *\nFROM merges\n{where}ORDER BY at DESC\nLIMIT {limits.merges_shown_max}"
