"""A loader of drawn histories in a process of its own, to be killed.

``python -m tests.identifying_process FOLDER AIM EVENTS`` loads, about EVENTS events a step. AIM is
a checkpoint and how often it is to be reached (``events:3``); having done so it says ``there`` and
waits to be killed. With ``end`` for AIM it loads everything and writes what a user then sees to
FOLDER/seen.json: twice, the second time with every override folded into the rows.
``shared.json`` in FOLDER holds `shared_user_ids` by account.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from headwater import limits
from headwater.clock import system_clock
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from tests.journaled import Loading

_HOURS_US = 2 * 3_600_000_000
_SEEN = {
    "events": "SELECT event_id, person_id, session_id FROM events",
    "people": "SELECT person_id, toJSONString(properties) FROM people",
    "sessions": "SELECT session_id, person_id, events, derived FROM sessions",
}


def seen(store: Store) -> dict[str, list[list[Any]]]:
    return {name: store.query(sql).rows for name, sql in _SEEN.items()}


def main() -> None:
    folder, aim, events = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    limits.load_events_max = events
    wanted, _, times = aim.partition(":")
    left = int(times or 1)

    def reached(checkpoint: str) -> None:
        nonlocal left
        if checkpoint == wanted:
            left -= 1
            if left == 0:
                print("there", flush=True)
                time.sleep(60)

    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
    sharing: dict[str, list[str]] = json.loads((folder / "shared.json").read_text())
    loading = Loading(
        folder,
        store,
        checkpoint=reached,
        shared=lambda account: frozenset(sharing.get(account, ())),
    )
    loading.all()
    print("done", flush=True)
    if aim == "end":
        first = seen(store)
        PeopleStore(store.writing()).fold(system_clock() + _HOURS_US)
        (folder / "seen.json").write_text(json.dumps([first, seen(store)], default=str))
    loading.close()
    store.close()


if __name__ == "__main__":
    main()
