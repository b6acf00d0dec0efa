"""Quality: rejected requests, issues, names and their property types, the tracking plan, the books.

Every figure is a question on the public views and carries its SQL. The plan in force is the hub's;
a draft of one is made of the property types that were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from headwater.errors import NotFound, WrongUse
from headwater.store.questions import quality as questions
from headwater.view.api import Answer, Ask, Asked, Endpoint

#: In a draft: of so many events of its name a property was in all, or nearly.
_REQUIRED_EVENTS = 100
_REQUIRED_SHARE = 0.999


class Kept(msgspec.Struct):
    """`account` "" is all; `days` is how far back, 0 for ever."""

    account: str = ""
    days: int = 7


class OfReason(Kept):
    """Samples of what was rejected for a reason."""

    dialect: str = ""
    reason: str = ""


class OfIssue(Kept):
    """Samples of events with an issue."""

    dialect: str = ""
    issue: str = ""


class OfName(msgspec.Struct):
    """The properties of one name; without one, what drifts."""

    account: str = ""
    dialect: str = ""
    name: str | None = None


class OfRequest(msgspec.Struct):
    """A request's id, and about when it was received (UTC, ISO 8601)."""

    request_id: str = ""
    at: str = ""


class OfAccount(msgspec.Struct):
    """`account` "" is all."""

    account: str = ""


class Rejected(msgspec.Struct, frozen=True):
    """What was rejected, over time and by reason."""

    over_time: Answer
    reasons: Answer


class Issues(msgspec.Struct, frozen=True):
    """What was odd about events that were accepted."""

    over_time: Answer
    issues: Answer


class Violations(msgspec.Struct, frozen=True):
    """What broke the tracking plan."""

    over_time: Answer
    violations: Answer


class Request(msgspec.Struct, frozen=True):
    """What became of one request."""

    events: Answer
    rejected: Answer


class Books(msgspec.Struct, frozen=True):
    """The books. `difference` is by how many events those of the journal and of loading differ
    since the hub's start; anything but 0 is a bug."""

    books: Answer
    difference: int


class PlanInForce(msgspec.Struct, frozen=True):
    """An account's tracking plan as its file says it; None where it has none."""

    account: str
    plan: Any


class Quality:
    """`plan_of` gives the text of an account's plan, "" for none; `accounts` the configured ones;
    `difference` see Books."""

    def __init__(
        self,
        ask: Ask,
        *,
        plan_of: Callable[[str], str],
        accounts: Callable[[], Sequence[str]],
        difference: Callable[[], int],
    ) -> None:
        self._ask = ask
        self._plan_of = plan_of
        self._accounts = accounts
        self._difference = difference

    def rejected(self, asked: Asked) -> Rejected:
        """Over time and by reason."""
        given = (asked.query.account, _days(asked))
        return Rejected(
            self._ask(questions.rejected_over_time(*given), asked.who),
            self._ask(questions.reasons(*given), asked.who),
        )

    def rejected_samples(self, asked: Asked) -> Answer:
        """The latest of one reason."""
        of = asked.query
        if not of.reason:
            raise WrongUse("samples of which reason?", remedy="give reason=…")
        sql = questions.rejected_samples(of.account, of.dialect, of.reason, _days(asked))
        return self._ask(sql, asked.who)

    def issues(self, asked: Asked) -> Issues:
        """Over time and by text."""
        given = (asked.query.account, _days(asked))
        return Issues(
            self._ask(questions.issues_over_time(*given), asked.who),
            self._ask(questions.issues(*given), asked.who),
        )

    def issue_samples(self, asked: Asked) -> Answer:
        """The latest events with one text."""
        of = asked.query
        if not of.issue:
            raise WrongUse("samples of which issue?", remedy="give issue=…")
        sql = questions.issue_samples(of.account, of.dialect, of.issue, _days(asked))
        return self._ask(sql, asked.who)

    def names(self, asked: Asked) -> Answer:
        """Event names."""
        return self._ask(questions.names(asked.query.account, _days(asked)), asked.who)

    def properties(self, asked: Asked) -> Answer:
        """Property types."""
        of = asked.query
        if of.name is None:
            return self._ask(questions.drift(of.account), asked.who)
        return self._ask(questions.properties(of.account, of.dialect, of.name), asked.who)

    def violations(self, asked: Asked) -> Violations:
        """Over time and by rule."""
        given = (asked.query.account, _days(asked))
        return Violations(
            self._ask(questions.violations_over_time(*given), asked.who),
            self._ask(questions.violations(*given), asked.who),
        )

    def request(self, asked: Asked) -> Request:
        """What became of one request."""
        of = asked.query
        try:
            ident = str(UUID(of.request_id))
        except ValueError:
            raise WrongUse("that is no request's id", remedy="give request_id=UUID") from None
        at = of.at.removesuffix("Z").replace("T", " ")
        if not at:
            raise WrongUse("received when?", remedy="give at=2026-11-21T10:00:00.000000Z")
        return Request(
            self._ask(questions.events_of_request(ident, at), asked.who),
            self._ask(questions.rejected_of_request(ident, at), asked.who),
        )

    def books(self, asked: Asked) -> Books:
        """The books."""
        answer = self._ask(questions.books(asked.query.account), asked.who)
        return Books(answer, self._difference())

    def plan(self, asked: Asked) -> list[PlanInForce]:
        """The plans in force."""
        found = []
        for account in self._accounts():
            if asked.query.account in ("", account) and asked.who.may_see(account):
                text = self._plan_of(account)
                found.append(PlanInForce(account, msgspec.Raw(text.encode()) if text else None))
        return found

    def draft(self, asked: Asked) -> dict[str, Any]:
        """A plan made of what was seen."""
        account = asked.query.account
        if not account:
            raise WrongUse("a plan of which account?", remedy="give account=NAME")
        if account not in self._accounts() or not asked.who.may_see(account):
            raise NotFound(f"there is no account {account[:64]}", remedy="name a configured one")
        answer = self._ask(questions.all_properties(account), asked.who)
        return draft_of([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])

    def endpoints(self) -> list[Endpoint]:
        """For the console's API."""
        told: tuple[tuple[str, str, Any, Callable[[Asked], Any], type[msgspec.Struct]], ...] = (
            (
                "rejected",
                "What was rejected, over time and by reason.",
                Rejected,
                self.rejected,
                Kept,
            ),
            (
                "rejected/samples",
                "The latest requests that were rejected for a reason, readable.",
                Answer,
                self.rejected_samples,
                OfReason,
            ),
            ("issues", "What was odd about accepted events, by text.", Issues, self.issues, Kept),
            (
                "issues/samples",
                "The latest events with an issue of that text.",
                Answer,
                self.issue_samples,
                OfIssue,
            ),
            ("names", "Event names: how many, first and last.", Answer, self.names, Kept),
            (
                "properties",
                "The types of a name's properties, and their drift; without a name, all drift.",
                Answer,
                self.properties,
                OfName,
            ),
            (
                "violations",
                "What broke the tracking plan, by name and rule.",
                Violations,
                self.violations,
                Kept,
            ),
            ("request", "What became of one request.", Request, self.request, OfRequest),
            ("books", "The books, and whether they close.", Books, self.books, OfAccount),
            ("plan", "The tracking plans in force.", list[PlanInForce], self.plan, OfAccount),
            (
                "draft",
                "A tracking plan made of what an account's events have been like.",
                dict[str, Any],
                self.draft,
                OfAccount,
            ),
        )
        return [
            Endpoint(
                method="GET",
                path=f"/api/quality/{path}",
                summary=summary,
                answer=answer,
                handle=handle,
                query=query,
            )
            for path, summary, answer, handle, query in told
        ]


def _days(asked: Asked) -> int:
    days: int = asked.query.days
    if not 0 <= days <= 36_500:
        raise WrongUse(f"{days} days?", remedy="give days=7; 0 is for ever")
    return days


# --- a draft ------------------------------------------------------------------------------------


def draft_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A plan that events like those seen keep to, which only counts what does not. `rows` are
    those of ``questions.all_properties``. Names that two dialects have stand in each of them. That
    a property was null is not known here: the store keeps no nulls."""
    events: dict[tuple[str, str], dict[str, Any]] = {}
    mixed = {
        (row["dialect"], row["name"], row["path"]) for row in rows if "mixed" in row["type"].split()
    }
    for row in rows:
        schema = events.setdefault((row["dialect"], row["name"]), {"type": "object"})
        if row["path"]:
            path = (row["dialect"], row["name"], row["path"])
            _put(schema, {**row, "type": "mixed"} if path in mixed else row)
    dialects: dict[str, set[str]] = {}
    for dialect, name in events:
        dialects.setdefault(name, set()).add(dialect)
    plan: dict[str, Any] = {"mode": "observe", "unplanned": "observe", "events": {}, "dialects": {}}
    for (dialect, name), schema in events.items():
        place = plan
        if len(dialects[name]) > 1:
            place = plan["dialects"].setdefault(dialect, {"events": {}})
        place["events"][name] = {"schema": schema}
    return plan


def _put(schema: dict[str, Any], row: dict[str, Any]) -> None:
    *outer, last = row["path"].split(".")
    if "*" in (*outer, last):
        return  # keys that are data: anything may stand there
    inner = schema
    for step in outer:
        inner = inner.setdefault("properties", {}).setdefault(step, {})
        _add_type(inner, "object")
    known = inner.setdefault("properties", {}).setdefault(last, {})
    kind = row["type"]
    if kind.startswith("array of "):
        _add_type(known, "array")
        items = kind.removeprefix("array of ")
        if "items" in known or items == "mixed" or items.startswith("array"):
            known["items"] = {}
        else:
            known["items"] = {"type": items}
    elif kind != "mixed":
        _add_type(known, kind)
    often = row["share"] >= _REQUIRED_SHARE and row["seen"] >= _REQUIRED_EVENTS
    if often and not outer and last not in schema.setdefault("required", []):
        schema["required"].append(last)
    if not schema.get("required", [""]):
        del schema["required"]


def _add_type(schema: dict[str, Any], kind: str) -> None:
    had = schema.get("type", [])
    kinds = {*([had] if isinstance(had, str) else had), kind}
    if "number" in kinds:
        kinds.discard("integer")
    schema["type"] = kinds.pop() if len(kinds) == 1 else sorted(kinds)
