"""Every route of every dialect, asked with a key of choice (row S8).

A route that a dialect gains must be put here: a test compares this table with the dialects' own.
Each entry makes a request that is good but for its key, and carries `mark` to be found by.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.trust.serving import Keys, bearer, request

#: The method of a WebSocket upgrade, for this table.
UPGRADE = "WEBSOCKET"
Make = Callable[[Keys, str], bytes]


def _vaix(keys: Keys, mark: str) -> bytes:
    body = b'{"user_id":"u","event_type":"matrix:%b"}' % mark.encode()
    return request("POST", "/api/tracker/events", *bearer(keys.token), body=body)


def _orbee(keys: Keys, mark: str) -> bytes:
    body = b'{"action":"matrix","object":"%b","vendor":"v","product":"p","instance_id":"i"}'
    return request("POST", f"/collect/{keys.tracker}/event", body=body % mark.encode())


def nucleus_body(mark: str, app: str = "") -> bytes:
    """A message; `app` is what it claims in its body, which counts for nothing."""
    claim = f',"appId":"{app}"' if app else ""
    event = b'{"data":[{"type":"event","name":"%b","id":"%b","sessionId":1,"deviceId":"d"%b}]}'
    return event % (mark.encode(), mark.encode(), claim.encode())


def _nucleus(keys: Keys, mark: str) -> bytes:
    return request("POST", f"/app/{keys.app}/track", body=nucleus_body(mark))


def _nucleus_get(keys: Keys, mark: str) -> bytes:
    return request("GET", f"/app/{keys.app}/track")


def handshake(path: str) -> bytes:
    return request(
        "GET",
        path,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )


def _vibetrace(path: str, method: str) -> Make:
    def make(keys: Keys, mark: str) -> bytes:
        aim = path.replace("{account}", keys.shop).replace("{type}", mark)
        data = "data=%5B%7B%22type%22%3A%22" + mark + "%22%7D%5D"
        if method == "GET":
            return request("GET", f"{aim}?{data}")
        return request("POST", aim, body=data.encode())

    return make


def _gamooga(path: str, method: str, rest: str) -> Make:
    def make(keys: Keys, mark: str) -> bytes:
        query = f"c={keys.company}&{rest.replace('MARK', mark)}"
        if method == "GET":
            return request("GET", f"{path}?{query}")
        return request("POST", path, body=query.encode())

    return make


def _gamooga_json(keys: Keys, mark: str) -> bytes:
    return request("POST", f"/evwidj?c={keys.company}&u=u1&e={mark}", body=b'{"a":1}')


def _gamooga_where(keys: Keys, mark: str) -> bytes:
    return request("GET", f"/newnaconf/{keys.company}")


_WHO = "u=u1&e=MARK"
MATRIX: dict[tuple[str, str, str], Make] = {
    ("vaix", "/api/tracker/events", "POST"): _vaix,
    ("orbee", "/collect/{aid}/{tid}/event", "POST"): _orbee,
    ("nucleus", "/app/{app}/track", "GET"): _nucleus_get,
    ("nucleus", "/app/{app}/track", "POST"): _nucleus,
    ("nucleus", "/app/{app}/track", UPGRADE): lambda keys, mark: handshake(
        f"/app/{keys.app}/track"
    ),
    ("nucleus", "/{app}", UPGRADE): lambda keys, mark: handshake(f"/{keys.app}"),
    **{
        ("vibetrace", path, method): _vibetrace(path, method)
        for path in ("/event/{account}", "/event/{account}/{type}")
        for method in ("GET", "POST")
    },
    ("gamooga", "/newnaconf/{c}", "GET"): _gamooga_where,
    ("gamooga", "/evwidj", "POST"): _gamooga_json,
    **{
        ("gamooga", path, method): _gamooga(path, method, rest)
        for path, rest in (
            ("/ev", "v=aaaaaaaaaaaaaaaa&e=MARK"),
            ("/evwid", _WHO),
            ("/evvprwid", _WHO),
            ("/vpr", "v=MARK&p=a&vl=1&tp=s"),
            ("/id", "u=MARK"),
        )
        for method in ("GET", "POST")
    },
}
#: What they answer to a known key; a success unless it stands here.
ANSWERED = {("nucleus", "/app/{app}/track", "GET"): 426}
#: Routes that keep nothing, whatever the key.
KEEPS_NOTHING = {
    ("gamooga", "/newnaconf/{c}", "GET"),
    ("nucleus", "/app/{app}/track", "GET"),
    ("nucleus", "/app/{app}/track", UPGRADE),
    ("nucleus", "/{app}", UPGRADE),
}
