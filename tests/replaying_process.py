"""A replay in a process of its own, to be killed: ``python -m tests.replaying_process FOLDER AIM``.

``load`` loads the journal. ``end`` finishes what was cut short and says what the store holds. Any
other AIM is the beginning of a statement: the replay, by a decoder that changes each event, says
``there`` once such a statement has run, and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from headwater.decode import nucleus
from headwater.event import Decoded
from headwater.replay import finish_interrupted, replay
from headwater.store.clickhouse import EVENTS, Store
from tests.journaled import Loading, with_decode


def _decode(request: Any, rules: Any) -> Decoded:
    decoded = nucleus.decode(request, rules)
    for event in decoded.events:
        event.properties["by"] = "mended"
    return decoded


def _wait_after(store: Store, aim: str) -> None:
    writing = store.writing()
    command, insert = writing.command, writing.insert

    def there() -> None:
        print("there", flush=True)
        time.sleep(60)

    def watched_command(sql: str) -> None:
        command(sql)
        if sql.startswith(aim) and (EVENTS in sql or "replays" in aim):
            there()

    def watched_insert(table: str, batch: Any, *, token: str = "") -> None:
        insert(table, batch, token=token)
        if aim in table:
            there()

    writing.command = watched_command  # type: ignore[method-assign]
    writing.insert = watched_insert  # type: ignore[method-assign]


def main() -> None:
    folder, aim = Path(sys.argv[1]), sys.argv[2]
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
    if aim == "load":
        Loading(folder, store).all()
        return
    mended = Loading(folder, store, dialects=tuple(with_decode(nucleus, _decode)))
    if aim != "end":
        finish_interrupted(mended.loader)
        # Undone, so that there is something to rewrite again.
        replay(Loading(folder, store).loader, since=0)
        _wait_after(store, aim)
        replay(mended.loader, since=0)
        return
    finish_interrupted(mended.loader)
    replay(mended.loader, since=0)
    (found,) = store.query(
        "SELECT count(), uniqExact(event_id), uniqExact(name), any(properties.by::String) "
        "FROM events"
    ).rows
    print(*found, *mended.books()["nucleus"])


if __name__ == "__main__":
    main()
