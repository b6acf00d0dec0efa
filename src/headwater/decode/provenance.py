"""Where each field of an event came from, found by trial.

Theory of operation. A decoder is pure: the same request gives the same events. So what a field
depends on need not be written down beside the decoder, where it would be wrong one day; it is found
by putting another value of the same shape in the place of each value of the request (``leaves.py``,
``other_values.py``), one at a time, decoding again, and comparing. A field whose value changed came
*from* that place. A field that is gone was *decided* by it: another `type` makes a property out of
what was a profile change. What makes the whole event go is *needed* by all of it, and says nothing
of any field. Where a change breaks more than it shows (a date of month 37), a smaller one is tried;
where nothing shows, the value is taken away.

What comes from no place in the request has a rule in words (:func:`_rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.decode.leaves import Leaves
from headwater.decode.other_values import other_end, other_json, other_json_end, other_text
from headwater.event import Decoded, Event

#: The decoder, with all that is added to its events by the request alone. Never raises.
Decode = Callable[[Request], Decoded]
#: Whether there is time left.
More = Callable[[], bool]

_ABSENT = object()


class Field(msgspec.Struct, kw_only=True):
    """One field of an event. `path`: name, kind …, ``identities/vaix:user``, ``properties/a/b``,
    ``issues/CODE/FIELD``. `came_from` and `decided_by` are numbers of leaves; `rule` says in words
    what no leaf does, empty where leaves say it."""

    path: str
    value: Any
    came_from: list[int] = msgspec.field(default_factory=list)
    decided_by: list[int] = msgspec.field(default_factory=list)
    rule: str = ""


class Trace(msgspec.Struct, kw_only=True):
    """One event's fields and what they came from. `needed`: leaves without which, or with another
    value in which, there would be no such event. `cut` says in words what was not looked at."""

    fields: list[Field]
    needed: list[int] = msgspec.field(default_factory=list)
    cut: str = ""


def trace(leaves: Leaves, decode: Decode, event: Event, more: More) -> Trace:
    """Where the fields of `event`, one of those that `decode` makes of the request, came from."""
    item = _item_of(leaves, decode, event)
    return _Trial(leaves, decode, event, item, more).run()


def _item_of(leaves: Leaves, decode: Decode, event: Event) -> int | None:
    """The event's place in the list, where decoding that item alone gives the same event."""
    count = leaves.items
    if count is None or count < 2 or event.index >= count:
        return None
    alone = _event_at(decode(leaves.alone(event.index)), 0)
    return event.index if alone is not None and _flat(alone) == _flat(event) else None


def _event_at(decoded: Decoded, index: int) -> Event | None:
    return next((one for one in decoded.events if one.index == index), None)


class _Trial:
    """The trials for one event."""

    def __init__(
        self, leaves: Leaves, decode: Decode, event: Event, item: int | None, more: More
    ) -> None:
        self._leaves = leaves
        self._decode = decode
        self._event = event
        self._item = item
        self._index = 0 if item is not None else event.index
        self._more = more
        self._before = _flat(event)
        self._fields = {path: Field(path=path, value=v) for path, v in self._before.items()}
        self._needed: list[int] = []
        self._left = limits.provenance_decodes_max

    def run(self) -> Trace:
        cut = self._leaves.cut
        mine = [
            number
            for number, leaf in enumerate(self._leaves.leaves)
            if leaf.item is None or self._item is None or leaf.item == self._item
        ]
        done = 0
        for number in mine:
            if self._left <= 0 or not self._more():
                cut = f"{done} of {len(mine)} values were tried: there was no time for more"
                break
            self._try(number)
            done += 1
        self._take_away(mine[:done])
        for field in self._fields.values():
            nothing = not field.came_from and not field.decided_by
            if nothing or field.path.startswith("issues/missing_field"):
                field.rule = _rule(self._leaves, self._event, field, cut)
        return Trace(fields=list(self._fields.values()), needed=self._needed, cut=cut)

    def _after(self, leaf: int, new: bytes) -> dict[str, Any] | None:
        """The event's fields with another text in a leaf's place, None where it is gone."""
        self._left -= 1
        request = self._leaves.changed(leaf, new, self._item)
        event = _event_at(self._decode(request), self._index)
        return None if event is None else _flat(event)

    def _try(self, leaf: int) -> None:
        raw = self._leaves.raw(leaf)
        is_json = self._leaves.is_json(leaf)
        whole, end = (other_json, other_json_end) if is_json else (other_text, other_end)
        after = self._after(leaf, whole(raw))
        changed, gone = self._differences(after)
        if after is None or gone:
            less = self._after(leaf, end(raw))
            also, less_gone = self._differences(less)
            if less is None and after is None:
                self._needed.append(leaf)
                return
            changed |= also
            gone = (gone | less_gone) - changed
        for path in changed:
            self._fields[path].came_from.append(leaf)
        for path in gone:
            self._fields[path].decided_by.append(leaf)

    def _differences(self, after: dict[str, Any] | None) -> tuple[set[str], set[str]]:
        """Paths whose values changed, and paths that are gone; none where the event is."""
        if after is None:
            return set(), set()
        changed, gone = set(), set()
        for path, value in self._before.items():
            now = after.get(path, _ABSENT)
            if now is _ABSENT:
                gone.add(path)
            elif now != value or type(now) is not type(value):
                changed.add(path)
        return changed, gone

    def _take_away(self, leaves: list[int]) -> None:
        """For fields that nothing has moved yet: do they need something to be there at all?"""
        unmoved = {p for p, f in self._fields.items() if not f.came_from and not f.decided_by}
        unmoved -= {"kind", "index"}
        for leaf in leaves if unmoved else ():
            if self._left <= 0 or not self._more():
                return
            after = self._after(leaf, b"null" if self._leaves.is_json(leaf) else b"")
            changed, gone = self._differences(after)
            for path in unmoved & (changed | gone):
                self._fields[path].decided_by.append(leaf)


# --- an event as fields --------------------------------------------------------------------------


def _flat(event: Event) -> dict[str, Any]:
    """An event's fields by path, values as JSON has them; what is empty is left out."""
    found: dict[str, Any] = {
        "kind": event.kind,
        "name": event.name,
        "scope": event.scope,
        "occurred_at": event.occurred_at,
    }
    if event.session is not None:
        found["session"] = event.session
    for one in event.identities:
        path = _free(found, f"identities/{one.namespace}")
        found[path] = {
            "scope": one.scope,
            "value": one.value,
            "strength": one.strength,
            "denied": one.denied,
        }
    for part in ("properties", "profile_set", "context", "raw"):
        for path, value in _leaves_of(getattr(event, part), part):
            if len(found) >= limits.provenance_leaves_max:
                break
            found[path] = value
    for name in event.profile_unset:
        found[f"profile_unset/{name}"] = None
    for issue in event.issues:
        path = _free(found, f"issues/{issue.code}/{issue.field}".rstrip("/"))
        found[path] = issue.detail
    if event.dedupe is not None:
        found["dedupe"] = event.dedupe.hex()
    return found


def _free(found: dict[str, Any], path: str) -> str:
    number = 1
    free = path
    while free in found:
        number += 1
        free = f"{path}#{number}"
    return free


def _leaves_of(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON value with its pointer; an empty container inside is one."""
    todo: list[tuple[str, Any, bool]] = [(path, value, True)]
    while todo:
        at, one, top = todo.pop()
        if isinstance(one, dict) and (one or top):
            inner = [
                (f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}", each, False)
                for key, each in one.items()
            ]
        elif isinstance(one, list) and one:
            inner = [(f"{at}/{number}", each, False) for number, each in enumerate(one)]
        else:
            yield at, one
            continue
        todo += reversed(inner)


# --- what comes from no leaf ----------------------------------------------------------------------

_RULES = {
    "kind": "every event of this endpoint is of this kind",
    "name": "the endpoint's own name",
    "occurred_at": "no time was sent that can be read: received_at, the collector's clock, counts",
    "context/bot": "read off the header user-agent; false where it says nothing of the kind",
    "context/derived": "names what was read from headers",
    "raw/endpoint": "the endpoint that was called",
    "dedupe": "a digest of device, session, type, name, date, id and payload",
}


def _rule(leaves: Leaves, event: Event, field: Field, cut: str) -> str:
    """Why a field has no place in the request, in words."""
    if field.path in _RULES and (field.path != "occurred_at" or field.value is None):
        return _RULES[field.path]
    if field.path.startswith("context/device"):
        return "read off the header user-agent"
    if field.path.startswith("context/derived"):
        return _RULES["context/derived"]
    if field.path.startswith("issues/"):
        return _of_issue(leaves, event, field)
    if cut:
        return f"not known: {cut}"
    return ""


def _of_issue(leaves: Leaves, event: Event, field: Field) -> str:
    """An issue stays when a value becomes another one of its kind: it is about the shape, so it is
    tied to the place that it names, or to nothing where that is missing."""
    _, code, name = (*field.path.split("/", 2), "")[:3]
    name = name.partition("#")[0]
    last = name.replace("/", ".").rpartition(".")[2]
    named: list[int] = []
    for number, leaf in enumerate(leaves.leaves):
        if leaf.item not in (None, event.index):
            continue
        if last and (leaf.name == last or f"/{last}/" in f"{leaf.pointer}/"):
            named.append(number)
    if not field.decided_by:
        field.decided_by = named
    if code == "missing_field" and not named:
        return f"{name or 'the field'} is not in the request"
    return "" if field.decided_by or field.came_from else "the request as a whole"
