"""Who did what, as identity.md §3 and §4 say it: slow, and obvious enough to be believed.

All assertions are sorted, the rules are applied to them one after the other, then each event goes
to whoever owns its identifiers at its time. The engine computes the same another way; the property
tests compare the two. What is compared is who is together with whom, never an id.

A *key* is (account, namespace, scope, value). A *strong* key is of one person for ever. A *weak*
key has *pieces*, (from order, person), of which the first reaches back for ever. A *stand-in*
(Vibetrace's session and _vtsid) stands for a browser's id, by pieces too.

Orbee is applied after everything else: whether an email is known is answered by what is known in
the end, and no Orbee event makes one known.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headwater.event import Identity

Key = tuple[str, str, str, str]
#: (occurred_at, or received_at of a flagged or timeless event; received_at; request_id; index)
Order = tuple[int, int, bytes, int]
#: An event's name in a comparison: (request_id, index).
Label = tuple[bytes, int]
Pair = frozenset[Key]
T = TypeVar("T")

BROWSER = "vibetrace:user"
STAND_INS = ("vibetrace:vtsid", "vibetrace:session")  # in the order in which they are looked up
USER_IDS = {"vaix:user": "vaix", "nucleus:user": "nucleus", "gamooga:user": "gamooga"}
#: What makes a client's session id unique, by preference.
SESSION_OWNERS = {
    "nucleus": ("nucleus:device", "nucleus:anon", "nucleus:user"),
    "vibetrace": ("vibetrace:user",),
}
SILENCE_US = 30 * 60 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One stored event. `alias`: several unique ids in one /id. `flagged`: its time is more than
    24 h ahead or 30 days behind. Times in microseconds."""

    account: str
    dialect: str
    scope: str
    identities: tuple[Identity, ...]
    alias: bool = False
    occurred_at: int | None = None
    flagged: bool = False
    received_at: int
    request_id: bytes
    index: int = 0
    session: str | None = None
    profile_set: Mapping[str, Any] = field(default_factory=dict)
    profile_unset: Collection[str] = ()

    @property
    def label(self) -> Label:
        return self.request_id, self.index

    @property
    def ordered_at(self) -> int:
        if self.occurred_at is None or self.flagged:
            return self.received_at
        return self.occurred_at

    @property
    def order(self) -> Order:
        return self.ordered_at, self.received_at, self.request_id, self.index


class Person:
    """Somebody. `strong` holds the strong keys: one, or those that an alias joined."""

    def __init__(self) -> None:
        self.strong: set[Key] = set()

    @property
    def anonymous(self) -> bool:
        return not self.strong


@dataclass(frozen=True)
class Outcome:
    """By event its person and its session (None: nobody, none); by person the profile."""

    persons: dict[Label, Person | None]
    sessions: dict[Label, Hashable | None]
    profiles: dict[Person, dict[str, Any]]


def attribute(
    events: Iterable[Stored],
    *,
    shared: Mapping[str, Collection[str]] | None = None,
    withdrawn: Collection[Pair] = (),
) -> Outcome:
    """The answer of identity.md to a set of stored events. `shared` is each account's
    `shared_user_ids`, `withdrawn` the pairs of keys that were undone."""
    ordered = sorted(events, key=lambda event: event.order)
    rules = Rules(shared or {}, withdrawn)
    for event in ordered:
        if event.dialect != "orbee":
            rules.apply(event)
    for event in ordered:
        if event.dialect == "orbee":
            rules.apply_orbee(event)
    persons = {event.label: rules.person(event) for event in ordered}
    return Outcome(persons, sessions_of(ordered, persons), profiles_of(ordered, persons))


class Rules:
    """The state that the assertions change, and the rules that change it."""

    def __init__(self, shared: Mapping[str, Collection[str]], withdrawn: Collection[Pair]) -> None:
        self._shared = shared
        self._withdrawn = frozenset(withdrawn)
        self.person_of: dict[Key, Person] = {}
        self.pieces: dict[Key, list[tuple[Order, Person]]] = {}
        self.stands_for: dict[Key, list[tuple[Order, Key]]] = {}
        #: Emails that were asserted together with a browser's id.
        self.known: set[Key] = set()
        #: The strong key that an event is of, where it has one.
        self._strong_of: dict[Label, Key] = {}

    # --- keys ----------------------------------------------------------------------------------

    def keys(self, event: Stored, *namespaces: str, strength: str = "") -> list[Key]:
        """The keys of an event that are not denied, by namespace or by strength."""
        return [
            self._key(event.account, one)
            for one in event.identities
            if not one.denied
            and (not namespaces or one.namespace in namespaces)
            and (not strength or one.strength == strength)
        ]

    def _key(self, account: str, one: Identity) -> Key:
        if USER_IDS.get(one.namespace, "") in self._shared.get(account, ()):
            return account, "user", "", one.value
        return account, one.namespace, one.scope, one.value

    def _asserts(self, one: Key, other: Key) -> bool:
        return frozenset((one, other)) not in self._withdrawn

    # --- an event's assertions -----------------------------------------------------------------

    def apply(self, event: Stored) -> None:
        """Rules 2 to 5, and 8 and the stand-ins of 7 for Vibetrace."""
        strong = self.keys(event, strength="strong")
        weak = self.keys(event, strength="weak")
        if event.dialect == "vibetrace":
            strong = self._emails(event, strong, weak)
            for browser in weak:
                for stand_in in self.keys(event, *STAND_INS):
                    self.stands_for.setdefault(stand_in, []).append((event.order, browser))
        if strong:
            self._strong_of[event.label] = strong[0]
        for one in strong:
            self._identified(one)
        if event.alias:
            for one in strong[1:]:
                if self._asserts(strong[0], one):
                    self._merge(self.person_of[one], self.person_of[strong[0]])
        for other in weak:
            for one in strong[:1]:
                if self._asserts(one, other):
                    self._meet(one, other, event.order)
                    if one[1] == "email":
                        self.known.add(one)
        for other in weak:
            self._held(other, event.order)

    def _emails(self, event: Stored, strong: list[Key], weak: list[Key]) -> list[Key]:
        """Rule 8: the emails that identify a Vibetrace event."""
        if not weak:
            return []
        if strong:
            return strong
        holder = self._holder(weak[0])
        if holder is None or holder.anonymous:
            return [one for one in self.keys(event, "email") if self._asserts(one, weak[0])]
        return []

    def apply_orbee(self, event: Stored) -> None:
        """Rule 7, with rules 3 and 4 for the email and the browser's id."""
        instances = self.keys(event, "orbee:instance")
        duids = self.keys(event, "orbee:duid")
        for email in self.keys(event, "email"):
            if email in self.known:
                self._strong_of[event.label] = email
                for instance in instances:
                    if self._asserts(email, instance):
                        self._meet(email, instance, event.order, changes_hands=False)
                for duid in duids:
                    if self._asserts(email, duid):
                        self._meet(email, duid, event.order)
                return
        if instances and duids and self._asserts(instances[0], duids[0]):
            self._group(instances[0], duids[0], event.order)
        for key in instances + duids:
            self._held(key, event.order)

    def _group(self, instance: Key, duid: Key, order: Order) -> None:
        """An instance and a browser's id on one event that nobody identifies."""
        group, browser = self._holder(instance), self._holder(duid)
        if group is None and browser is None:
            self._give(instance, order, Person())
            self._give(duid, order, self.pieces[instance][-1][1])
        elif group is None and browser is not None:
            self._give(instance, order, browser)
        elif group is not None and browser is None:
            self._give(duid, order, group)
        elif group is not None and browser is not None and group is not browser:
            if group.anonymous:
                self._merge(group, browser)
            elif browser.anonymous:
                self._merge(browser, group)

    # --- the rules -----------------------------------------------------------------------------

    def _meet(self, strong: Key, weak: Key, order: Order, *, changes_hands: bool = True) -> None:
        """Rules 3 and 4: a strong and a weak key on one event."""
        person, holder = self._identified(strong), self._holder(weak)
        if holder is None:
            self._give(weak, order, person)
        elif holder is person:
            return
        elif holder.anonymous:
            self._merge(holder, person)
        elif changes_hands:
            self._give(weak, order, person)

    def _identified(self, strong: Key) -> Person:
        """The person of a strong key, somebody new where it has none."""
        if strong not in self.person_of:
            self.person_of[strong] = Person()
            self.person_of[strong].strong.add(strong)
        return self.person_of[strong]

    def _held(self, weak: Key, order: Order) -> None:
        """Rule 5: the owner of a weak key, an anonymous person if it is new."""
        if weak not in self.pieces:
            self._give(weak, order, Person())

    def _holder(self, weak: Key) -> Person | None:
        return self.pieces[weak][-1][1] if weak in self.pieces else None

    def _give(self, weak: Key, order: Order, person: Person) -> None:
        self.pieces.setdefault(weak, []).append((order, person))

    def _merge(self, gone: Person, kept: Person) -> None:
        if gone is kept:
            return
        kept.strong |= gone.strong
        for strong in gone.strong:
            self.person_of[strong] = kept
        for weak, pieces in self.pieces.items():
            self.pieces[weak] = [
                (order, kept if person is gone else person) for order, person in pieces
            ]

    # --- whose an event is ---------------------------------------------------------------------

    def person(self, event: Stored) -> Person | None:
        """The owner of an event's identifiers at its time, once everything is applied."""
        if event.label in self._strong_of:
            return self.person_of[self._strong_of[event.label]]
        weak = self.keys(event, strength="weak") + self.keys(event, "orbee:instance")
        if weak:
            return at(self.pieces[weak[0]], event.order)
        if event.dialect == "vibetrace":
            for namespace in STAND_INS:
                for stand_in in self.keys(event, namespace):
                    if stand_in in self.stands_for:
                        browser = at(self.stands_for[stand_in], event.order)
                        return at(self.pieces[browser], event.order)
            for email in self.keys(event, "email", strength="strong") + self.keys(
                event, "email", strength="lookup"
            ):
                if email in self.known:
                    return self.person_of[email]
        return None


def at(pieces: list[tuple[Order, T]], order: Order) -> T:
    """The last piece that begins at or before an order; the first reaches back for ever."""
    found = pieces[0][1]
    for since, value in pieces:
        if since <= order:
            found = value
    return found


# --- what follows from the persons ---------------------------------------------------------------


def profiles_of(
    ordered: Iterable[Stored], persons: Mapping[Label, Person | None]
) -> dict[Person, dict[str, Any]]:
    """Each person's profile: by key, the last writer by order."""
    found: dict[Person, dict[str, Any]] = {}
    for event in ordered:
        person = persons[event.label]
        if person is not None:
            profile = found.setdefault(person, {})
            profile.update(event.profile_set)
            for key in event.profile_unset:
                profile.pop(key, None)
    return found


def sessions_of(
    ordered: Iterable[Stored], persons: Mapping[Label, Person | None]
) -> dict[Label, Hashable | None]:
    """Identity §4: the client's own session, or one derived from half an hour of silence."""
    found: dict[Label, Hashable | None] = {}
    last: dict[Hashable, tuple[int, int]] = {}
    for event in ordered:
        person = persons[event.label]
        if event.dialect in SESSION_OWNERS:
            found[event.label] = client_session(event)
        elif person is None:
            found[event.label] = None
        else:
            line = (event.account, event.dialect, event.scope, person)
            number, seen_at = last.get(line, (0, event.ordered_at))
            if event.ordered_at - seen_at > SILENCE_US:
                number += 1
            last[line] = number, event.ordered_at
            found[event.label] = line, number
    return found


def client_session(event: Stored) -> Hashable | None:
    """The key of the session that a client names."""
    if event.session is None:
        return None
    for namespace in SESSION_OWNERS[event.dialect]:
        for one in event.identities:
            if one.namespace == namespace and not one.denied:
                owner = namespace, one.value
                return event.account, event.dialect, event.scope, owner, event.session
    return event.account, event.dialect, event.scope, None, event.session


# --- comparing ---------------------------------------------------------------------------------


def together(found: Mapping[Label, Hashable | None]) -> frozenset[frozenset[Label]]:
    """Who is together with whom, whatever it is called; who is of nobody is not in it."""
    groups: dict[Hashable, set[Label]] = {}
    for label, name in found.items():
        if name is not None:
            groups.setdefault(name, set()).add(label)
    return frozenset(map(frozenset, groups.values()))
