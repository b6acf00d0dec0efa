"""The collector: one process's public port, as the event loop sees it.

`Collector.protocol_factory` goes to ``loop.create_server``. It makes a Connection for each socket
(connection.py: bytes to requests, answers in order), which hands whole requests to Intake
(intake.py: account, answer, journal). Here is what they share: the route of a head, the memory of
heads, the sweep that enforces deadlines, health, reload and drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from headwater.accept import answers
from headwater.accept.accounts import Accounts
from headwater.accept.answers import DateHeader, Voice
from headwater.accept.browser_script import BrowserScript
from headwater.accept.connection import Connection
from headwater.accept.counters import Counters
from headwater.accept.head import Head
from headwater.accept.intake import Desk, Intake, Settings
from headwater.accept.interfaces import Journal, Visitors
from headwater.accept.phase import LINGER
from headwater.accept.request import Answer, Dialect, Request
from headwater.accept.routes import Router
from headwater.accept.slots import Call
from headwater.clock import Clock
from headwater.limits import target_bytes_max

log = logging.getLogger("headwater.accept")

_HEALTH = ("/healthz", "/readyz")
_HEADS_MAX = 1_024  # header blocks remembered, of 2 KiB at the most
#: Connections beyond the bound that are told 503; more than that are cut off without a word.
_TURNED_AWAY_MAX = 1_000
_SWEEP_SECONDS = 0.5


class Collector(Intake):
    """Everything that the connections of one process share; see the module's text.

    `writer` is the journal's, `visitors` the registry's; without `script` pages get none. Use it on
    one event loop only.
    """

    def __init__(
        self,
        *,
        dialects: Sequence[Dialect],
        accounts: Accounts,
        writer: Journal,
        visitors: Visitors,
        clock: Clock,
        settings: Settings | None = None,
        counters: Counters | None = None,
        script: BrowserScript | None = None,
    ) -> None:
        super().__init__(
            accounts=accounts,
            journal=writer,
            visitors=visitors,
            clock=clock,
            settings=settings or Settings(),
            counters=counters or Counters([dialect.NAME for dialect in dialects]),
        )
        self._date = DateHeader(clock())
        self.voice = Voice(None, self._date)
        self._router = Router(dialects)
        self._script = script
        self._desks = {dialect.NAME: Desk(dialect, self._date) for dialect in dialects}
        self.heads: dict[bytes, Head] = {}
        self.connections: set[Connection] = set()
        self.draining = False
        self.now = 0.0  # the event loop's time, as of the last sweep
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None  # set when a drain has no connection left
        bounds = self.settings
        shortest = min(
            bounds.headers_seconds_max,
            bounds.body_seconds_max,
            bounds.unread_answer_seconds_max,
            bounds.idle_seconds_max,
            bounds.websocket_ping_seconds,
        )
        self._sweep_seconds = min(_SWEEP_SECONDS, shortest / 4)
        accounts.start()

    def protocol_factory(self) -> Connection:
        """A protocol for one accepted socket; the argument of ``loop.create_server``."""
        return Connection(self)

    def reload(self, accounts: Accounts) -> None:
        """Put other accounts in force, for the next request on any connection."""
        accounts.start()
        self.accounts = accounts

    def ready(self) -> bool:
        """Whether a write would be durable now."""
        return not self._unready()

    def _unready(self) -> str:
        if self.draining:
            return "draining"
        if not self.journal.healthy:
            return "the journal cannot write"
        if not self.accounts.ready:
            return "token keys are being fetched"
        return ""

    # --- heads ---------------------------------------------------------------------------------

    def route(
        self, method: str, target: str, head: Head, *, websocket: bool = False
    ) -> tuple[Call, Answer | None]:
        """Where a head leads, and the answer that is due without reading on, if there is one."""
        path = target.partition("?")[0]
        origin = head.headers.get("origin", "")
        http10 = head.http10 and head.keep_alive
        match = self._router.match(path, websocket=websocket)
        if match is None:
            call = Call(method, target, head, self.voice, self.voice.variant(origin, http10))
            return call, self._own_route(call, path)
        desk = self._desks[match.dialect.NAME]
        variant = desk.variant(origin, http10)
        call = Call(
            method,
            target,
            head,
            desk,
            variant,
            desk=desk,
            endpoint=match.endpoint,
            params=match.params,
            websocket=websocket and match.websocket,
        )
        if len(target) > desk.target_bytes_max:
            return call, desk.error(414, "request target too long", None)
        if websocket and match.websocket:
            return call, None
        if method == "OPTIONS":
            return call, desk.preflight(match.methods)
        if method not in match.methods and not (method == "HEAD" and "GET" in match.methods):
            answer = desk.error(405, "method not allowed", None)
            return call, answers.with_header(answer, "allow", answers.allowed(match.methods))
        if head.length > desk.body_bytes_max:
            return call, desk.error(413, "body too large", None)
        if self.inflight_bytes + head.length > self.settings.inflight_bytes_max:
            return call, self.full(desk, None)
        return call, None

    def _own_route(self, call: Call, path: str) -> Answer | None:
        """The answer to what no dialect speaks; None for health and the browser's script, which
        wait for their turn."""
        if len(call.target) > target_bytes_max:
            return answers.TARGET_TOO_LONG
        if path.rstrip("/") in _HEALTH or self._is_script(path):
            if call.method in ("GET", "HEAD"):
                return None
            if call.method == "OPTIONS":
                return self.voice.preflight(("GET",))
            return answers.own(405, "method not allowed", (("allow", answers.allowed(("GET",))),))
        if path == "*" and call.method == "OPTIONS":
            return self.voice.preflight(("GET", "POST"))
        return answers.NOT_FOUND

    def _is_script(self, path: str) -> bool:
        return self._script is not None and path == self._script.path

    def remember(self, block: bytes, head: Head) -> None:
        """Keep a header block that was found good, under its bytes."""
        if len(self.heads) >= _HEADS_MAX:
            del self.heads[next(iter(self.heads))]
        self.heads[block] = head

    def own_answer(self, call: Call) -> Answer:
        """The browser's script, and health."""
        if self._script is not None and self._is_script(call.target.partition("?")[0]):
            return self._script.answer(call.head)
        if call.target.startswith("/healthz"):
            return answers.HEALTHY
        reason = self._unready()
        return answers.not_ready(reason) if reason else answers.HEALTHY

    def head_refusal(self, connection: Connection, call: Call) -> Answer | None:
        """What a head that is fine as such is refused with before its body or its upgrade."""
        desk = call.desk
        if desk is None:
            return None
        return self.early(desk, self.bare_request(connection, call), call.head)

    def bare_request(self, connection: Connection, call: Call) -> Request:
        """The request of a head, without body and id."""
        head, desk = call.head, call.desk
        assert desk is not None
        return Request(
            dialect=desk.dialect_name,
            method=call.method,
            target=call.target,
            endpoint=call.endpoint,
            params=call.params,
            headers=head.headers,
            transport="websocket" if call.websocket else "http",
            peer=connection.client(head),
        )

    # --- connections ---------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """A socket was accepted."""
        if self._sweep_handle is None:
            self._sweep()  # it rests while there are no connections
        connection.since = self.now
        self.connections.add(connection)
        self.counters.connections_opened += 1
        self.counters.connections_open += 1
        connection.trusted = self.proxies.trusts(connection.peer)
        if len(self.connections) > self.settings.connections_max:
            self.counters.refused["connections"] += 1
            connection.turn_away(
                answers.TOO_MANY_CONNECTIONS,
                at_once=len(self.connections) > self.settings.connections_max + _TURNED_AWAY_MAX,
            )
        elif self.draining:
            connection.drain()

    def closed(self, connection: Connection) -> None:
        """A socket is gone."""
        self.connections.discard(connection)
        self.counters.connections_open -= 1
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    def _sweep(self) -> None:
        """Deadlines of all connections, and the time: 0.1 µs a connection, twice a second."""
        loop = asyncio.get_running_loop()
        self.now = now = loop.time()
        self._date.renew(self.clock())
        self.counters.inflight_bytes = self.inflight_bytes
        for connection in list(self.connections):
            connection.check(now)
        self._sweep_handle = loop.call_later(self._sweep_seconds, self._tick)

    def _tick(self) -> None:
        self._sweep_handle = None
        if self.connections:
            self._sweep()

    async def drain(self, seconds: float) -> None:
        """Answer what was accepted, take nothing more, and return when all connections are closed
        or `seconds` have passed (what is left then is cut off). Close the listening socket first.
        """
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), seconds)
        left = [connection for connection in self.connections if connection.phase != LINGER]
        if left:
            log.warning("drain: %d connections cut off after %.0f s", len(left), seconds)
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None
