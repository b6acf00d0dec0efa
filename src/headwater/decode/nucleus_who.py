"""Whose a Nucleus event is: its five fields that say so, read together."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.decode.identifiers import identifier, identity, is_denied
from headwater.event import Identity, Issue, Strength

WHO_FIELDS = ("userId", "anonId", "deviceId", "machineId", "sessionId")


class Who(msgspec.Struct, kw_only=True):
    """What the five fields say, the same for most events of a message: read once for as long as
    they stay `said`. `context` has those that are no identifiers."""

    said: list[Any]
    device: str | None = None
    session: str | None = None
    identities: list[Identity] = []
    issues: list[Issue] = []
    context: dict[str, Any] = {}


NOBODY = Who(said=[])


def who_of(said: list[Any], app: str) -> Who:
    """Identifiers, device and session of events whose WHO_FIELDS hold `said`.

    A device makes a person only where no anonId does: fingerprints and machine ids repeat across
    phones and container images.
    """
    who = Who(said=said)
    texts = []
    for field, value in zip(WHO_FIELDS, said, strict=True):
        text = identifier(value)
        texts.append(text)
        if text is None and value is not None:  # true, a list
            who.context[field] = value
            who.issues.append(Issue("bad_type", field))
    user, anon, device, machine, session = texts
    if user is not None:
        who.identities.append(identity("nucleus:user", app, user, "strong"))
    strength: Strength = "weak"
    if anon is not None:
        who.identities.append(identity("nucleus:anon", app, anon, "weak"))
        if not is_denied(anon):
            strength = "context"
    if not device:
        device, machine = machine or device, None
    if device is not None:
        who.identities.append(identity("nucleus:device", app, device, strength))
    if machine is not None and machine != device:
        who.identities.append(identity("nucleus:device", app, machine, "context"))
    who.device, who.session = device, session or None
    if not session:
        who.issues.append(Issue("missing_field", "sessionId"))
    if not device:
        who.issues.append(Issue("missing_field", "deviceId"))
    return who
