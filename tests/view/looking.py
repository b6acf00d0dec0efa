"""A whole server with all five dialects, asked through its console by three tokens."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import websockets.sync.client

from tests.served import Served

APP = "6387f260fae4a13be78fc664"
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
VAIX = "vaix-token-of-acme"
READER, KEPT = "reader-of-all", "reader-kept-to-other"


def digest(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


ACCOUNTS = f"""
[accounts.acme]
[accounts.acme.vaix]
tokens = ["{digest(VAIX)}"]
groups = ["group-a"]
[accounts.acme.orbee]
trackers = ["1/1"]
[accounts.acme.nucleus]
apps = ["{APP}"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.gamooga]
companies = ["{COMPANY}"]
[accounts.other.orbee]
trackers = ["2/2"]
"""
TOKENS = f"""
[console.tokens.reader]
hash = "{digest(READER)}"
scope = "read"
[console.tokens.kept]
hash = "{digest(KEPT)}"
scope = "read"
accounts = ["other"]
"""


class Looking:
    """The server, and its console's JSON."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, Any]:
        """Status and answer."""
        at = urlsplit(self.served.console)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else msgspec.json.encode(body),
                headers={"authorization": f"Bearer {token or self.served.token()}"},
            )
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()

    def got(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of what must succeed."""
        status, found = self.ask(method, path, body)
        assert status == 200, found
        return found

    def send(
        self, method: str, target: str, body: str = "", headers: dict[str, str] | None = None
    ) -> int:
        """A client's request to the collector; its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.served.collect_port, timeout=10)
        try:
            connection.request(method, target, body.encode() or None, headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def message(self, target: str, text: str) -> None:
        """A client's WebSocket message, acknowledged."""
        with websockets.sync.client.connect(
            f"ws://127.0.0.1:{self.served.collect_port}{target}", proxy=None
        ) as client:
            client.send(text)
            client.recv(10)

    def newest(self, where: str = "1") -> dict[str, Any]:
        """The newest stored event of some kind, once all is loaded."""
        self.served.wait_loaded()
        rows = self.served.query(
            "SELECT toString(event_id) AS event_id, toString(request_id) AS request_id, "
            f"toString(person_id) AS person_id, dialect FROM events WHERE {where} "
            "ORDER BY received_at DESC LIMIT 1"
        )
        assert rows, where
        return rows[0]


@contextmanager
def looking(folder: Path) -> Iterator[Looking]:
    """The server, running."""
    with Served(folder, ACCOUNTS, tables=TOKENS) as served:
        yield Looking(served)


def field(event: dict[str, Any], path: str) -> dict[str, Any]:
    """One field of an event that is shown."""
    found = [one for one in event["fields"] if one["path"] == path]
    assert found, (path, [one["path"] for one in event["fields"]])
    return dict(found[0])


def places(request: dict[str, Any], event: dict[str, Any], path: str) -> list[str]:
    """Where a field came from, in words."""
    return [request["leaves"][n]["words"] for n in field(event, path)["came_from"]]


def whole(pieces: list[dict[str, Any]]) -> str:
    """Pieces as the text that they are."""
    return "".join(piece["text"] for piece in pieces)
