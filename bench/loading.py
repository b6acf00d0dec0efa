"""The loading half of bench.load, in a process of its own:
`python -m bench.loading KIND EVENTS REGISTRY_KEYS`.

It fills a journal with requests of one kind, then the hub's own loader works it off, with a watch
on its collaborators. chDB wants a process of its own, and the caller pins it to one core before
chDB counts the cores. Prints the JSON of a :class:`Loaded`.
"""

from __future__ import annotations

import asyncio
import sys
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import traffic
from bench.crowd import fill_registry
from bench.scratch import scratch
from bench.traffic import Make, Wire
from headwater.accept.accounts import Accounts
from headwater.accept.request import Dialect, Request
from headwater.accept.routes import Router
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from headwater.identifying import Identifying, Spent
from headwater.journal.sqlite import SqliteReader, SqliteWriter
from headwater.loader import Loader
from headwater.resolve.enrichment import Enrichment
from headwater.resolve.sessions import DerivedSessions
from headwater.resolve.sqlite import SqliteRegistry
from headwater.resolve.sqlite_people import SqlitePeople
from headwater.resolve.sqlite_sessions import SqliteSessions
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore

OUTSTANDING = 512


class Kind(msgspec.Struct, frozen=True):
    """One kind of request in the journal, of `events` events each."""

    name: str
    make: Make
    events: int = 1


KINDS = (
    Kind("VAIX", traffic.vaix),
    Kind("Orbee", traffic.orbee),
    Kind("Vibetrace", traffic.vibetrace),
    Kind("Gamooga GET", traffic.gamooga_get),
    Kind("Nucleus, 1 event", traffic.nucleus(1)),
    Kind("Nucleus, 10 events", traffic.nucleus(10), 10),
    Kind("Nucleus, 100 events", traffic.nucleus(100), 100),
)
MIX = "mix"
#: The mix from people who are all known, and from people of whom each request is the first.
MIX_KNOWN = "mix, known people"
MIX_NEW = "mix, new people"
MIX_CROWD = "mix, new people, large registry"
#: Events of each kind in ten of the mix; half arrive alone, half in batches of ten.
SHARES = (2, 1, 1, 1, 0, 5, 0)
KNOWN_PEOPLE = 500
#: Enough for every one of them in every kind of the mix.
_KNOWN_EVENTS = 24 * KNOWN_PEOPLE


class Loaded(msgspec.Struct, frozen=True):
    """What loading one journal took, by the clock and of the processor; `steps` by the clock."""

    events: int
    seconds: float
    cpu_seconds: float
    steps: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


def requests_of(name: str, events: int, first: int) -> Iterable[tuple[Request, int]]:
    """Requests of one kind, or of the mix, and how many events each has; ids count from `first`."""
    router = Router(DIALECTS)
    mixed = name.startswith(MIX)
    who = mixed and name != MIX
    number = first
    done = 0
    while done < events:
        for kind, share in zip(KINDS, SHARES, strict=True):
            chosen = share * 10 // kind.events if mixed else int(name == kind.name)
            for _ in range(chosen):
                number += 1
                person = number % KNOWN_PEOPLE if name == MIX_KNOWN else number
                wire = kind.make(number, person) if who else kind.make(number)
                yield _request(router, wire, number), kind.events
                done += kind.events


def _request(router: Router, wire: Wire, number: int) -> Request:
    match = router.match(wire.target.partition("?")[0])
    assert match is not None
    at = system_clock()
    return Request(
        dialect=match.dialect.NAME,
        method=wire.method,
        target=wire.target,
        endpoint=match.endpoint,
        params=dict(match.params),
        headers={name.lower(): value for name, value in wire.headers if name != "Authorization"},
        body=wire.body,
        peer="127.0.0.1",
        account="bench",
        received_at=at,
        request_id=(at // 1_000).to_bytes(6, "big") + number.to_bytes(10, "big"),
        state="k3v9q0t1x7m2b5za" if match.dialect.NAME == "gamooga" else "",
    )


#: More than the ids of what is loaded before the measurement.
_WARM_IDS = 20_000


async def fill(folder: Path, name: str, events: int, *, first: int = 0) -> int:
    """Write more of a journal; how many events."""
    loop = asyncio.get_running_loop()
    writer = SqliteWriter(folder, 1, loop=loop, clock=system_clock)
    done = 0
    room = asyncio.Semaphore(OUTSTANDING)
    failed: list[Exception] = []

    def durable(error: Exception | None) -> None:
        room.release()
        if error is not None:
            failed.append(error)

    for request, count in requests_of(name, events, first):
        await room.acquire()
        writer.append(request, count, durable)
        done += count
    await writer.close()
    if failed:
        raise failed[0]
    return done


class Timed:
    """Passes everything on to an object, and adds up the time that some of its methods take."""

    def __init__(self, aim: Any, steps: dict[str, float], **names: str) -> None:
        self._aim = aim
        for method, step in names.items():
            setattr(self, method, _timed(getattr(aim, method), steps, step))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aim, name)


def _timed(function: Callable[..., Any], steps: dict[str, float], step: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            steps[step] = steps.get(step, 0.0) + time.perf_counter() - began

    return call


def _timed_dialect(dialect: Dialect, steps: dict[str, float]) -> Any:
    copy = types.SimpleNamespace(**{name: getattr(dialect, name) for name in dir(dialect)})
    copy.decode = _timed(dialect.decode, steps, "decode")
    return copy


def load_all(folder: Path, name: str, events: int, registry_keys: int) -> Loaded:
    """Fill a journal, then work it off with the hub's own loader. `registry_keys` are known before
    where the kind is about that."""
    for part in ("journal", "registry", "store", "tmp"):
        (folder / part).mkdir()
    # A first few, outside the measurement: what is compiled or made once.
    before = _KNOWN_EVENTS if name == MIX_KNOWN else 100
    warm = uvloop.run(fill(folder / "journal", name, before))
    if name == MIX_CROWD:
        fill_registry(folder / "registry", registry_keys)
    steps: dict[str, float] = {}
    store = Store(f"chdb://{folder / 'store'}", tmp=folder / "tmp")
    registry = SqliteRegistry(folder / "registry", system_clock)
    reader = SqliteReader(folder / "journal")
    accounts = Accounts({}, public_host="", clock=system_clock)
    people = PeopleStore(store.writing())
    sessions = DerivedSessions(SqliteSessions(folder / "registry"), people, idle_minutes=30)
    identifying = Identifying(
        SqlitePeople(folder / "registry"), people, sessions, lambda account: frozenset()
    )
    timed_store = Timed(
        store, steps, insert_events="insert", insert_rejected="insert", insert_loads="watermark"
    )
    loader = Loader(
        reader=Timed(reader, steps, read="read the journal"),
        dialects=tuple(_timed_dialect(dialect, steps) for dialect in DIALECTS),
        accounts=lambda: accounts,
        enrich=_timed(Enrichment().enrich, steps, "enrich"),
        seen=Timed(registry, steps, claim="duplicates"),
        identifying=identifying,
        store=timed_store,  # type: ignore[arg-type]
        clock=system_clock,
    )
    while loader.step():
        pass
    # Later than what came before, as it would be: dates count on with the ids.
    expected = uvloop.run(fill(folder / "journal", name, events, first=_WARM_IDS))
    steps.clear()
    identifying.spent = Spent()
    began, used = time.perf_counter(), time.process_time()
    while loader.step():
        pass
    took, used = time.perf_counter() - began, time.process_time() - used
    (stored,) = store.query("SELECT count() FROM events").rows[0]
    if int(stored) != warm + expected:
        raise RuntimeError(f"{stored} events stored of {warm + expected}")
    steps |= {
        "who": identifying.spent.attribute,
        "sessions": identifying.spent.sessions,
        "settle": identifying.spent.settle,
    }
    steps["rows and the rest"] = took - sum(steps.values())
    store.close()
    return Loaded(expected, took, used, steps)


def main() -> None:
    kind, events, registry_keys = sys.argv[1:]
    with scratch() as folder:
        loaded = load_all(folder, kind, int(events), int(registry_keys))
    sys.stdout.buffer.write(msgspec.json.encode(loaded) + b"\n")


if __name__ == "__main__":
    main()
