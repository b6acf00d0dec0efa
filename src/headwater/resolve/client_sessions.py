"""Sessions that clients name themselves: Nucleus and Vibetrace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headwater.accept.request import Request
from headwater.event import Event, Sign, effective_at
from headwater.resolve.evidence import Pulse
from headwater.resolve.keys import id_of

#: Namespaces whose value makes a client's session id unique (identity, section 4), by preference.
_SESSION_OWNERS = {
    "nucleus": ("nucleus:device", "nucleus:anon", "nucleus:user"),
    "vibetrace": ("vibetrace:user",),
}
_SESSIONS_REMEMBERED = 50_000


class SessionIds:
    """Ids of the sessions that clients name: the same for the same (account, dialect, scope, owner,
    session text). Remembers the last ones, since events of a session come together."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], bytes] = {}
        self._last: tuple[str, ...] = ()
        self._last_id = b""

    def find(self, event: Event | Sign, request: Request) -> bytes | None:
        """16 bytes, None where the dialect has no client sessions or the event names none."""
        session = event.session
        owners = _SESSION_OWNERS.get(request.dialect)
        if owners is None or not session:
            return None
        namespace = owners[0]
        for one in event.identities:
            if one.namespace == namespace and not one.denied:
                value = one.value
                break
        else:
            namespace, value = _other_owner(event, owners)
        key = (session, value, namespace, event.scope, request.account, request.dialect)
        if key == self._last:
            return self._last_id
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _SESSIONS_REMEMBERED:
                self._known.clear()
            text = "\0".join(key).encode("utf-8", "surrogatepass")
            found = self._known[key] = id_of(text)
        self._last, self._last_id = key, found
        return found


def _other_owner(event: Event | Sign, owners: Sequence[str]) -> tuple[str, str]:
    for namespace in owners[1:]:
        for one in event.identities:
            if one.namespace == namespace and not one.denied:
                return namespace, one.value
    return "", ""


def pulse_rows(signs: Iterable[tuple[Request, Sign]], sessions: SessionIds) -> list[Pulse]:
    """Signs of life, each with the request that brought it, for the sessions that events of the
    same owner are of."""
    found = []
    for request, sign in signs:
        session = sessions.find(sign, request)
        if session is not None:
            at = effective_at(sign, request.received_at)
            found.append(Pulse(request.account, session, at, sign.closed))
    return found
