"""A store in a process of its own: ``python -m tests.store.reopening_process FOLDER STEP``.

``old`` makes a store of schema version 1 with a row; ``learn`` opens it with this Headwater, stores
two events and learns who did them; ``show`` says what the views show.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headwater.store import schema
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from tests.store.made import AT, an_id, insert_by, make_event

OLD_ROW = (
    "INSERT INTO headwater_store.events_rows (event_id, account, name, occurred_at, received_at, "
    "identities) VALUES (generateUUIDv4(), 'acme', 'old', '2026-11-20 00:00:00', "
    "'2026-11-21 00:00:00', [('nucleus:user', 'app', 'u0', 'strong', false)])"
)


def main() -> None:
    folder, step = Path(sys.argv[1]), sys.argv[2]
    every = schema.schema_files
    if step == "old":
        schema.schema_files = lambda: every()[:1]
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
    if step == "old":
        store.writing().command(OLD_ROW)
    elif step == "learn":
        people = PeopleStore(store.writing())
        insert_by(store, make_event(occurred_at=AT, name="one"), subject=an_id(1))
        insert_by(store, make_event(occurred_at=AT + 1, name="two"), subject=an_id(2))
        people.write_attributions([(an_id(1), [(b"", an_id(3))])])
        people.write_aliases([(an_id(2), an_id(3))])
    else:
        for name, person, ordered in store.query(
            "SELECT name, person_id, occurred_at FROM events ORDER BY occurred_at"
        ).rows:
            print(name, person, ordered.date())
        sql = "SELECT keys, ordered_at = occurred_at FROM headwater_store.events_rows "
        print(*store.writing().rows(sql + "WHERE name = 'old'")[0])
        print(*store.query("SELECT count(), sum(events) FROM people").rows[0])
    store.close()


if __name__ == "__main__":
    main()
