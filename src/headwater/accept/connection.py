"""One HTTP connection: requests in, answers back in order.

Theory of operation. parser.py turns bytes into whole requests and moves the connection between its
first three phases:

    IDLE ──first byte──► HEAD ──blank line──► BODY ──last byte──► IDLE
      │                   │                    │
      └── upgrade ► WEBSOCKET                  └── refused: DEAF ──answered──► LINGER ──► gone

Every request that was read owes an answer, and `owed` holds these in the order of arrival; an
answer is written once it is ready and nothing is owed before it. Nothing leaves `owed` but by being
written, or with the connection. (Writes within one turn of the event loop, such as all answers of
one group commit, are gathered by uvloop into one system call for each connection.)

DEAF reads no further request while what is owed is still answered. LINGER has sent the end of the
stream and swallows what the client is still sending, so that the reset which closing a socket with
unread data causes does not overtake the answer.

Deadlines are enforced by one sweep over all connections (`check`), not by a timer for each request.
They count from the start of a phase, so bytes that drip in do not extend them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from headwater.accept import answers
from headwater.accept.head import Head
from headwater.accept.intake import OVERHEAD_BYTES
from headwater.accept.parser import Parser
from headwater.accept.phase import BODY, DEAF, HEAD, IDLE, LINGER, WEBSOCKET
from headwater.accept.request import Answer, Request
from headwater.accept.slots import Call, Slot
from headwater.accept.websocket import Session

if TYPE_CHECKING:
    from headwater.accept.http import Collector

_LINGER_SECONDS_MAX = 2.0


class Connection(asyncio.Protocol):
    """The protocol object of one accepted socket."""

    __slots__ = (
        "_final",
        "_parser",
        "_paused",
        "_session",
        "_unread_since",
        "_write_paused",
        "collector",
        "owed",
        "peer",
        "phase",
        "since",
        "transport",
        "trusted",
    )

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.transport: asyncio.Transport | None = None
        self.owed: deque[Slot] = deque()
        self.phase = IDLE
        self.since = 0.0  # when the phase began, in the event loop's time
        self.peer = ""
        self.trusted = False  # the peer is a trusted proxy
        self._parser = Parser(self)
        self._session: Session | None = None
        self._final = False  # close once nothing is owed any more
        self._paused = False
        self._write_paused = False
        self._unread_since = 0.0

    # --- asyncio calls these -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has its methods only
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""
        self.collector.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.phase = DEAF
        self.owed.clear()
        self._parser.release()
        if self._session is not None:
            self._session.lost()
        self.collector.closed(self)

    def data_received(self, data: bytes) -> None:
        self.collector.counters.bytes_in += len(data)
        if self.phase < DEAF:
            self._parser.feed(data)
        elif self._session is not None:
            self._session.receive(data)

    def eof_received(self) -> bool:
        """The client sends nothing more. True keeps the socket open for what is owed."""
        if self._session is not None:
            self._session.receive_eof()
            return False
        if self.phase in (HEAD, BODY):
            # the request was cut short: whatever it says so far is not what was meant
            self.refuse(self._parser.error(400, answers.BAD_REQUEST), linger=False)
        elif self.owed:
            self.phase = DEAF
            self._final = True
        return bool(self.owed)

    def pause_writing(self) -> None:
        self._write_paused = True
        self.balance()

    def resume_writing(self) -> None:
        self._write_paused = False
        self.balance()

    # --- the parser calls these ----------------------------------------------------------------

    def serve(self, call: Call, body: bytes) -> None:
        """A whole request is in."""
        collector = self.collector
        head = call.head
        desk = call.desk
        at = collector.clock()
        slot = Slot(self, call, at, len(body) + len(call.target) + OVERHEAD_BYTES)
        owed = self.owed
        owed.append(slot)
        if desk is None:
            self.finish(slot, collector.own_answer(call))
            return
        request = Request(
            dialect=desk.dialect_name,
            method=call.method,
            target=call.target,
            endpoint=call.endpoint,
            params=call.params,
            headers=head.headers,
            body=body,
            peer=self.client(head) if self.trusted else self.peer,
            received_at=at,
            request_id=collector.ids.next(at),
        )
        slot.request = request
        if call.method == "HEAD":
            collector.peek(slot, desk, request)
        elif collector.inflight_bytes + slot.cost > collector.settings.inflight_bytes_max:
            slot.last = True
            self.finish(slot, collector.full(desk, request))
        else:
            collector.take(slot, desk, request, head)
        if len(owed) > collector.settings.pipeline_requests_max:
            self.balance()

    def client(self, head: Head) -> str:
        """The address of who sent a request, which a trusted proxy may have passed on."""
        if not self.trusted:
            return self.peer
        return self.collector.proxies.client(self.peer, head.forwarded)

    def drop(self, call: Call, answer: Answer) -> None:
        """A whole request is in whose answer its head decided."""
        slot = Slot(self, call)
        self.owed.append(slot)
        self.finish(slot, answer)

    def refuse(self, answer: Answer, *, linger: bool = True) -> None:
        """Answer what is being read with an error, after what is owed, and end the connection."""
        if self.phase >= DEAF:
            return
        slot = Slot(self, self._parser.call)
        slot.last = linger
        self.phase = DEAF
        self._final = True
        self._parser.release()
        self.owed.append(slot)
        self.finish(slot, answer)

    def expected(self, call: Call) -> Answer | None:
        """The client waits to be asked for its body: ask (RFC 9110, section 10.1.1), or say why
        not. With answers owed it is not asked, as they come first; clients send all the same."""
        head = call.head
        if head.expect != "100-continue":
            return answers.EXPECTATION_FAILED
        if not head.has_body:
            return None
        answer = self.collector.head_refusal(self, call)
        if answer is None and not self.owed and self.transport is not None:
            self.transport.write(answers.CONTINUE)
        return answer

    def upgrade(self, call: Call, rest: bytes) -> None:
        """Become a WebSocket; `rest` is what came behind the head."""
        answer = self.collector.head_refusal(self, call)
        if answer is None and self.owed:
            answer = answers.own(400, "upgrade with requests outstanding")
        if answer is not None:
            self.refuse(answer)
            return
        self.phase = WEBSOCKET
        self._session = Session(self, call, self._parser.url, self._parser.fields)
        self._session.start(rest)

    def beyond(self, data: bytes) -> None:
        """What came behind the head of an upgrade, in the same read."""
        if self._session is not None:
            self._session.receive(data)

    # --- answers -------------------------------------------------------------------------------

    def finish(self, slot: Slot, answer: Answer) -> None:
        """The answer of a slot is known: write it, and those behind it that waited for it."""
        collector = self.collector
        call = slot.call
        if call is None:
            voice, variant, close = collector.voice, collector.voice.plain, True
        else:
            voice, variant = call.voice, call.variant
            close = answer.close or not call.keep_alive
        collector.counters.statuses[voice.name][answer.status // 100] += 1
        transport = self.transport
        if transport is None:
            return
        owed = self.owed
        if self.phase == DEAF and slot is owed[-1]:
            close = True
        if call is not None and call.method == "HEAD":
            slot.data = variant.render_head(answer, close, length_known=answer.identify is None)
        else:
            slot.data = variant.render(answer, close)
        if close:
            self._final = True
            if self.phase < DEAF:
                self.phase = DEAF
        while owed:
            data = owed[0].data
            if data is None:
                break
            transport.write(data)
            slot = owed.popleft()
        else:
            if self._final:
                self._end(slot.last)
                return
            self.since = collector.now
        if self._paused:
            self.balance()

    def _end(self, linger: bool) -> None:
        """Everything is answered: close; `linger` where the client may still be sending."""
        transport = self.transport
        if transport is None or transport.is_closing() or self.phase == LINGER:
            return
        if linger:
            self.phase = LINGER
            self.since = self.collector.now
            transport.write_eof()
            self.balance()
        else:
            transport.close()

    def balance(self) -> None:
        """Read while there is room for answers, and not otherwise."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        full = len(self.owed) > self.collector.settings.pipeline_requests_max
        if self._session is not None:
            full = self._session.full
        pause = self._write_paused or full
        if pause != self._paused:
            self._paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def turn_away(self, answer: Answer, *, at_once: bool) -> None:
        """Refuse the connection as a whole; `at_once`: without a word."""
        if at_once and self.transport is not None:
            self.phase = DEAF
            self.transport.abort()
        else:
            self.refuse(answer)

    def drain(self) -> None:
        """Take no further request; close once everything owed is answered."""
        if self._session is not None:
            self._session.drain()
        elif self.phase == IDLE:
            self.phase = DEAF
            self._final = True
            if not self.owed:
                self._end(False)

    # --- deadlines -----------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Enforce the deadlines; called by the sweep. `now` is the event loop's time."""
        transport = self.transport
        if transport is None:
            return
        settings = self.collector.settings
        if transport.get_write_buffer_size():
            if not self._unread_since:
                self._unread_since = now
            elif now - self._unread_since > settings.unread_answer_seconds_max:
                self.collector.counters.deadlines += 1
                transport.abort()
            return
        self._unread_since = 0.0
        phase = self.phase
        waited = now - self.since
        if phase == IDLE:
            if waited > settings.idle_seconds_max and not self.owed:
                transport.close()
        elif phase == HEAD:
            if waited > settings.headers_seconds_max:
                self.collector.counters.deadlines += 1
                self.refuse(answers.TIMEOUT)
        elif phase == BODY:
            if waited > settings.body_seconds_max:
                self.collector.counters.deadlines += 1
                self.refuse(self._parser.error(408, answers.TIMEOUT))
        elif self._session is not None:
            self._session.check(now)
        elif phase == LINGER and waited > _LINGER_SECONDS_MAX:
            transport.abort()
