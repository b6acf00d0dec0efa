"""The tracking plan: what an account says its events should look like, and what becomes of others.

A plan is a JSON file: a mode for what breaks it, and by event name a JSON Schema (draft 2020-12,
or what its ``$schema`` says) for the properties. It is looked at behind the journal, between
enrichment and rows, in loading and in a replay alike, so that a replay after a change gives what
the plan says now; the vendor's answer never depends on it. docs/tracking-plan.md says how to write
one.

What is broken is said in words made of the plan alone: names that it holds, never a client's value
or key. So the counts that are kept of it hold nothing about a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.config import DIALECTS, Account
from headwater.errors import ConfigError
from headwater.event import Decoded, Event, Issue, Rejection, Violation

log = logging.getLogger("headwater.resolve")

Mode = Literal["observe", "warn", "reject"]
#: The reason of a rejected row.
REASON = "plan_violation"
UNPLANNED = "the plan does not have this name"
TOO_LARGE = "properties break the plan, and are too large to say where"
UNREADABLE = "properties cannot be checked"
#: Kinds whose names are mostly the dialect's own: the plan may name them, and need not.
_NEVER_UNPLANNED = frozenset({"session_start", "identify", "profile", "error"})
#: By which an erasure finds whose a rejected item was (``carrying.py``): as the client wrote them.
_FIELDS = {
    "nucleus:user": "userId",
    "nucleus:anon": "anonId",
    "nucleus:device": "deviceId",
    "vibetrace:user": "userId",
    "vibetrace:session": "sessionId",
    "vibetrace:vtsid": "_vtsid",
    "gamooga:user": "u",
    "gamooga:visitor": "v",
}
_REMEDY = "see docs/tracking-plan.md"


class EventPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event name. `schema` is a JSON Schema for the properties."""

    schema: dict[str, Any] | bool = True
    mode: Mode | None = None
    description: str = ""


class DialectPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one dialect has of its own; what it leaves out is as for all."""

    mode: Mode | None = None
    unplanned: Mode | None = None
    events: dict[str, EventPlan] = msgspec.field(default_factory=dict)


class PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `unplanned` is what becomes of names that it does not have."""

    mode: Mode = "observe"
    unplanned: Mode = "observe"
    description: str = ""
    events: dict[str, EventPlan] = msgspec.field(default_factory=dict)
    dialects: dict[str, DialectPlan] = msgspec.field(default_factory=dict)


class _Rule(msgspec.Struct, frozen=True):
    mode: Mode
    validator: Any  # None: every event of that name is right


class _Schema(msgspec.Struct, frozen=True):
    """A compiled schema, and the names of properties that it mentions."""

    validator: Any
    names: frozenset[str]


class Plan:
    """One account's plan, compiled. Any thread."""

    def __init__(self, text: str, where: str) -> None:
        """`text` is the file's, `where` what it is called in errors. Raises ConfigError."""
        self.text = text
        try:
            file = msgspec.json.decode(text, type=PlanFile)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}", remedy=_REMEDY) from error
        for dialect in file.dialects:
            if dialect not in DIALECTS:
                raise ConfigError(
                    f'{where}: dialects: "{dialect}" is no dialect',
                    remedy=f"known: {', '.join(DIALECTS)}",
                )
        count = len(file.events) + sum(len(one.events) for one in file.dialects.values())
        if count > limits.plan_names_max:
            raise ConfigError(
                f"{where}: {count:,} names, and at most {limits.plan_names_max:,} are looked at",
                remedy="leave out what need not be checked",
            )
        common = _compiled(file.events, f"{where}: events")
        self._rules: dict[str, dict[str, _Rule]] = {}
        self._unplanned: dict[str, Mode] = {}
        for dialect in DIALECTS:
            own = file.dialects.get(dialect) or DialectPlan()
            mode = own.mode or file.mode
            rules = _rules(file.events, common, mode)
            compiled = _compiled(own.events, f"{where}: dialects.{dialect}.events")
            rules |= _rules(own.events, compiled, mode)
            self._rules[dialect] = rules
            self._unplanned[dialect] = own.unplanned or file.unplanned

    def check(self, request: Request, decoded: Decoded) -> None:
        """Do with each event what the plan says: nothing, an issue, or a rejection; note what was
        broken in `decoded.violations`. Never raises, whatever a client sent."""
        rules = self._rules[request.dialect]
        refused: list[Event] = []
        found: list[Violation] = []
        items = len(decoded.events) + len(decoded.rejected)
        for row, event in enumerate(decoded.events):
            rule = rules.get(event.name)
            if rule is None:
                if event.kind in _NEVER_UNPLANNED:
                    continue
                mode, broken = self._unplanned[request.dialect], [UNPLANNED]
            else:
                mode, schema = rule.mode, rule.validator
                if schema is None:
                    continue
                broken = _broken(schema, event.properties)
                if not broken:
                    continue
            rejected = mode == "reject"
            if rejected:
                refused.append(event)
            elif mode == "warn":
                event.issues = [*event.issues, *(Issue("plan", "", text) for text in broken)]
            found.append(
                Violation(-1 if rejected else row - len(refused), event.name, mode, broken)
            )
        if refused:
            gone = set(map(id, refused))
            decoded.events = [event for event in decoded.events if id(event) not in gone]
            texts = ("; ".join(one.rules) for one in found if one.row < 0)
            decoded.rejected += [
                Rejection(
                    index=event.index,
                    reason=REASON,
                    detail=f"{event.name[: limits.plan_text_chars_max]}: {text}",
                    scope=event.scope,
                    piece=_piece(event) if items > 1 else "",
                )
                for event, text in zip(refused, texts, strict=True)
            ]
        decoded.violations = found


class Plans:
    """The plans in force, by account. One thread changes them, any asks."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def use(self, accounts: Mapping[str, Account]) -> None:
        """Put the accounts' plans in force; one that is wrong all the same is reported, and what
        was in force stays."""
        plans: dict[str, Plan] = {}
        for name, account in accounts.items():
            if not account.plan_text:
                continue
            old = self._plans.get(name)
            if old is not None and old.text == account.plan_text:
                plans[name] = old
                continue
            try:
                plans[name] = Plan(account.plan_text, account.plan)
            except ConfigError as error:
                log.error("the tracking plan of %s is not in force: %s", name, error)
                if old is not None:
                    plans[name] = old
        self._plans = plans

    def of(self, account: str) -> Plan | None:
        """The account's plan, None where it has none."""
        return self._plans.get(account)

    def text(self, account: str) -> str:
        """The plan in force as it stands in the file, "" for none."""
        plan = self._plans.get(account)
        return plan.text if plan is not None else ""


def read(path: Path) -> str:
    """A plan file's text, checked. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(limits.plan_bytes_max + 1)
    except OSError as error:
        raise ConfigError(
            f'"{path}" cannot be read: {error.strerror}', remedy="give a JSON file"
        ) from error
    if len(raw) > limits.plan_bytes_max:
        raise ConfigError(
            f'"{path}" is over {limits.plan_bytes_max // 1024} KiB',
            remedy="leave out what need not be checked",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f'"{path}" is not UTF-8', remedy="save the file as UTF-8") from error
    if not text.strip():
        raise ConfigError(f'"{path}" is empty', remedy=_REMEDY)
    Plan(text, f'"{path}"')
    return text


# --- compiling ----------------------------------------------------------------------------------


def _rules(
    events: Mapping[str, EventPlan], schemas: Mapping[str, _Schema | None], mode: Mode
) -> dict[str, _Rule]:
    return {name: _Rule(one.mode or mode, schemas[name]) for name, one in events.items()}


def _compiled(events: Mapping[str, EventPlan], where: str) -> dict[str, _Schema | None]:
    found: dict[str, _Schema | None] = {}
    for name, one in events.items():
        if one.schema is True or one.schema == {}:
            found[name] = None
            continue
        try:
            # Nothing is fetched; patterns run in linear time, since clients choose the texts.
            validator = jsonschema_rs.validator_for(
                one.schema,
                validate_formats=True,
                ignore_unknown_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        except (
            ValueError,
            jsonschema_rs.ReferencingError,
        ) as error:  # ValidationError is a ValueError
            place = "".join(f".{part}" for part in getattr(error, "instance_path", ()))
            words = str(error).partition("\n")[0]
            raise ConfigError(
                f'{where}["{name}"].schema{place}: {words}',
                remedy="write a JSON Schema; references within the schema only, patterns without "
                "look-around",
            ) from error
        found[name] = _Schema(validator, frozenset(_names(one.schema)))
    return found


def _names(schema: object) -> Iterable[str]:
    """The names of properties that a schema mentions."""
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            named = one.get("properties")
            if isinstance(named, dict):
                yield from named
            todo += one.values()
        elif isinstance(one, list):
            todo += one


# --- one event ----------------------------------------------------------------------------------


def _broken(schema: _Schema, properties: dict[str, Any]) -> list[str]:
    """What is broken, in words; nothing for an event that is right."""
    try:
        if schema.validator.is_valid(properties):
            return []
        if not _is_small(properties):
            # Every error is an object of 1.5 KB, and there may be one for each value.
            return [TOO_LARGE]
        found: dict[str, None] = {}
        for error in schema.validator.iter_errors(properties):
            found[_words(error, schema.names)] = None
            if len(found) == limits.plan_violations_max:
                break
        return list(found)
    except (ValueError, RecursionError, OverflowError):  # a lone surrogate, for one
        return [UNREADABLE]
    except BaseException as error:
        # A panic of the library's is no Exception; it would come again with every start.
        if type(error).__name__ != "PanicException":
            raise
        log.exception("the validator failed")
        return [UNREADABLE]


def _is_small(value: dict[str, Any]) -> bool:
    left = limits.plan_values_max
    todo: list[Any] = [value]
    while todo:
        one = todo.pop()
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left -= len(inner)
        if left < 0:
            return False
        todo += [item for item in inner if isinstance(item, dict | list)]
    return True


def _words(error: Any, names: frozenset[str]) -> str:
    kind = error.kind
    keyword = str(kind.name)
    if (
        keyword == "falseSchema"
        and error.schema_path
        and error.schema_path[-1] not in error.instance_path[-1:]
    ):
        keyword = str(error.schema_path[-1])  # {"additionalProperties": false} alone says so
    path = "".join(_step(part, names) for part in error.instance_path)
    say = _SAYINGS.get(keyword)
    if keyword == "required":
        path, said = f"{path}/{_escaped(kind.property)}", "is missing"
    elif say is not None:
        said = say(kind)
    else:
        said = f"breaks {keyword}"
    return f"{path or 'properties'} {said}"[: limits.plan_text_chars_max]


def _step(part: str | int, names: frozenset[str]) -> str:
    """A place in a list is any, and so is a key that the plan does not name."""
    return f"/{_escaped(part)}" if isinstance(part, str) and part in names else "/*"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _kinds(kinds: Iterable[str]) -> str:
    return " or ".join(
        one if one == "null" else f"{'an' if one[0] in 'aio' else 'a'} {one}"
        for one in sorted(kinds)
    )


_SAYINGS: dict[str, Callable[[Any], str]] = {
    "type": lambda kind: f"is not {_kinds(kind.types)}",
    "enum": lambda kind: "is not one of the values allowed",
    "const": lambda kind: "is not the value allowed",
    "format": lambda kind: f'is not of the format "{kind.format}"',
    "pattern": lambda kind: "does not match the pattern",
    "minimum": lambda kind: f"is less than {kind.limit}",
    "maximum": lambda kind: f"is more than {kind.limit}",
    "exclusiveMinimum": lambda kind: f"is not more than {kind.limit}",
    "exclusiveMaximum": lambda kind: f"is not less than {kind.limit}",
    "multipleOf": lambda kind: "is not a multiple of what it should be",
    "minLength": lambda kind: f"is shorter than {kind.limit}",
    "maxLength": lambda kind: f"is longer than {kind.limit}",
    "minItems": lambda kind: f"has fewer than {kind.limit} items",
    "maxItems": lambda kind: f"has more than {kind.limit} items",
    "uniqueItems": lambda kind: "has an item twice",
    "additionalProperties": lambda kind: "has a property that the plan does not name",
    "unevaluatedProperties": lambda kind: "has a property that the plan does not name",
    "falseSchema": lambda kind: "must not be there",
    "anyOf": lambda kind: "is none of what it may be",
    "oneOf": lambda kind: "is none, or more than one, of what it may be",
}


def _piece(event: Event) -> str:
    """A rejected item of many, as text: what it says, and who it says did it."""
    item: dict[str, Any] = {"name": event.name}
    for one in event.identities:
        item[_FIELDS.get(one.namespace, one.namespace)] = one.value
    if event.session:
        item["session"] = event.session
    item["properties"] = event.properties
    if event.profile_set:
        item["profile"] = event.profile_set
    try:
        return msgspec.json.encode(item).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""  # then the whole request is shown
