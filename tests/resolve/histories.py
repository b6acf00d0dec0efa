"""Small histories of real requests in all five dialects, drawn so that everything collides.

A history is a list of *moves*: plain tuples that a failing test prints and that can be pasted into
a regression test. `requests_of` makes of them what accept would have journaled, Gamooga's visitor
ids included; `stored_events` what the loader would keep of those. Ids come from small pools: hands
change, emails wait, copies are sent again. Times are minutes, few enough to be equal often, and no
two of them half an hour apart: whether a session ends then is nobody's question here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import urlencode

from hypothesis import strategies as st

from headwater.accept.request import Request, Rules
from headwater.decode import gamooga, nucleus
from headwater.decode.dialects import DIALECTS
from headwater.event import Event
from tests.journaled import AT, a_request
from tests.resolve.reference import Stored

APPS = ("appX", "appY")
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
MINUTE_US = 60_000_000
_RULES = Rules()
_BY_NAME = {dialect.NAME: dialect for dialect in DIALECTS}


class Move(NamedTuple):
    """One request: who is asked, when it came (minutes), and what it says, by dialect:

    nucleus: an app and events · again: which of the Nucleus requests so far, and a userId to stamp
    vaix: a group and a user · orbee: aid, tid and a body · vibetrace: an account and items
    gamooga: an endpoint and parameters. A `date`, `dtm` or `tm` is in minutes.
    """

    dialect: str
    received: int
    place: str
    said: Any
    account: str = "acme"


# --- drawing them --------------------------------------------------------------------------------

_MINUTES = st.sampled_from([0, 1, 2, 3, 14, 40, 41, 95])
_AHEAD, _BEHIND = 2 * 24 * 60, -40 * 24 * 60
_CLIENT_MINUTES = st.one_of(
    _MINUTES, _MINUTES, _MINUTES, st.sampled_from([None, _AHEAD, _AHEAD + 1, _BEHIND, -7])
)
_ACCOUNTS = st.sampled_from(["acme"] * 7 + ["other"])
_USERS = st.sampled_from(["u1", "u2", "77"])
_EMAILS = st.sampled_from(["a@x.de", "b@x.de", "C@x.de "])


def _maybe(values: st.SearchStrategy[Any], nothing: Sequence[Any] = (None,)) -> Any:
    """A value, or one of those that name nobody."""
    return st.one_of(values, values, values, st.sampled_from([None, *nothing]))


def _filled(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary without what is None."""
    return st.fixed_dictionaries(fields).map(
        lambda drawn: {name: value for name, value in drawn.items() if value is not None}
    )


_PROFILE = st.dictionaries(
    st.sampled_from(["plan", "size"]), st.sampled_from(["pro", 1, True, None]), max_size=2
)
_NUCLEUS_EVENT = _filled(
    type=st.sampled_from(["event", "event", "userid", "init", "props"]),
    name=st.sampled_from(["A", "B"]),
    date=_CLIENT_MINUTES,
    sessionId=st.sampled_from([4821, 17, None]),
    deviceId=_maybe(st.sampled_from(["d1", "d2"]), ["unknown"]),
    anonId=_maybe(st.sampled_from(["A", "B"]), ["null", "B"]),
    userId=st.one_of(st.none(), _maybe(_USERS, ["0"])),
    payload=_PROFILE,
    id=st.sampled_from([1, 2, None]),
)
_NUCLEUS = st.builds(
    Move,
    st.just("nucleus"),
    _MINUTES,
    st.sampled_from(APPS[:1] * 4 + APPS[1:]),
    st.lists(_NUCLEUS_EVENT, min_size=1, max_size=3),
    _ACCOUNTS,
)
_AGAIN = st.builds(
    Move,
    st.just("again"),
    _MINUTES,
    st.just(""),
    st.tuples(st.integers(0, 7), _maybe(_USERS)),
    st.just(""),
)
_VAIX = st.builds(
    Move,
    st.just("vaix"),
    _MINUTES,
    st.sampled_from(["a", "a", "b"]),
    _maybe(_USERS, [0, "None"]),
    _ACCOUNTS,
)
_ORBEE = st.builds(
    Move,
    st.just("orbee"),
    _MINUTES,
    st.sampled_from(["1/1", "1/1", "1/2", "2/1"]),
    _filled(
        instance_id=st.sampled_from(["i1", "i2", "i3", "null"]),
        duid=_maybe(st.sampled_from(["D1", "D2"]), ["0", None, None]),
        email=st.one_of(st.none(), st.none(), _EMAILS),
        dtm=_CLIENT_MINUTES,
    ),
    _ACCOUNTS,
)
_VIBETRACE_ITEM = _filled(
    userId=st.one_of(st.none(), _maybe(st.sampled_from(["w1", "w2", "w3"]), ["0"])),
    sessionId=_maybe(st.sampled_from(["s1", "s2"]), ["-1", None]),
    _vtsid=st.one_of(st.none(), _maybe(st.sampled_from(["t1", "t2"]))),
    email=st.one_of(st.none(), _maybe(_EMAILS)),
    generic=st.one_of(st.none(), st.none(), st.fixed_dictionaries({"email": _EMAILS})),
)
_VIBETRACE = st.builds(
    Move,
    st.just("vibetrace"),
    _MINUTES,
    st.sampled_from(["VA", "VA", "VA", "VB"]),
    st.lists(_VIBETRACE_ITEM, min_size=1, max_size=2),
    _ACCOUNTS,
)
_SENT_VISITORS = st.sampled_from(["v1", "v2", "v3", "made-for-u1", "made-for-77"])
_TM = st.tuples(st.just("tm"), _CLIENT_MINUTES)
_U = st.tuples(st.just("u"), _maybe(_USERS, ["0"]).map(lambda user: user or "u2"))
_V = st.tuples(st.just("v"), _SENT_VISITORS)
_TRIPLE = st.tuples(
    st.just("p"), st.sampled_from([("plan", "pro", "s"), ("plan", "2", "n"), ("size", "true", "b")])
)


def _call(endpoint: str, *parts: Any) -> st.SearchStrategy[Move]:
    said = st.tuples(*parts).map(
        lambda drawn: [pair for pair in _flat(drawn) if pair[1] is not None]
    )
    return st.builds(Move, st.just("gamooga"), _MINUTES, st.just(endpoint), said, _ACCOUNTS)


def _flat(drawn: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    for one in drawn:
        if isinstance(one, list):
            yield from one
        else:
            yield one


_GAMOOGA = st.one_of(
    _call("ev", _V, _TM),
    _call("evwid", _U, _TM),
    _call("evwidj", _U, _TM),
    _call("evvprwid", _U, _TRIPLE, _TM),
    _call("vpr", _V, _TRIPLE),
    _call("id", st.lists(_U, min_size=1, max_size=1), st.lists(_V, max_size=1), _TM),
    _call("id", _U, _V),
    _call("id", st.lists(_U, min_size=1, max_size=3), st.lists(_V, max_size=1)),
)

#: A history begins with a few requests of one dialect as often as with a mixture.
moves: st.SearchStrategy[list[Move]] = st.one_of(
    st.lists(st.one_of(_NUCLEUS, _NUCLEUS, _AGAIN), min_size=1, max_size=9),
    st.lists(_VIBETRACE, min_size=1, max_size=9),
    st.lists(st.one_of(_ORBEE, _ORBEE, _VIBETRACE), min_size=1, max_size=12),
    st.lists(_GAMOOGA, min_size=1, max_size=9),
    st.lists(
        st.one_of(_NUCLEUS, _AGAIN, _VAIX, _ORBEE, _VIBETRACE, _GAMOOGA), min_size=1, max_size=16
    ),
)
shared: st.SearchStrategy[dict[str, frozenset[str]]] = st.sampled_from(
    [
        {},
        {},
        {"acme": frozenset({"vaix", "nucleus", "gamooga"})},
        {"acme": frozenset({"vaix", "gamooga"}), "other": frozenset({"nucleus", "vaix"})},
    ]
)


# --- requests ------------------------------------------------------------------------------------


def requests_of(history: Sequence[Move], number: int = 0) -> list[Request]:
    """What accept would have journaled, in the order of the history. The n-th request's id says n
    in its last two bytes; the bytes between are such that ids do not sort like the history.
    Histories of different numbers share no account, app or request id."""
    found: list[Request] = []
    visitors: dict[tuple[str, str, str], str] = {}
    for place, move in enumerate(history):
        request = _request(move, number, found)
        if request is None:
            continue
        digest = blake2b(place.to_bytes(2, "big"), digest_size=12).digest()
        request.request_id = number.to_bytes(2, "big") + digest + place.to_bytes(2, "big")
        request.received_at = AT + move.received * MINUTE_US
        if request.dialect == "gamooga":
            _identify(request, visitors)
        found.append(request)
    return found


def account_of(account: str, number: int) -> str:
    """The name of a history's account."""
    return f"{account}{number or ''}"


def _request(move: Move, number: int, before: Sequence[Request]) -> Request | None:
    name = account_of(move.account, number)
    account = {"account": name}
    if move.dialect == "again":
        return _again(move, before)
    if move.dialect == "nucleus":
        data = [_dated(event, "date") for event in move.said]
        body = json.dumps({"data": data}).encode()
        return a_request("POST", f"/app/{name}-{move.place}/track", body=body, **account)
    if move.dialect == "vaix":
        body = json.dumps({"user_id": move.said, "event_type": "clicks:event"}).encode()
        headers = {"x-vaix-client-id": move.place}
        return a_request("POST", "/api/tracker/events", body=body, headers=headers, **account)
    if move.dialect == "orbee":
        said = {"action": "view", "object": "page", "vendor": "V", "product": "P", **move.said}
        body = json.dumps(_dated(said, "dtm")).encode()
        return a_request("POST", f"/collect/{move.place}/event", body=body, **account)
    if move.dialect == "vibetrace":
        query = urlencode({"data": json.dumps(move.said)})
        return a_request("GET", f"/event/{move.place}/viewitem?{query}", **account)
    return _gamooga(move, name)


def _dated(event: dict[str, Any], field: str) -> dict[str, Any]:
    if field not in event:
        return event
    return {**event, field: (AT + event[field] * MINUTE_US) // 1000}


def _again(move: Move, before: Sequence[Request]) -> Request | None:
    """A Nucleus request sent again, after a lost acknowledgement, with the userId of now."""
    which, user = move.said
    sent = [request for request in before if request.dialect == "nucleus"]
    if not sent:
        return None
    first = sent[which % len(sent)]
    data = [{**event, "userId": user} for event in json.loads(first.body)["data"]]
    body = json.dumps({"data": data}).encode()
    return a_request("POST", first.target, body=body, account=first.account)


def _gamooga(move: Move, account: str) -> Request:
    given: list[tuple[str, str]] = [("c", COMPANY)]
    body = b""
    for name, value in move.said:
        if name == "tm":
            given.append((name, str((AT + value * MINUTE_US) // 1000)))
        elif name == "p":
            fields = ("p", "vl", "tp") if move.place == "vpr" else ("vky", "vvl", "vtp")
            given += zip(fields, value, strict=True)
        else:
            given.append((name, value))
    if move.place not in ("id", "vpr"):
        given.append(("e", "bought"))
    if move.place == "evwidj":
        body = b'{"size":1}'
    method = "POST" if move.place == "evwidj" else "GET"
    return a_request(method, f"/{move.place}/?{urlencode(given)}", body=body, account=account)


def _identify(request: Request, visitors: dict[tuple[str, str, str], str]) -> None:
    """Answer as the registry does (identity rule 10): what it said stands in the request."""
    question = gamooga.answer(request, _RULES).identify
    if question is None:
        return
    keys = [(request.account, question.scope, user) for user in question.users]
    mapped = [visitors[key] for key in keys if key in visitors]
    request.created = not mapped and not question.visitor
    request.state = mapped[0] if mapped else question.visitor or f"made-for-{question.users[0]}"
    for key in keys:
        visitors.setdefault(key, request.state)


# --- what the loader keeps of them ---------------------------------------------------------------


class Kept(NamedTuple):
    """A stored event with the request that it came in."""

    request: Request
    event: Event


def kept_events(requests: Iterable[Request]) -> list[Kept]:
    """The events of requests in order of arrival, first copies only."""
    seen: set[bytes] = set()
    found = []
    for request in requests:
        for event in _BY_NAME[request.dialect].decode(request, _RULES).events:
            if event.dedupe is not None:
                if event.dedupe in seen:
                    continue
                seen.add(event.dedupe)
            found.append(Kept(request, event))
    return found


def stored(kept: Kept) -> Stored:
    """A stored event as the reference takes it."""
    request, event = kept
    return Stored(
        account=request.account,
        dialect=request.dialect,
        scope=event.scope,
        identities=tuple(event.identities),
        alias=bool(event.raw.get("alias")),
        occurred_at=event.occurred_at,
        flagged=any(issue.code in ("future_date", "old_date") for issue in event.issues),
        received_at=request.received_at,
        request_id=request.request_id,
        index=event.index,
        session=event.session,
        profile_set=event.profile_set,
        profile_unset=tuple(event.profile_unset),
    )


def count_of(request: Request) -> int:
    """How many events a request counts as."""
    return _BY_NAME[request.dialect].answer(request, _RULES).events


def rearranged_as(requests: Sequence[Request], order: Sequence[int]) -> list[Request] | None:
    """The same requests in another order of arrival; None where copies would change theirs: which
    of them was first is fixed at arrival, and part of the set (identity rule 6)."""
    reached: dict[bytes, int] = {}
    for place in order:
        for copy in _copies(requests[place]):
            if reached.get(copy, -1) > place:
                return None
            reached[copy] = place
    return [requests[place] for place in order]


def rearranged(requests: Sequence[Request], chance: random.Random) -> list[Request]:
    """The same requests in any order of arrival in which copies keep theirs."""
    waiting = list(range(len(requests)))
    order: list[int] = []
    while waiting:
        held: set[bytes] = set()
        free: list[int] = []
        for place in waiting:
            copies = _copies(requests[place])
            if not copies & held:
                free.append(place)
            held |= copies
        order.append(chance.choice(free))
        waiting.remove(order[-1])
    arrived = rearranged_as(requests, order)
    assert arrived is not None
    return arrived


def _copies(request: Request) -> set[bytes]:
    if request.dialect != "nucleus":
        return set()
    return {event.dedupe for event in nucleus.decode(request, _RULES).events if event.dedupe}


def named(labels: Collection[tuple[bytes, int]]) -> list[str]:
    """Events as ``3.0``: the fourth move, its first event."""
    return sorted(
        f"{int.from_bytes(request_id[-2:], 'big')}.{index}" for request_id, index in labels
    )
