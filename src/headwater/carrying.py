"""Whether a request carries somebody's identifiers, for export and erasure.

What is stored says so by its keys; what never became an event (copies, heartbeats, rejected
requests) has to be read. A request that decodes is judged by the identities of its events, exactly.
One that does not is judged by its text: an identifier counts where one of its dialect's fields is
followed by it, and, if it is long enough to be nobody else's by chance, wherever it stands by
itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from headwater import limits
from headwater.accept.encoding import EncodingError, inflate
from headwater.accept.request import Request
from headwater.decoding import Judge
from headwater.event import Identity

#: The fields in which a namespace's values come, lower-case.
_FIELDS = {
    "vaix:user": "user_id",
    "nucleus:user": "userid",
    "nucleus:anon": "anonid",
    "nucleus:device": "deviceid|machineid",
    "vibetrace:user": "userid|_vt_user",
    "vibetrace:session": "sessionid",
    "vibetrace:vtsid": "_vtsid",
    "gamooga:user": "u",
    "gamooga:visitor": "v",
    "orbee:instance": "instance_id",
    "orbee:duid": "duid",
    "email": "email",
}
#: Values at least this long are looked for anywhere, not behind their field only.
_TELLING_CHARACTERS = 8
_RUNS = re.compile(rb"[0-9a-z]+")
_RUNS_OF_TEXT = re.compile(r"[0-9a-z]+")
_ESCAPE = re.compile(rb"\\[^u]")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
#: (namespace, scope, value)
Identifier = tuple[str, str, str]


class Carrying:
    """Looks for some identifiers of one account."""

    def __init__(self, account: str, identifiers: Iterable[Identifier], judge: Judge) -> None:
        self._account = account
        self._identifiers = frozenset(identifiers)
        self._judge = judge
        # What a request must hold of an identifier: escapes of every kind leave ASCII letters and
        # digits alone, so the longest run of them stands there as it is.
        runs = [_longest_run(value) for _, _, value in self._identifiers]
        self.runs = frozenset(run for run in runs if run)
        self.searchable = "" not in runs
        patterns: dict[tuple[str, str], set[str]] = {}
        for namespace, scope, value in self._identifiers:
            place = (namespace.partition(":")[0], scope.lower())
            patterns.setdefault(place, set()).add(_pattern(namespace, value))
        self._in_text = {place: re.compile("|".join(some)) for place, some in patterns.items()}

    def __bool__(self) -> bool:
        return bool(self._identifiers)

    def may_be_in(self, request: Request) -> bool:
        """A quick look: whether it is worth decoding."""
        if not self._identifiers:
            return False
        if request.account != self._account or request.erased is not None:
            return False
        if not self.searchable or "content-encoding" in request.headers:
            return True
        text = b"\n".join(
            (
                request.target.encode("latin-1", "replace"),
                request.body,
                request.headers.get("cookie", "").encode("latin-1", "replace"),
                request.state.encode(),
            )
        )
        if b"%" in text:
            text = unquote_to_bytes(text)
        if b"\\" in text:
            if b"\\u" in text:
                return True
            text = _ESCAPE.sub(b" ", text)
        found = {run.decode() for run in _RUNS.findall(text.lower())}
        return not self.runs.isdisjoint(found)

    def is_in(self, request: Request) -> bool:
        """Whether an event of the request has one of the identifiers, or where something of it was
        rejected, its text."""
        decoded = self._judge.again(request)
        for event in decoded.events:
            if any(self._has(one) for one in event.identities):
                return True
        if decoded.events and not decoded.rejected:
            return False
        return self.is_in_text(request.dialect, whole_text(request))

    def _has(self, one: Identity) -> bool:
        return not one.denied and (one.namespace, one.scope, one.value) in self._identifiers

    def is_in_text(self, dialect: str, text: str) -> bool:
        """Whether the text of a request of a dialect (`whole_text`, ``store.rows.readable``) holds
        one of the identifiers, and its scope."""
        plain = unquote_to_bytes(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        plain = _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), plain)
        plain = plain.replace('\\"', '"').replace("\\/", "/").lower()
        return any(
            family in (dialect, "email") and scope in plain and pattern.search(plain) is not None
            for (family, scope), pattern in self._in_text.items()
        )


def whole_text(request: Request) -> str:
    """A request as a person reads it, all of it: request line, headers, body (inflated); bytes that
    are no UTF-8 as escapes."""
    body = request.body
    encoding = request.headers.get("content-encoding")
    if encoding and request.transport == "http":
        with contextlib.suppress(EncodingError):  # refused for it: as it came
            body = inflate(body, encoding, limits.nucleus_body_bytes_max)
    lines = [f"{request.method} {request.target}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\n".join(lines) + "\n\n" + body.decode("utf-8", "backslashreplace")


def _longest_run(value: str) -> str:
    return max(_RUNS_OF_TEXT.findall(value.lower()), key=len, default="")


def _pattern(namespace: str, value: str) -> str:
    """A value by itself; a short one only behind its field: `"user_id": "5"`, `u=5`."""
    if namespace == "orbee:instance":
        value = value.rpartition("\u001f")[2]
    literal = re.escape(value.lower())
    if len(value) >= _TELLING_CHARACTERS:
        return rf"(?<![0-9a-z]){literal}(?![0-9a-z])"
    return rf"(?<![0-9a-z])(?:{_FIELDS[namespace]})[\"']?\s*[:=]\s*[\"']?\s*{literal}(?![0-9a-z])"
