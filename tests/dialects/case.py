"""The cases as data: reading them, and saying where a result differs from what a case expects.

A case is one JSON file under ``cases/<dialect>/``: `why`, `rules` (optional), `request`, `events`,
`rejected`, `heartbeats`, `answer`, and `kept` (false for what is refused before its account is
known). Only what an expected event lists is compared, and that exactly. ``$token`` stands for the
account's token, ``$vid`` for any visitor id that Headwater made.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from headwater.accept.request import KEPT_HEADERS, Rules
from headwater.event import Decoded, Event

CASES = Path(__file__).with_name("cases")
VISITOR = re.compile(r"[0-9a-z]{16}")
#: 2026-11-21T02:31:03Z: the instant at which pure runs receive.
RECEIVED_AT = 1_795_226_263_000_000
STATE = "k3v9q0t1x7m2b5za"
HOST = "127.0.0.1:8080"

_FIELDS = frozenset(
    {"why", "rules", "request", "events", "rejected", "heartbeats", "answer", "kept"}
)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `name` is ``<dialect>/<file>``; `rules` is None where the case sets none."""

    name: str
    dialect: str
    why: str
    rules: dict[str, Any] | None
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    websocket: bool
    binary: bool
    state: str
    events: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    heartbeats: int
    answer: dict[str, Any]
    kept: bool

    @property
    def received(self) -> int:
        """How many events it counts as."""
        return len(self.events) + len(self.rejected) + self.heartbeats if self.kept else 0

    def rules_value(self) -> Rules:
        """Its rules as the decoders take them."""
        given = dict(self.rules or {})
        for name in ("event_types", "groups"):
            if given.get(name) is not None:
                given[name] = frozenset(given[name])
        return Rules(**given)

    def kept_headers(self, *, host: str = HOST) -> dict[str, str]:
        """The headers that a decoder sees."""
        lower = {name.lower(): value for name, value in self.headers.items()}
        lower.setdefault("host", host)
        return {name: value for name, value in lower.items() if name in KEPT_HEADERS}


def as_bytes(text: str) -> bytes:
    """Text of a target or header: one byte a character, or UTF-8 where that cannot be."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def read_case(path: Path) -> Case:
    """The case in a file. Raises ValueError for a key that the format does not have."""
    written = json.loads(path.read_text())
    unknown = set(written) - _FIELDS
    if unknown:
        raise ValueError(f"{path.name}: unknown keys {sorted(unknown)}")
    request = written["request"]
    body = request.get("body", "")
    return Case(
        name=f"{path.parent.name}/{path.stem}",
        dialect=path.parent.name,
        why=written["why"],
        rules=written.get("rules"),
        method=request.get("method", "GET"),
        target=as_bytes(request["target"]).decode("latin-1"),
        headers=request.get("headers", {}),
        body=base64.b64decode(request["body_base64"])
        if "body_base64" in request
        else body.encode(),
        websocket=request.get("transport", "http") == "websocket",
        binary=bool(request.get("binary", False)),
        state=request.get("state", STATE),
        events=written.get("events", []),
        rejected=written.get("rejected", []),
        heartbeats=written.get("heartbeats", 0),
        answer=written["answer"],
        kept=written.get("kept", True),
    )


def read_cases() -> list[Case]:
    """All of them, by dialect and file name."""
    return [read_case(path) for path in sorted(CASES.glob("*/*.json"))]


# --- comparing ---------------------------------------------------------------------------------


def plain(value: Any) -> str:
    """JSON text that is equal exactly for equal JSON values: 1, "1", 1.0 and true all differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def same(expected: Any, found: Any) -> bool:
    """Equality of JSON values, where ``$vid`` stands for any visitor id."""
    if expected == "$vid":
        return isinstance(found, str) and VISITOR.fullmatch(found) is not None
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(
            same(value, found[key]) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    return plain(expected) == plain(found)


def answer_differs(case: Case, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """What is wrong with an answer, in words; `headers` in lower case."""
    wrong = []
    expected = case.answer
    if not case.websocket and status != expected["status"]:
        wrong.append(f"status {status}, expected {expected['status']}: {body[:200]!r}")
    for name, value in expected.get("headers", {}).items():
        if headers.get(name.lower()) != value:
            wrong.append(f"header {name}: {headers.get(name.lower())!r}, expected {value!r}")
    if "json" in expected:
        try:
            found = json.loads(body)
        except ValueError:
            wrong.append(f"body is no JSON: {body[:200]!r}")
        else:
            if not same(expected["json"], found):
                wrong.append(f"body {found}, expected {expected['json']}")
    if "body" in expected:
        pattern = re.escape(expected["body"]).replace(re.escape("$vid"), VISITOR.pattern)
        if re.fullmatch(pattern, body.decode()) is None:
            wrong.append(f"body {body[:300]!r}, expected {expected['body']!r}")
    return wrong


def event_as_plain(event: Event) -> dict[str, Any]:
    """An event as case files write one."""
    return {
        **{
            name: getattr(event, name)
            for name in (
                "index",
                "kind",
                "name",
                "scope",
                "occurred_at",
                "session",
                "properties",
                "profile_set",
                "profile_unset",
                "context",
                "raw",
            )
        },
        "identities": [list(msgspec.to_builtins(one)) for one in event.identities],
        "issues": [issue.code for issue in event.issues],
        "dedupe": event.dedupe is not None,
    }


def decoded_differs(case: Case, decoded: Decoded) -> list[str]:
    """What is wrong with a decoded request, in words."""
    wrong = []
    if len(decoded.events) != len(case.events):
        wrong.append(f"{len(decoded.events)} events, expected {len(case.events)}: {decoded}")
    for number, (expected, event) in enumerate(zip(case.events, decoded.events, strict=False)):
        found = event_as_plain(event)
        for field, value in expected.items():
            if field == "identities":
                value = [[*one, False] if len(one) == 4 else one for one in value]
            if not same(value, found[field]):
                wrong.append(f"events[{number}].{field}: {found[field]!r}, expected {value!r}")
    found_rejected = [{"reason": one.reason, "index": one.index} for one in decoded.rejected]
    expected_rejected = [
        {"reason": one["reason"], "index": one.get("index", 0)} for one in case.rejected
    ]
    if found_rejected != expected_rejected:
        wrong.append(f"rejected {found_rejected}, expected {expected_rejected}")
    if decoded.heartbeats != case.heartbeats:
        wrong.append(f"{decoded.heartbeats} heartbeats, expected {case.heartbeats}")
    return wrong
