"""A console on a free port, with what a test lets it ask."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uvicorn

from headwater.clock import system_clock
from headwater.errors import StoreError
from headwater.view.access import Access, ConsoleToken
from headwater.view.api import Endpoint
from headwater.view.console import Console, ReplayOrder
from headwater.view.live import Feed

TOKEN = "console-token-for-this-test"


def replay(order: ReplayOrder, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    progress({"requests": 1})
    if order.since == -1:
        raise StoreError("no room", remedy="make some")
    time.sleep(0.2)
    return {"requests": 2}


class Running:
    """A console on a free port. `endpoints` are the features' own."""

    def __init__(
        self, endpoints: Sequence[Endpoint] = (), tokens: Sequence[ConsoleToken] = ()
    ) -> None:
        self.reason = ""
        self._endpoints = endpoints
        self._tokens = tokens
        self.feed: Feed
        self._started = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.feed = Feed(loop, encode=msgspec.json.encode)
        console = Console(
            access=Access(
                token=TOKEN,
                hosts=["headwater.internal"],
                clock=system_clock,
                tokens=self._tokens,
            ),
            endpoints=self._endpoints,
            replay=replay,
            backup=lambda: {"loaded": {"0": 7}},
            metrics=lambda: b"headwater_up 1\n",
            ready=lambda: self.reason,
            feed=self.feed,
            accounts=lambda: ["acme", "other"],
        )
        self._server = uvicorn.Server(
            uvicorn.Config(console.app(), log_level="warning", lifespan="off")
        )
        task = loop.create_task(self._server.serve([self._socket]))
        while not self._server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        self._started.set()
        await task

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; the token goes along unless `authorization` says otherwise."""
        sent = {"authorization": f"Bearer {TOKEN}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        data = body if isinstance(body, bytes) else msgspec.json.encode(body) if body else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()
