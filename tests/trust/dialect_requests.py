"""One good request of each dialect, in every form that carries a body or a query."""

from __future__ import annotations

from urllib.parse import quote

from tests.trust.serving import ACME, Keys, bearer, request


def target(dialect: str, keys: Keys = ACME) -> str:
    """Where a dialect takes a POST."""
    return {
        "vaix": "/api/tracker/events",
        "orbee": f"/collect/{keys.tracker}/event",
        "nucleus": f"/app/{keys.app}/track",
        "vibetrace": f"/event/{keys.shop}/login",
        "gamooga": f"/evwidj/?c={keys.company}&u=u1&e=posted",
    }[dialect]


def headers(dialect: str, keys: Keys = ACME) -> tuple[str, ...]:
    """What a dialect asks for besides."""
    return bearer(keys.token) if dialect == "vaix" else ()


def body(dialect: str, mark: str) -> bytes:
    """A good body; `mark` makes it an event of its own, and ends its name where it can."""
    return BODIES[dialect].replace("MARK", mark).encode()


BODIES = {
    "vaix": '{"event_type":"trust:MARK","user_id":"u","data":{"mark":"MARK"}}',
    "orbee": '{"action":"trust","object":"MARK","vendor":"v","product":"p","instance_id":"i"}',
    "nucleus": '{"data":[{"type":"event","name":"MARK","id":"MARK","sessionId":1,"deviceId":"d"}]}',
    "vibetrace": '{"data":[{"type":"MARK","userId":"1","sessionId":"2"}]}',
    "gamooga": '{"mark":"MARK"}',
}


def post(dialect: str, payload: bytes, *more: str, keys: Keys = ACME) -> bytes:
    """A POST of `payload` to a dialect."""
    return request("POST", target(dialect, keys), *headers(dialect, keys), *more, body=payload)


def query(dialect: str, text: str, keys: Keys = ACME) -> str:
    """The target of a GET whose data is `text`, for the two dialects that have one."""
    written = quote(text, safe="")
    if dialect == "vibetrace":
        return f"/event/{keys.shop}/login?data={written}"
    return f"/evwid/?c={keys.company}&u=u1&e=asked&ky=k&vl={written}&tp=s"


DIALECTS = ("vaix", "orbee", "nucleus", "vibetrace", "gamooga")
#: The status of a success.
SUCCESS = {"vaix": 204, "orbee": 204, "nucleus": 200, "vibetrace": 200, "gamooga": 200}
