"""The running hub's API, as the commands use it: found through the data folder, asked over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from headwater import limits
from headwater.backup import Staged
from headwater.errors import HeadwaterError, NotFound, QueryRefused, StoreError
from headwater.folder import Folder

#: A query may wait for a free place before its own time begins.
_ANSWER_SECONDS_MAX = 2.0 * limits.query_seconds_max + 10.0
#: What is known of a person is a handful of queries.
_PEOPLE_SECONDS = 6.0 * _ANSWER_SECONDS_MAX


class HubClient:
    """The hub of one data folder. Each call has a connection of its own."""

    def __init__(self, console: str, token: str) -> None:
        at = urlsplit(console)
        self._host = at.hostname or "127.0.0.1"
        self._port = at.port or 80
        self._token = token

    @classmethod
    def find(cls, folder: Folder) -> HubClient | None:
        """The hub that runs on a data folder, None when none answers there."""
        address = folder.hub()
        if address is None:
            return None
        client = cls(address.console, folder.token())
        return client if client._alive() else None

    def _alive(self) -> bool:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=3)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, timeout: float | None = None
    ) -> http.client.HTTPResponse:
        """One request to the API; the answer is for the caller to read and close. `timeout` is in
        seconds. Raises QueryRefused, NotFound, StoreError."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        headers = {
            "authorization": f"Bearer {self._token}",
            "content-type": "application/json",
            "connection": "close",  # one connection a call: it ends with its answer
        }
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
        except OSError as error:
            connection.close()
            raise StoreError(
                f"the hub at {self._host}:{self._port} does not answer: {error}",
                remedy="see whether the server is still running",
            ) from error
        if answer.status != 200:
            raise _refusal(answer.status, answer.read())
        return answer

    def query(self, sql: str, format: str) -> bytes:
        """The answer to a question in one of the API's formats.

        Raises QueryRefused, StoreError.
        """
        body = msgspec.json.encode({"sql": sql, "format": format})
        with self.ask("POST", "/api/query", body, _ANSWER_SECONDS_MAX) as answer:
            return answer.read()

    def live(self, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Rows as they are decided, until the hub ends the stream."""
        asked = urlencode({key: value for key, value in wanted.items() if value})
        with self.ask("GET", f"/api/live?{asked}", None, 60.0) as answer:
            event = ""
            while line := answer.readline():
                if line.startswith(b"event: "):
                    event = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    data = msgspec.json.decode(line[6:])
                    if event == "dropped":
                        raise HeadwaterError(
                            "the feed was faster than this terminal and let go of it",
                            remedy="filter more narrowly, or ask for --json into a file",
                        )
                    # Rows that went by unseen are a row themselves, with a status of their own.
                    yield {"status": event, **data} if event else data
                    event = ""

    def replay(self, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Progress and, last, the result of a replay."""
        yield from self.progress("/api/replay", msgspec.json.encode(order))

    def backup(self) -> Staged:
        """Have the hub put its part of a backup into the data folder."""
        for said in self.progress("/api/backup", b""):
            if "result" in said:
                return msgspec.convert(said["result"], Staged, strict=False)
        raise StoreError("the hub ended during the backup", remedy="see its log, and try again")

    @property
    def people(self) -> HubPeople:
        """What it answers about people."""
        return HubPeople(self)

    def progress(self, path: str, body: bytes | None = None) -> Iterator[dict[str, Any]]:
        """Lines of work that takes a while: progress, and last the result."""
        with self.ask("POST", path, body, None) as answer:
            while line := answer.readline():
                said = msgspec.json.decode(line)
                if "error" in said:
                    raise HeadwaterError(said["error"], remedy=said.get("remedy", ""))
                yield said


class HubPeople:
    """What ``view/people.py`` answers; the same questions as ``people.People``."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub

    def find(self, text: str, account: str = "") -> dict[str, Any]:
        """Who carries an identifier."""
        return self._answer("GET", f"/api/people?{urlencode({'find': text, 'account': account})}")

    def show(self, ident: str, *, history: bool = False) -> dict[str, Any]:
        """All that is known of one person. Raises NotFound."""
        asked = "?history=1" if history else ""
        return self._answer("GET", f"/api/people/{quote(ident, safe='')}{asked}")

    def merges(self, account: str = "") -> dict[str, Any]:
        """Which two became one."""
        return self._answer("GET", f"/api/merges?{urlencode({'account': account})}")

    def undo(self, merge: str) -> dict[str, Any]:
        """Withdraw what caused a merge. Raises NotFound."""
        return self._answer("POST", f"/api/merges/{quote(merge, safe='')}/undo")

    def allow(self, merge: str) -> dict[str, Any]:
        """Let what caused a merge count again. Raises NotFound."""
        return self._answer("POST", f"/api/merges/{quote(merge, safe='')}/allow")

    def export(self, ident: str) -> Iterator[bytes]:
        """Everything held about one person, as JSON lines. Raises NotFound."""
        path = f"/api/people/{quote(ident, safe='')}/export"
        last = b""
        with self._hub.ask("GET", path) as answer:
            while line := answer.readline():
                if line.startswith(b'{"error":'):
                    said = msgspec.json.decode(line)
                    raise HeadwaterError(said["error"], remedy=said.get("remedy", ""))
                yield line
                last = line
        if not last.startswith(b'{"end":'):
            raise StoreError("the export broke off", remedy="see whether the server still runs")

    def erase(self, ident: str) -> Iterator[dict[str, Any]]:
        """Progress and, last, the receipt of an erasure. Raises NotFound."""
        yield from self._hub.progress(f"/api/people/{quote(ident, safe='')}/erase")

    def _answer(self, method: str, path: str) -> dict[str, Any]:
        # Undoing recomputes before it answers, and that takes as long as it takes.
        timeout = None if method == "POST" else _PEOPLE_SECONDS
        with self._hub.ask(method, path, timeout=timeout) as answer:
            return msgspec.json.decode(answer.read(), type=dict[str, Any])


_KINDS = {400: QueryRefused, 404: NotFound}


def _refusal(status: int, body: bytes) -> HeadwaterError:
    try:
        said = msgspec.json.decode(body, type=dict[str, str])
    except ValueError:
        said = {}
    what, remedy = said.get("error", f"the hub answered {status}"), said.get("remedy", "")
    return _KINDS.get(status, StoreError)(what, remedy=remedy)
