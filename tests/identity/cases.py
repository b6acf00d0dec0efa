"""A scenario in one order of arrival, with scopes of its own, and its lines as requests.

Every scenario uses the same few texts (A, ann, v1 …). What keeps them apart is what keeps real
people apart: apps, companies, client groups, of which each case has its own. Addresses are
account-wide and get a tag in front; the same ones occur in several accounts. So do user ids where
they are shared.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tests.identity.notation import Line, Scenario

#: All orders of four requests; of more, this many: as written, the reverse, and a sample.
ORDERS_MAX = 12
#: The orders of a scenario take turns in this many accounts.
ACCOUNTS = 3
_MINUTE_MS = 60_000
_USERS = ("user_id", "userId", "u")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario in one order. `at_once`: its requests follow one another without a pause, so
    that they are loaded together. `arrivals` are the lines of the first phase in their order."""

    scenario: Scenario
    tag: str
    order: int
    at_once: bool
    arrivals: tuple[Line, ...]

    @property
    def account(self) -> str:
        shared = self.scenario.shared_user_ids
        return f"shared-{self.tag}" if shared else f"account-{self.order % ACCOUNTS}"

    @property
    def name(self) -> str:
        return f"{self.tag}-{self.order}"

    @property
    def as_written(self) -> bool:
        return self.arrivals == self.scenario.before

    @property
    def rest(self) -> tuple[Line, ...]:
        """The lines of the second phase."""
        return tuple(line for line in self.scenario.lines if line not in self.arrivals)

    # --- scopes -----------------------------------------------------------------------------------

    def app(self, name: str) -> str:
        return f"{self.name}-{name}"

    def company(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}-{name}"))

    def aid(self, name: str) -> str:
        return str(int(hashlib.sha256(f"{self.name}-{name}".encode()).hexdigest()[:12], 16) + 1)

    def text(self, key: str, text: str) -> str:
        """The text of a field; one that is a key of the whole account is tagged."""
        if self.scenario.shared_user_ids and key in _USERS:
            return f"{text}-{self.order}"
        bare = text.lstrip()
        if "@" not in text:
            return text
        return f"{text[: -len(bare)]}{self.tag}-{self.order // ACCOUNTS}.{bare}"


def cases_of(scenario: Scenario, number: int) -> list[Case]:
    """Every order of a scenario, or a sample; then the first and the last of them at once."""
    orders = _orders(scenario, number)
    tag = f"s{number}"
    spread = [(order, False) for order in orders]
    together = [(order, True) for order in orders[:: max(1, len(orders) - 1)]]
    return [
        Case(scenario=scenario, tag=tag, order=place, at_once=at_once, arrivals=order)
        for place, (order, at_once) in enumerate(spread + together)
    ]


def _orders(scenario: Scenario, seed: int) -> list[tuple[Line, ...]]:
    if not scenario.every_order:
        return [scenario.before]
    # What comes after an undo stays there; what comes after a load may as well come before it.
    lines = scenario.before if scenario.turn == "undo" else scenario.lines
    places = range(len(lines))
    found = {tuple(range(len(scenario.before))): None, tuple(places)[::-1]: None}
    if len(lines) <= 4:
        found |= dict.fromkeys(itertools.permutations(places))
    chance = random.Random(seed)
    while len(lines) > 4 and len(found) < ORDERS_MAX:
        found[tuple(chance.sample(places, len(lines)))] = None
    return [tuple(lines[place] for place in order) for order in found]


# --- accounts ------------------------------------------------------------------------------------


def token_of(account: str) -> str:
    """The VAIX token of an account."""
    return f"token-{account}"


def accounts_toml(cases: Iterable[Case]) -> str:
    """The accounts that the cases' requests belong to."""
    apps: dict[str, set[str]] = {}
    companies: dict[str, set[str]] = {}
    sites: dict[str, set[str]] = {}
    trackers: dict[str, set[str]] = {}
    shared: dict[str, tuple[str, ...]] = {}
    for case in cases:
        for line in case.scenario.lines:
            account = account_of(case, line)
            shared.setdefault(account, case.scenario.shared_user_ids)
            scope = scope_of(case, line)
            kept = {"nucleus": apps, "gamooga": companies, "vibetrace": sites, "orbee": trackers}
            if line.dialect != "vaix":
                kept[line.dialect].setdefault(account, set()).add(scope)
    parts = []
    for account, dialects in shared.items():
        digest = hashlib.sha256(token_of(account).encode()).hexdigest()
        parts.append(f'[accounts."{account}"]\nshared_user_ids = {json.dumps(dialects)}')
        parts.append(f'[accounts."{account}".vaix]\ntokens = ["sha256:{digest}"]')
        for dialect, key, scopes in (
            ("nucleus", "apps", apps),
            ("gamooga", "companies", companies),
            ("vibetrace", "accounts", sites),
            ("orbee", "trackers", trackers),
        ):
            listed = sorted(scopes.get(account, ()))
            if listed:
                parts.append(f'[accounts."{account}".{dialect}]\n{key} = {json.dumps(listed)}')
    return "\n".join(parts)


def account_of(case: Case, line: Line) -> str:
    """The account of a line; ``account=`` names another one than the case's own."""
    other = line.get("account")
    return f"{case.account}-{other}" if other else case.account


def scope_of(case: Case, line: Line) -> str:
    """What says in the request whose it is, as the event's `scope` has it."""
    # Two accounts cannot have the same app: here the other account's has another name, and the
    # texts of the keys are what is equal.
    name = line.get("in") or "main"
    if line.dialect != "vaix":
        name += line.get("account") or ""
    if line.dialect == "gamooga":
        return case.company(name)
    if line.dialect == "orbee":
        return f"{case.aid(name)}/{line.get('tid') or 1}"
    return case.app(name)


# --- requests ------------------------------------------------------------------------------------


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request before it is written out; `message` for one that goes over a WebSocket."""

    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = {}
    message: bool = False


def request_of(case: Case, line: Line, midnight_ms: int, made: dict[str, str]) -> Sent:
    """The request of a line, marked so that its event is found again. `made` holds the visitor ids
    that were answered so far, by their names in the scenario."""
    at = None if line.minute is None else midnight_ms + line.minute * _MINUTE_MS
    fields = []
    for key, value in line.fields:
        if key in ("in", "account", "tid"):
            continue
        if isinstance(value, str):
            value = made[value] if value.startswith("$") else case.text(key, value)
        fields.append((key, value))
    make = {
        "vaix": _vaix,
        "orbee": _orbee,
        "nucleus": _nucleus,
        "vibetrace": _vibetrace,
        "gamooga": _gamooga,
    }[line.dialect]
    return make(case, line, fields, at, f"{case.name}/{line.number}")


def _vaix(
    case: Case, line: Line, fields: Sequence[tuple[str, Any]], at: int | None, mark: str
) -> Sent:
    assert at is None, "VAIX has no client time"
    body = {"event_type": line.verb, "data": line.payload or {}, "mark": mark, **dict(fields)}
    headers = {
        "Authorization": f"Bearer {token_of(account_of(case, line))}",
        "x-vaix-client-id": scope_of(case, line),
    }
    return Sent(
        method="POST", target="/api/tracker/events", body=msgspec.json.encode(body), headers=headers
    )


def _orbee(
    case: Case, line: Line, fields: Sequence[tuple[str, Any]], at: int | None, mark: str
) -> Sent:
    action, _, what = line.verb.partition(":")
    body = {"action": action, "object": what, "vendor": "V", "product": "P", "mark": mark}
    timed = {} if at is None else {"dtm": at}
    return Sent(
        method="POST",
        target=f"/collect/{scope_of(case, line)}/event",
        body=msgspec.json.encode({**body, **timed, **(line.payload or {}), **dict(fields)}),
    )


_NUCLEUS_TYPES = {"view": "nucleus:view"}


def _nucleus(
    case: Case, line: Line, fields: Sequence[tuple[str, Any]], at: int | None, mark: str
) -> Sent:
    event: dict[str, Any] = {"type": _NUCLEUS_TYPES.get(line.verb, line.verb), "mark": mark}
    event["id"] = line.number
    if line.name:
        event["name"] = line.name
    if at is not None:
        event["date"] = at
    if line.payload is not None:
        event["payload"] = line.payload
    body = msgspec.json.encode({"data": [{**event, **dict(fields)}]})
    target = f"/app/{scope_of(case, line)}/track"
    # Half of the cases speak as the vendor's clients do.
    return Sent(method="POST", target=target, body=body, message=case.order % 2 == 1)


def _vibetrace(
    case: Case, line: Line, fields: Sequence[tuple[str, Any]], at: int | None, mark: str
) -> Sent:
    assert at is None, "Vibetrace has no client time"
    event: dict[str, Any] = {"type": line.verb}
    generic = dict(line.payload or {})
    headers = {}
    for key, value in fields:
        if key == "generic.email":
            generic["email"] = value
        elif key == "cookie":
            headers["Cookie"] = f"_vt_user={value}"
        else:
            event[key] = value
    if generic:
        event["generic"] = generic
    query = urlencode({"data": json.dumps([event]), "ts": "417", "mark": mark})
    target = f"/event/{scope_of(case, line)}/{quote(line.verb)}?{query}"
    return Sent(method="GET", target=target, headers=headers)


_TYPES = {bool: "b", int: "n", float: "n", str: "s"}


def _gamooga(
    case: Case, line: Line, fields: Sequence[tuple[str, Any]], at: int | None, mark: str
) -> Sent:
    query = [("c", scope_of(case, line)), *((key, str(value)) for key, value in fields)]
    if line.verb.startswith("ev"):
        query.append(("e", line.name or "visit"))
    names = {"vpr": ("p", "vl", "tp"), "evvprwid": ("vky", "vvl", "vtp")}
    for name, value in (line.payload or {}).items():
        text = json.dumps(value) if isinstance(value, bool) else str(value)
        spelled = names.get(line.verb, ("ky", "vl", "tp"))
        query += zip(spelled, (name, text, _TYPES[type(value)]), strict=True)
    if at is not None:
        query.append(("tm", str(at)))
    query.append(("mark", mark))
    return Sent(method="GET", target=f"/{line.verb}/?{urlencode(query)}")
