"""A loader in a process of its own, to be killed: ``python -m tests.loading_process FOLDER AIM``.

Says ``open``, then loads; having reached the checkpoint AIM it says so and waits to be killed. With
``end`` for AIM it loads everything and says what the store holds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from headwater.store.clickhouse import Store
from tests.journaled import Loading


def main() -> None:
    folder, aim = Path(sys.argv[1]), sys.argv[2]
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")

    def reached(checkpoint: str) -> None:
        if checkpoint == aim:
            print(checkpoint, flush=True)
            time.sleep(60)

    loading = Loading(folder, store, checkpoint=reached)
    print("open", flush=True)
    loading.all()
    if aim != "end":
        time.sleep(60)
    for dialect, counts in loading.books().items():
        print(dialect, *counts)
    print("events", *store.query("SELECT count(), uniqExact(event_id) FROM events").rows[0])
    print("names", *store.query("SELECT uniqExact(name) FROM events").rows[0])
    print("rejected", *store.query("SELECT count() FROM rejected").rows[0])
    loading.close()
    store.close()


if __name__ == "__main__":
    main()
