"""Who did it, for the rows of one step: attribution, then sessions, then what follows from them.

Three calls around the insert of the rows: `attribute` before it (what the events assert becomes
durable in the registry, the rows get whom they belong to as of now), `settle` after it (the store
is told what has changed about rows that it had). A step that is cut short anywhere is done again:
what was asserted is asserted again, and what was to be told is still in the registry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa

from headwater.accept.request import Request
from headwater.event import Sign
from headwater.gathering import Said
from headwater.resolve.attribution import Attribution, Who
from headwater.resolve.client_sessions import SessionIds, pulse_rows
from headwater.resolve.keys import NOBODY
from headwater.resolve.registry import People
from headwater.resolve.sessions import DERIVED, DerivedSessions, Occasion, Person
from headwater.store.people import PeopleStore
from headwater.store.rows import attributed, keep

_DAY_US = 86_400_000_000


class Spent(msgspec.Struct):
    """Processor seconds of the loading thread since the start, by step; what the store does in
    threads of its own is not in them."""

    attribute: float = 0.0
    sessions: float = 0.0
    settle: float = 0.0


class Identifying:
    """For one thread at a time. `shared` names the dialects whose user ids are one namespace, for
    an account. Methods raise RegistryFailed, StoreError; call again."""

    def __init__(
        self,
        people: People,
        store: PeopleStore,
        sessions: DerivedSessions,
        shared: Callable[[str], frozenset[str]],
    ) -> None:
        self.people = people
        self.store = store
        self.attribution = Attribution(people, store, shared)
        self.sessions = sessions
        self.spent = Spent()
        self._repeated: set[Person] = set()

    def attribute(
        self, rows: pa.RecordBatch, said: Sequence[Said], *, repeated: bool = False
    ) -> pa.RecordBatch:
        """The rows with subject, principal, keys and session; without those of somebody who was
        erased after they were journaled. `repeated`: some of them may be in the store already,
        since a step was cut short."""
        if not rows.num_rows:
            return rows
        began = time.thread_time()
        ids = rows.column(rows.schema.get_field_index("event_id"))
        event_ids = memoryview(ids.buffers()[1])[16 * ids.offset :]
        who = [
            Who(
                one.request.account,
                one.identities,
                one.alias,
                one.ordered_at,
                one.request.received_at,
                one.request.request_id,
                one.index,
                bytes(event_ids[16 * place : 16 * place + 16]),
                one.writer,
                one.batch,
            )
            for place, one in enumerate(said)
        ]
        found = self.attribution.resolve(who)
        middle = time.thread_time()
        self.spent.attribute += middle - began
        if repeated:
            self._repeated |= {
                (one.request.account, person)
                for one, person in zip(said, found.persons, strict=True)
                if one.request.dialect in DERIVED and person != NOBODY
            }
        sessions: list[bytes | None] = [None] * len(said)
        places = [
            place
            for place, one in enumerate(said)
            if one.request.dialect in DERIVED
            and found.persons[place] != NOBODY
            and found.keep[place]
        ]
        occasions = [
            Occasion(
                said[place].request.account,
                said[place].request.dialect,
                said[place].scope,
                found.persons[place],
                said[place].ordered_at,
                who[place].order,
            )
            for place in places
        ]
        for place, session in zip(places, self.sessions.assign(occasions), strict=True):
            sessions[place] = session
        self.spent.sessions += time.thread_time() - middle
        rows = attributed(
            rows,
            subjects=found.subjects,
            principals=found.principals,
            keys=found.keys,
            sessions=sessions,
        )
        return rows if all(found.keep) else keep(rows, found.keep)

    def settle(self) -> None:
        """Tell the store what has changed about its rows; call it once a step's rows are there, and
        at start."""
        began = time.thread_time()
        changed = self.attribution.settle()
        self.sessions.settle(changed | self._repeated)
        self._repeated = set()
        self.attribution.settled()
        self.spent.settle += time.thread_time() - began

    def abandon(self) -> None:
        """The rows of the last `attribute` were not stored."""
        self.sessions.abandon()

    def catch_up(self) -> None:
        """Go on with what the last `settle` had no time for; between two steps."""
        if self.sessions.waiting:
            self.sessions.catch_up()

    def tidy(self, now: int, *, late_days_max: int) -> None:
        """Fold overrides into the rows, and forget sessions that no event can reach any more: none
        comes more than `late_days_max` days late. `now` in microseconds; between two steps."""
        self.store.fold(now)
        self.sessions.forget(now - late_days_max * _DAY_US)

    def pulse(self, signs: Iterable[tuple[Request, Sign]], ids: SessionIds) -> None:
        """Store heartbeats and ends of connections; storing one twice changes nothing."""
        self.store.write_pulses(pulse_rows(signs, ids))

    def suspect(self, keys: Mapping[str, Sequence[bytes]]) -> None:
        """A replay is about to change rows that carry these keys, by account: `recheck` must
        follow, and follows at the next start if it does not."""
        if keys:
            with self.people.transaction():
                for account, ids in keys.items():
                    self.people.suspect(account, ids)

    def recheck(self) -> None:
        """Conclude anew about the keys whose rows a replay was about to change; see
        ``People.suspect``."""
        suspects = self.people.suspects()
        for account, keys in suspects.items():
            self.attribution.recheck(account, keys)
        self.settle()
        if suspects:
            with self.people.transaction():
                self.people.cleared(suspects)

    def withdraw(self, one: bytes, other: bytes, *, at: int) -> None:
        """Withdraw a pair of keys, as of `at` (microseconds): a merge is undone."""
        self.attribution.withdraw(one, other, at=at)
        self.settle()

    def allow(self, one: bytes, other: bytes) -> None:
        """Let a pair of keys assert what it asserts again."""
        self.attribution.allow(one, other)
        self.settle()
