"""R7, R9, R11: a hub that stands still, clocks that step and clients' odd times, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.faults.clients import APPS, CONFIG, request
from tests.faults.kill import FAKETIME, check, faked, under_load
from tests.faults.ledger import Ledger
from tests.faults.schedule import DAY, turn_clock, workers_and_hub
from tests.faults.watching import date, metric, post, shares, successes, until
from tests.served import Served
from tests.trust.serving import FULL

STILL_SECONDS = 20.0
STOP_SECONDS_MAX = 30.0
_WATERMARKS = """
import sys
from pathlib import Path
from headwater.store.clickhouse import Store
folder = Path(sys.argv[1])
store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
sql = "SELECT writer, step, last FROM headwater_store.loads WHERE folded = 0 ORDER BY writer, step"
for row in store.writing().rows(sql):
    print(*row)
store.close()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    kept = Ledger(tmp_path / "ledger")
    yield kept
    kept.close()


@pytest.mark.timeout(240)
def a_hub_that_stands_still_is_not_noticed_by_clients(tmp_path: Path, ledger: Ledger) -> None:
    async def work() -> None:
        await until(lambda: successes(ledger) > 200)
        before = shares(ledger, 0.0)
        _, (hub,) = workers_and_hub(served)
        os.kill(hub, signal.SIGSTOP)
        since = time.monotonic()
        await asyncio.sleep(STILL_SECONDS)
        during = shares(ledger, since)
        os.kill(hub, signal.SIGCONT)
        assert (during.refused, during.lost) == (0, 0)
        assert during.successes > 100
        assert during.p99 < 3 * before.p99 + 0.1

        async def caught_up() -> bool:
            return await metric(served, "headwater_loader_lag_seconds") < 1.5

        await until(caught_up)

    with Served(tmp_path, CONFIG) as served:
        asyncio.run(under_load(served, ledger, work()))
        assert check(served, ledger) == []


@pytest.mark.timeout(240)
def a_clock_that_steps_by_a_day(tmp_path: Path, ledger: Ledger) -> None:
    """R9: forth and back, under load; and what clients say the time is."""
    if not FAKETIME.exists():
        pytest.skip("libfaketime is missing (Debian: apt-get install faketime)")
    clock = tmp_path / "clock"
    dates = {
        **{"1970": 0.001, "2999": 32_472_144_000_000, "huge": 1e300},
        **{"nan": "NaN", "text": "soon"},
    }

    async def turned(turn: int) -> bool:
        said = await date(served)
        return abs((said - datetime.now(UTC)).total_seconds() - turn) < DAY / 4

    def enough(since: float) -> bool:
        return successes(ledger, since) > 50

    async def work() -> None:
        for turn in (DAY, 0, -DAY, 0):
            turn_clock(clock, turn)
            # libfaketime looks once a second, and the answer's Date is renewed as often.
            await until(partial(turned, turn))
            await until(partial(enough, time.monotonic()))
        data = [
            {"type": "event", "name": name, "id": name, "date": date, "sessionId": 1}
            for name, date in dates.items()
        ]
        body = json.dumps({"data": data}).encode()
        assert post(served, request("POST", f"/app/{APPS['other']}/track", body)) == 200

    with Served(tmp_path, CONFIG, prefix=faked(clock)) as served:
        asyncio.run(under_load(served, ledger, work()))
        assert check(served, ledger) == []
        rows = served.query(
            "SELECT name, toYear(occurred_at) AS year, toYear(received_at) AS now, issues"
            " FROM events WHERE name IN ('1970', '2999', 'nan', 'huge', 'text')"
        )
        found = {row["name"]: row for row in rows}
        days = served.query("SELECT uniqExact(toDate(received_at)) AS days FROM events")
    assert found.keys() == dates.keys()
    assert found["1970"]["year"] == 1970
    for name, issue in (("1970", "old_date"), ("2999", "range"), ("nan", "bad_date")):
        assert any(issue in one for one in found[name]["issues"]), found[name]
    for name in ("2999", "nan", "huge", "text"):
        assert found[name]["year"] == found[name]["now"], "the time of arrival counts"
    assert int(days[0]["days"]) >= 3, "the clock did step"
    done = subprocess.run(
        [sys.executable, "-c", _WATERMARKS, str(served.data)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    marks: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        writer, _, last = line.split()
        marks.setdefault(writer, []).append(int(last))
    assert marks
    assert all(lasts == sorted(lasts) for lasts in marks.values()), "a watermark went back"


if FULL:  # in small: a store without room (test_disk.py), clocks in CI's stage of kill -9
    test_a_hub_that_stands_still = a_hub_that_stands_still_is_not_noticed_by_clients
    test_a_clock_that_steps_by_a_day = a_clock_that_steps_by_a_day


@pytest.mark.timeout(240)
def test_sigterm_under_load(tmp_path: Path, ledger: Ledger) -> None:
    """R11: what was accepted is answered: nothing is kept whose client was not told."""
    took = 0.0
    status = -1

    async def work() -> None:
        nonlocal took, status
        await until(lambda: successes(ledger) > 500)
        began = time.monotonic()
        status = await asyncio.to_thread(served.stop)
        took = time.monotonic() - began

    served = Served(tmp_path, CONFIG, workers=2)
    served.start()
    try:
        asyncio.run(under_load(served, ledger, work(), patient=False))
    finally:
        served.kill()
    assert status == 0
    assert took < STOP_SECONDS_MAX
    with Served(tmp_path, CONFIG, workers=2) as again:
        assert check(again, ledger) == []
        rows = again.query(
            "SELECT splitByRegexp('[:]', toString(name))[-1] AS mark FROM events"
            " WHERE dialect IN ('vaix', 'orbee', 'vibetrace', 'gamooga') AND name != ''"
        )
    promised = ledger.promised()
    kept = {row["mark"] for row in rows}
    assert kept & promised.doubtful == set(), "kept, and its client was not told"
    assert len(kept & promised.acknowledged) > 200
