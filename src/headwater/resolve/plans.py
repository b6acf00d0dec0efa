"""What one event's identifiers come to: worked out once for each list of them.

Events of one visitor carry the same identifiers again and again. A :class:`Plan` is what follows
from one such list, and while nothing about its keys changes (`calm`), so is who did it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headwater.event import Identity
from headwater.resolve.book import Book, Key
from headwater.resolve.keys import (
    BOUND,
    BROWSER,
    EMAIL,
    INSTANCE,
    NOBODY,
    STRONG,
    VISITOR,
    WEAK,
    joint_id,
    key_id,
)

#: (account, whether it is an alias, identity, identity, …)
Said = tuple[str | bool | Identity, ...]

_KINDS = {
    "email": EMAIL,
    "vibetrace:user": BROWSER,
    "vibetrace:session": BOUND,
    "vibetrace:vtsid": BOUND,
    "orbee:instance": INSTANCE,
    "orbee:duid": VISITOR,
}
_ASSERTING = frozenset({"strong", "weak", "correlation", "lookup"})
#: Dialects whose user ids can be shared, by namespace.
_USERS = {"vaix:user": "vaix", "nucleus:user": "nucleus", "gamooga:user": "gamooga"}
#: The order in which a Vibetrace event without a browser looks up (the vendor card, section 3).
_LOOKED_UP = ("vibetrace:vtsid", "vibetrace:session", "email")


class Plan:
    """What a list of identifiers asserts.

    `keys` holds an id for each identity, NOBODY where it asserts nothing. `strong` names the person
    by itself. `weak` are owned by it, or say who it was. `lookup` is an email that is only looked
    up, `bound` what stands for a browser. `candidates` are what an event without browser or user is
    looked up by, in order. `calm`: `subject` and `principal` are known, for orders later than
    `settled`, whose time is `settled_at` (microseconds).
    """

    __slots__ = (
        "account",
        "aliases",
        "bound",
        "calm",
        "candidates",
        "grave",
        "keys",
        "lookup",
        "members",
        "orbee",
        "principal",
        "settled",
        "settled_at",
        "strong",
        "subject",
        "watched",
        "weak",
    )

    def __init__(self, account: str, alias: bool, said: Sequence[Identity], keys: list[Key | None]):
        self.account = account
        self.keys = [NOBODY if key is None else key.id for key in keys]
        self.members: list[Key] = []
        self.grave = self.orbee = False
        self.lookup: Key | None = None
        self.weak: list[Key] = []
        self.bound: list[Key] = []
        top: Key | None = None
        users: list[Key] = []
        is_browser = False
        for one, key in zip(said, keys, strict=True):
            if key is None or key in self.members:
                continue
            self.members.append(key)
            key.plans.append(self)
            if key.grave is not None:
                self.grave = True
            kind = key.kind
            if kind == STRONG:
                users.append(key)
            elif kind == EMAIL:
                if one.strength == "strong":
                    top = key
                else:
                    self.lookup = key
            elif kind == BOUND:
                self.bound.append(key)
            else:
                self.weak.append(key)
                is_browser = is_browser or kind == BROWSER
                self.orbee = self.orbee or kind in (INSTANCE, VISITOR)
        if is_browser and top is not None:
            users = [top]
        self.strong = users[0] if users else None
        self.aliases = users if alias and len(users) > 1 else []
        self.candidates: list[Key] = []
        if (self.bound or top or self.lookup) and not (self.weak or users):
            self.candidates = _candidates(said, keys)
        self.subject = self._subject()
        self.watched = not (self.candidates or (self.orbee and self.lookup))
        self.principal = NOBODY
        self.calm = False
        self.settled = b""
        self.settled_at = 0

    def _subject(self) -> bytes:
        if self.orbee:
            self.weak.sort(key=lambda key: key.kind != INSTANCE)
            own = self.weak[-1].id  # the visitor, else the instance
            if self.lookup is None:
                return own
            return joint_id(self.lookup.id, *(key.id for key in self.weak))
        if self.strong is not None:
            return self.strong.id
        if self.weak:
            return self.weak[0].id
        # Never the key's own id: what looks an email up is not what the email names.
        return joint_id(*(key.id for key in self.candidates)) if self.candidates else NOBODY

    @property
    def parts(self) -> list[bytes]:
        """What a subject of several keys is made of, in order of precedence."""
        if self.orbee and self.lookup is not None:
            return [self.lookup.id, *(key.id for key in reversed(self.weak))]
        return [key.id for key in self.candidates]


def _candidates(said: Sequence[Identity], keys: Sequence[Key | None]) -> list[Key]:
    pairs = [(one, key) for one, key in zip(said, keys, strict=True) if key is not None]
    pairs = [pair for pair in pairs if pair[0].namespace in _LOOKED_UP]
    # A top-level email goes before generic.email: strong before lookup.
    pairs.sort(key=lambda pair: (_LOOKED_UP.index(pair[0].namespace), pair[0].strength != "strong"))
    return list(dict.fromkeys(key for _, key in pairs))


class Plans:
    """Plans by what was said. `shared` names the dialects whose user ids are one namespace, for an
    account."""

    def __init__(self, book: Book, shared: Callable[[str], frozenset[str]]) -> None:
        self._book = book
        self._shared = shared
        self._plans: dict[Said, Plan] = {}
        self._sharing: dict[str, frozenset[str]] = {}

    def forget(self) -> None:
        """Empty the memory."""
        self._plans.clear()
        self._sharing.clear()

    def of(self, said: Sequence[Said]) -> list[Plan]:
        """A plan for each."""
        plans = self._plans
        found = [plans.get(one) for one in said]
        if None in found:
            self._make({one for one, plan in zip(said, found, strict=True) if plan is None})
            return [plans[one] for one in said]
        return found  # type: ignore[return-value]

    def _make(self, said: Iterable[Said]) -> None:
        ids: dict[Said, list[bytes | None]] = {}
        wanted: dict[bytes, tuple[str, str]] = {}
        for one in said:
            account = str(one[0])
            ids[one] = [self._id(account, each, wanted) for each in one[2:]]  # type: ignore[arg-type]
        known = self._book.fetch(wanted)
        for one, bases in ids.items():
            keys = [None if base is None else known[base] for base in bases]
            self._plans[one] = Plan(str(one[0]), bool(one[1]), one[2:], keys)  # type: ignore[arg-type]

    def _id(
        self, account: str, identity: Identity, wanted: dict[bytes, tuple[str, str]]
    ) -> bytes | None:
        """The id of an identity's key before any erasure, None where it asserts nothing."""
        if identity.denied or identity.strength not in _ASSERTING:
            return None
        namespace, scope = identity.namespace, identity.scope
        if namespace in _USERS and _USERS[namespace] in self.sharing(account):
            namespace, scope = "user", ""
        id = key_id(account, namespace, scope, identity.value)
        kind = _KINDS.get(namespace) or (STRONG if identity.strength == "strong" else WEAK)
        wanted[id] = (kind, account)
        return id

    def sharing(self, account: str) -> frozenset[str]:
        """The dialects whose user ids an account shares."""
        found = self._sharing.get(account)
        if found is None:
            found = self._sharing[account] = self._shared(account)
        return found
