"""Erasing a person: no trace in the data folder but tombstones and the receipt.

Theory of operation. First it is found out what is to go: the keys that are the person's and nobody
else's, the rows that a reader sees as the person's and those that wait with such a key, the
rejected rows and the journaled requests that carry one. That takes a while, so it is done beside
the loader; only what came in meanwhile is looked at with the loader paused. Still within that pause
the erasure is written down (``registry.Erasure``: places and hashes, no identifier) and the keys
are buried: what is loaded from then on is somebody new, and a replay of what was journaled before
stores nothing that carries them.

Everything after that follows what was written down, in any number of tries. A kill leaves an
erasure that has begun; the next start finishes it: the tombstones before anything is loaded, the
rest beside the loader.

A key that others have had too (a browser in a library) is not buried: the person's events go, those
of the others stay, and whose it is is concluded anew. A request that carries events of several
people is wholly taken out of the journal; the others' rows stay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Erased, Request
from headwater.carrying import Carrying, Identifier
from headwater.errors import HeadwaterError, JournalDamaged, NotFound
from headwater.journal.journal import Batch, Eraser, Position
from headwater.loader import Loader
from headwater.replay import one_at_a_time
from headwater.resolve.keys import BOUND, BROWSER, key_id, reborn
from headwater.resolve.registry import Erasure, Erasures, Record, Visitors
from headwater.store.erasing import StoreErasing
from headwater.store.forgetting import RequestPlace, StoreForgetting
from headwater.store.rows import Place, event_ids, uuid_text

log = logging.getLogger("headwater.erasing")

#: Told how far it is.
Progress = Callable[[dict[str, Any]], None]
#: Searches beside the loader before one with the loader paused, when keys keep coming.
_SEARCHES = 3
_READ_BATCHES = 64
#: Before an erasure that failed is tried again.
_AGAIN_SECONDS = 30.0
#: Left to the loader between two reads of the journal, which both of them decode.
_PAUSE_SECONDS = 0.002
_COUNTED = ("events", "rejected", "requests", "identities", "sessions", "merges", "visitors")


class Owned(msgspec.Struct, frozen=True):
    """What belongs to a person: the ids under which rows may stand, the keys that nobody else has
    had, and those that others have had too."""

    persons: frozenset[bytes]
    keys: frozenset[bytes]
    shared: frozenset[bytes]


class Erasing:
    """Erases, one person at a time; any thread.

    `checkpoint` is called with the name of each thing that has just become durable. Methods raise
    StoreError, RegistryFailed, JournalFailed: then what has begun is finished by the next call, or
    at the next start.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        visitors: Visitors,
        erasures: Erasures,
        eraser: Eraser,
        checkpoint: Callable[[str], None] | None = None,
    ) -> None:
        self.loader = loader
        self.people = loader.identifying.people
        self.rows = StoreErasing(loader.store.writing())
        self.beside = StoreForgetting(loader.store.writing())
        self._visitors = visitors
        self._erasures = erasures
        self._eraser = eraser
        self._busy = False
        self.checkpoint = checkpoint or (lambda reached: None)

    def erase(self, person: bytes, account: str, progress: Progress) -> dict[str, Any]:
        """Erase a person, given by the id that stands for it today; the receipt. Raises NotFound
        for an id that is nobody's."""
        with self._alone():
            for receipt in self._finish_begun(progress):
                if receipt["person_id"] == uuid_text(person):
                    return receipt
            search = _Search(self, account, person, progress)
            for _ in range(_SEARCHES):
                search.go_on()
                if not search.look_again():
                    break
            with self.loader.paused():
                self._catch_up(search.seen)
                search.look_again()
                search.go_on()
                erasure = search.erasure(self.loader.clock(), self.loader.marks())
                self._erasures.begin(erasure)
                self.checkpoint("begun")
                self._bury(erasure)
            return self._finish(erasure, progress)

    def bury_begun(self) -> int:
        """Put up the tombstones of what was cut short, before anything is loaded; how many
        erasures are to be finished."""
        begun = self._erasures.begun()
        for erasure in begun:
            self._bury(erasure)
        return len(begun)

    def finish_begun(self, progress: Progress = lambda done: None) -> list[dict[str, Any]]:
        """Finish what was cut short; the receipts."""
        with self._alone():
            return self._finish_begun(progress)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with one_at_a_time:
            self._busy = True
            try:
                yield
            finally:
                self._busy = False

    def _finish_begun(self, progress: Progress) -> list[dict[str, Any]]:
        receipts = []
        for erasure in self._erasures.begun():
            log.warning("the erasure of %s goes on", uuid_text(erasure.person))
            with self.loader.paused():
                self._bury(erasure)
            receipts.append(self._finish(erasure, progress))
        return receipts

    def _catch_up(self, seen: Mapping[int, int]) -> None:
        """Load what the search has seen; the loader is paused, so it is done here. Also what a step
        has left that failed: rows beyond the watermark, which the next one takes for its own."""
        while self.loader.step():
            marks = self.loader.marks()
            if all(marks.get(writer, 0) >= batch for writer, batch in seen.items()):
                return

    def run(self, stop: threading.Event) -> None:
        """Finish what was cut short, now and whenever something was, until `stop` is set; whatever
        fails is tried again."""
        while True:
            try:
                if self._erasures.begun():
                    self.finish_begun()
            except HeadwaterError as error:
                log.error("an erasure is not finished, it is tried again: %s", error)
            if stop.wait(_AGAIN_SECONDS):
                return

    @property
    def busy(self) -> bool:
        """Whether an erasure is under way; it may be cut off anywhere."""
        return self._busy

    # --- what has begun ---------------------------------------------------------------------------

    def _bury(self, erasure: Erasure) -> None:
        with self.people.transaction():
            self.people.bury(erasure.keys, erasure.upto)
        self.loader.identifying.attribution.forget()
        self.checkpoint("buried")
        self._take_mappings(erasure)
        self.checkpoint("mappings")

    def _take_mappings(self, erasure: Erasure) -> None:
        """Before other mappings are made for the same ids, which are somebody new's."""
        gone = [
            (scope, user)
            for scope, user, since in self.mapped(erasure.account, erasure.keys)
            if since <= erasure.at
        ]
        self._visitors.erase(erasure.account, gone)

    def mapped(self, account: str, keys: Iterable[bytes]) -> Iterator[tuple[str, str, int]]:
        """Gamooga's mappings of which one of some keys is an end: (scope, user, since)."""
        wanted = frozenset(keys)
        for scope, user, visitor, since in self._visitors.mapped(account):
            bases = [
                key_id(account, "gamooga:user", scope, user),
                key_id(account, "user", "", user),
                key_id(account, "gamooga:visitor", scope, visitor),
            ]
            graves = self.people.graves(bases)
            ids = {
                reborn(base, generation)
                for base in bases
                for generation in range(graves[base].generation + 1 if base in graves else 1)
            }
            if not wanted.isdisjoint(ids):
                yield scope, user, since

    def _finish(self, erasure: Erasure, progress: Progress) -> dict[str, Any]:
        def told(step: str) -> None:
            progress({"step": step, **erasure.counts})

        told("rows")
        self.rows.delete_events(erasure.rows)
        self.checkpoint("events")
        self.rows.delete_rejected(erasure.rejected)
        self.checkpoint("rejected")
        self.beside.forget(erasure.keys, erasure.persons, erasure.sessions)
        self.checkpoint("beside")
        told("journal")
        requests: dict[Position, dict[int, Erased]] = {}
        for writer, batch, number, *counts in erasure.requests:
            requests.setdefault(Position(writer, batch), {})[number] = Erased(*counts)
        done = self._eraser.erase(
            requests,
            progress=lambda count: progress({"step": "journal", **erasure.counts, "done": count}),
        )
        self.checkpoint("journal")
        told("registry")
        with self.loader.paused():
            self.loader.identifying.attribution.recheck(erasure.account, erasure.shared)
            self.loader.identifying.settle()
        self.people.scrub()
        self.checkpoint("registry")
        receipt = _receipt(erasure, done.left)
        for left in done.left:
            log.warning("not erased: %s", left)
        text = msgspec.json.encode(receipt).decode()
        store = self.loader.identifying.store
        store.write_erasure(erasure.account, erasure.person, at=erasure.at, receipt=text)
        self.checkpoint("receipt")
        self._erasures.end(erasure)
        return receipt

    # --- whose is what ----------------------------------------------------------------------------

    def owned(self, person: bytes) -> Owned:
        classes = self.people.classes()
        person = classes.get(person, person)
        persons = {person, *(one for one, other in classes.items() if other == person)}
        known = {**self.people.load(list(persons))}
        known |= self.people.load([key for _, key in self.people.owned(list(persons))])
        keys = {id for id, one in known.items() if id in persons or _owners(one) <= persons}
        keys |= persons & known.keys()
        browsers = {id for id in known if known[id].kind == BROWSER}
        bound = self.people.load([key for _, key in self.people.owned(list(browsers))])
        for id, one in bound.items():
            if one.kind == BOUND:
                known[id] = one
                if _owners(one) <= browsers & keys:
                    keys.add(id)
        return Owned(frozenset(persons), frozenset(keys), frozenset(known.keys() - keys))


def _owners(record: Record) -> set[bytes]:
    return {owner for _, owner in record.pieces}


def _receipt(erasure: Erasure, left: list[str]) -> dict[str, Any]:
    at = datetime.fromtimestamp(erasure.at / 1e6, UTC).isoformat(timespec="microseconds")
    return {
        "account": erasure.account,
        "person_id": uuid_text(erasure.person),
        "erased_at": at.replace("+00:00", "Z"),
        "counts": erasure.counts,
        "keys": sorted(uuid_text(key) for key in erasure.keys),
        "left": left,
    }


class _Chosen(msgspec.Struct, frozen=True):
    """A request to be erased: for an event that is stored, or else for what it carries; how many
    events it counts as, and how many of them are heartbeats."""

    by_row: bool
    received: int
    heartbeats: int


class _Search:
    """Looks for what is a person's, in journal and rejected rows, from where it left off."""

    def __init__(self, erasing: Erasing, account: str, person: bytes, progress: Progress) -> None:
        self._of = erasing
        self._account = account
        self._person = person
        self._progress = progress
        self._owned = Owned(frozenset(), frozenset(), frozenset())
        self._found()
        if not self._owned.persons or not (self._own or self._waiting or self._owned.keys):
            raise NotFound(
                f"no such person: {uuid_text(person)}",
                remedy="find the id: headwater person find email:jane@example.com",
            )

    def _found(self) -> None:
        """Begin anew, with the keys that are known now."""
        of = self._of
        self._owned = of.owned(self._person)
        self._read_rows()
        named = of.beside.identifiers(self._account, self._owned.keys)
        self._identifiers: frozenset[Identifier] = frozenset(one[1:] for one in named)
        self._carrying = Carrying(self._account, self._identifiers, of.loader.judge)
        #: The journal's first and last batch that were read, by writer.
        self._began: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self._requests: dict[RequestPlace, _Chosen] = {}
        self._rejected: list[Place] = []
        self._rejected_upto: dict[int, int] = {}

    def _read_rows(self) -> None:
        of = self._of
        persons = sorted(self._owned.persons)
        self._own = of.rows.rows_of(self._account, persons)
        self._waiting, self._others = of.beside.carrying(self._account, self._owned.keys, persons)
        self._places = {one.place[:3] for one in self._own} | {
            place[:3] for place, _ in self._waiting
        }
        self._events = {one.event_id for one in self._own} | {one for _, one in self._waiting}

    def look_again(self) -> bool:
        """Whether the keys are others by now; then all is to be searched again."""
        before, identifiers = self._owned, self._identifiers
        now = self._of.owned(self._person)
        if now == before:
            self._read_rows()
            return False
        self._found()
        return (self._owned.shared, self._identifiers) != (before.shared, identifiers)

    # --- searching --------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Read what came in since the last time."""
        marks = self._of.loader.marks()
        words = sorted(self._carrying.runs) if self._carrying.searchable else None
        for place, dialect, text in self._of.beside.rejections(
            self._account, self._rejected_upto, words
        ):
            if self._carrying.is_in_text(dialect, text):
                self._rejected.append(place)
        self._rejected_upto = marks
        for batch in self._batches():
            for number, request in enumerate(batch.requests):
                self._look(batch.position, number, request)

    def _batches(self) -> Iterator[Batch]:
        reader = self._of.loader.reader
        read = 0
        for writer in reader.writers():
            after = Position(writer, self.seen.get(writer, 0))
            while True:
                try:
                    batches = reader.read(
                        after, batches_max=_READ_BATCHES, bytes_max=limits.load_bytes_max // 4
                    )
                except JournalDamaged as error:
                    log.error("%s", error)
                    behind = reader.skip_damaged(after)
                    if behind == after:
                        break
                    after = behind
                    continue
                if not batches:
                    break
                self._began.setdefault(writer, batches[0].position.batch)
                yield from batches
                after = batches[-1].position
                self.seen[writer] = after.batch
                time.sleep(_PAUSE_SECONDS)
                read += sum(len(batch.requests) for batch in batches)
                self._progress({"step": "search", "read": read, "requests": len(self._requests)})

    def _look(self, position: Position, number: int, request: Request) -> None:
        if request.account != self._account or request.erased is not None:
            return
        place = (position.writer, position.batch, number)
        judge = self._of.loader.judge
        if place not in self._places:
            if not self._owned.shared and not self._carrying.may_be_in(request):
                return
            if place in self._others or not (
                self._carrying.is_in(request) or self._is_copy(request)
            ):
                return
        decoded = judge.again(request)
        by_row = place in self._places
        self._requests[place] = _Chosen(by_row, decoded.received, decoded.heartbeats)

    def _is_copy(self, request: Request) -> bool:
        """Whether an event of the request is a copy of one of the person's."""
        events = [one for one in self._of.loader.judge.again(request).events if one.dedupe]
        if not events or not self._owned.shared:
            return False
        return not self._events.isdisjoint(event_ids(events, [request] * len(events)).to_pylist())

    def _read_again(self) -> None:
        """Requests that were read before it was known that their events are the person's."""
        missing = sorted(
            {
                place[:2]
                for place in self._places - self._requests.keys()
                if place[1] >= self._began.get(place[0], place[1] + 1)
            }
        )
        for writer, number in missing:
            after = Position(writer, number - 1)
            try:
                batches = self._of.loader.reader.read(after, batches_max=1, bytes_max=1)
            except JournalDamaged as error:
                log.error("%s", error)
                continue
            for batch in batches:
                if batch.position.batch == number:
                    for place, request in enumerate(batch.requests):
                        self._look(batch.position, place, request)

    # --- what was found ---------------------------------------------------------------------------

    def erasure(self, at: int, upto: dict[int, int]) -> Erasure:
        """All of it, with the loader paused."""
        beside = self._of.beside
        self._read_again()
        chosen = {
            place: one
            for place, one in self._requests.items()
            # What came in meanwhile is the next person's; rows may have changed hands.
            if place[1] <= upto.get(place[0], 0) and (place in self._places or not one.by_row)
        }
        own = Counter(one.place[:3] for one in self._own)
        own.update(place[:3] for place, _ in self._waiting)
        stored = beside.stored(chosen)
        rejected = set(self._rejected)
        requests = []
        for place, one in sorted(chosen.items()):
            events, refused = stored.get(place, (0, []))
            if events <= own[place]:  # nobody else is in it
                rejected |= set(refused)
            kept = min(one.received, events + one.heartbeats)
            lost = min(one.received - kept, len(refused))
            requests.append((*place, kept, one.received - kept - lost, lost))
        rows = [one.place for one in self._own] + [place for place, _ in self._waiting]
        sessions = beside.sessions(self._account, self._owned.persons)
        keys = sorted(self._owned.keys)
        counts = dict.fromkeys(_COUNTED, 0) | {
            "events": len(rows),
            "rejected": len(rejected),
            "requests": len(requests),
            "identities": len(keys),
            "sessions": len(sessions),
            "merges": beside.merges([*keys, *self._owned.persons]),
            "visitors": sum(1 for _ in self._of.mapped(self._account, keys)),
        }
        return Erasure(
            account=self._account,
            person=self._person,
            at=at,
            upto=upto,
            keys=keys,
            shared=sorted(self._owned.shared),
            persons=sorted(self._owned.persons),
            sessions=sorted(sessions),
            rows=rows,
            rejected=sorted(rejected),
            requests=requests,
            counts=counts,
        )


def sweep_temporary(folder: Path) -> None:
    """Delete what an insert that was cut short has left in the store's temporary folder; call it
    before the store is opened."""
    for path in folder.glob("tmp*"):
        if path.is_file():
            path.unlink(missing_ok=True)
