"""Nucleus over a WebSocket: one message is one request, one text frame is its answer.

Framing, handshake, pings and permessage-deflate are the `websockets` library's protocol object,
which does no I/O: bytes go in, events and bytes come out. Here is what stands between it and the
journal.

- A message is acknowledged after its fsync, in the order of arrival, and only then.
- At most `websocket_messages_max` messages of one socket wait for their fsync; then it is not read.
- Text that is not UTF-8 closes with 1007, a message over the bound with 1009.
- No room or no journal closes with 1013 (try again later), without an acknowledgement: clients keep
  their queue and come back. The rate limit closes with 1013 too, not 1008: it is no policy that the
  client broke for good, and the handshake says 429 with Retry-After until the debt is paid.
- 1011 is never sent: a decoder that fails is answered like anything else that is unreadable.
- What a message that has not ended holds counts as bytes in flight; one that takes longer than a
  body may (`body_seconds_max`) ends the connection.
- A ping every 60 s; silence for 180 s ends the connection (mobile clients suspend).
- A client's end is journaled for the sessions that it carried (liveness.py); this side's is not.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from headwater.accept.intake import OVERHEAD_BYTES
from headwater.accept.liveness import CLOSE, Socket, record
from headwater.accept.request import Answer, Request
from headwater.accept.slots import Call

if TYPE_CHECKING:
    from headwater.accept.connection import Connection

#: A window of 4 KiB and little memory for compression: acknowledgements are short, sockets many.
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, compress_settings={"memLevel": 5}
)
_CLOSE_SECONDS_MAX = 2.0
#: The library logs every connection's beginning and end; only its errors are of interest.
_library_log = logging.getLogger("headwater.accept.websocket")
_library_log.setLevel(logging.ERROR)


class Message:
    """One message that waits for its answer (see headwater.accept.intake.Owed)."""

    __slots__ = ("answer", "at", "cost", "data", "request", "session")

    def __init__(self, session: Session, request: Request, cost: int) -> None:
        self.session = session
        self.request = request
        self.at = request.received_at
        self.cost = cost
        self.answer: Answer | None = None
        self.data: bytes | None = None

    def settle(self, answer: Answer) -> None:
        self.session.finish(self, answer)

    def done(self, error: Exception | None) -> None:
        session = self.session
        collector = session.collector
        collector.inflight_bytes -= self.cost
        answer = self.answer
        assert answer is not None
        if error is not None:
            collector.counters.refused["journal"] += 1
            session.close(CloseCode.TRY_AGAIN_LATER, "not kept")
            return
        collector.counters.acknowledged(
            session.desk.name, answer.events, collector.group_at() - self.at
        )
        session.finish(self, answer)


class Session:
    """A WebSocket connection after its handshake."""

    def __init__(
        self,
        connection: Connection,
        call: Call,
        url: bytes,
        fields: list[tuple[bytes, bytes]],
    ) -> None:
        self.collector = connection.collector
        assert call.desk is not None
        self.desk = call.desk
        self._connection = connection
        self._call = call
        bare = self.collector.bare_request(connection, call)
        self._peer = bare.peer
        lines = [b"GET %b HTTP/1.1\r\n" % url]
        lines += [b"%b: %b\r\n" % field for field in fields]
        self._handshake = b"".join(lines) + b"\r\n"
        self._protocol = ServerProtocol(
            extensions=[_DEFLATE], max_size=self.desk.body_bytes_max, logger=_library_log
        )
        self._owed: deque[Message] = deque()
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._text = False
        self._pieces_bytes = 0
        self._held_bytes = 0  # of the message that is being read, its last frame too
        self._begun_at = 0.0  # when that message began
        self._deaf = False  # closed for good: what still comes is not looked at
        self._heard_at = self.collector.now
        self._pinged_at = self.collector.now
        self._closing_at = 0.0
        self._ended = False  # closed by this side: nothing more is taken
        self._draining = False
        self._open = False
        self._kept_peer = ""  # what the journal has of the client's address
        carrying = self.desk.carried
        self._carried = None if carrying is None else Socket(self.collector.sessions, carrying)

    @property
    def full(self) -> bool:
        """Whether as many messages wait as may."""
        return len(self._owed) >= self.collector.settings.websocket_messages_max

    def start(self, rest: bytes) -> None:
        """Answer the handshake; `rest` is what the client sent behind it already."""
        protocol = self._protocol
        protocol.receive_data(self._handshake)
        for event in protocol.events_received():
            assert isinstance(event, Handshake)
            protocol.send_response(protocol.accept(event))
        self._open = protocol.state is State.OPEN
        collector = self.collector
        collector.counters.statuses[self.desk.name][1 if self._open else 4] += 1
        if self._open:
            collector.counters.websockets_open += 1
            if collector.draining:
                self.drain()
        self._flush()
        if rest and self._open:
            self.receive(rest)

    def receive(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._deaf:
            return
        self._heard_at = self.collector.now
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        if protocol.parser_exc is not None:
            # its traceback holds the message: 16 MiB, until the garbage collector comes
            _let_go(protocol.parser_exc)
            self._turn_deaf()
        else:
            self._count()
        self._flush()
        if self._held_bytes or self._owed:
            self._connection.balance()

    def receive_eof(self) -> None:
        """The client's end of the stream."""
        self._protocol.receive_eof()
        self._protocol.events_received()

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.CLOSE and self._protocol.close_rcvd_then_sent:
            close = self._protocol.close_rcvd
            assert close is not None
            self._over(close.code)
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._text = opcode is Opcode.TEXT
            if frame.fin:
                self._message(bytes(frame.data))
                return
        elif opcode is not Opcode.CONT:
            return
        self._pieces.append(frame.data)
        self._pieces_bytes += len(frame.data)
        if len(self._pieces) > 1_024:  # many tiny fragments: one object each would cost more
            self._pieces = [b"".join(self._pieces)]
        if frame.fin:
            whole = b"".join(self._pieces)
            self._pieces = []
            self._pieces_bytes = 0
            self._message(whole)

    def _count(self) -> None:
        """Count what a message that has not ended holds; without room for it, 1013."""
        collector = self.collector
        held = self._pieces_bytes + len(self._protocol.reader.buffer)
        if held and not self._held_bytes:
            self._begun_at = collector.now
        collector.inflight_bytes += held - self._held_bytes
        self._held_bytes = held
        if held and collector.inflight_bytes > collector.settings.inflight_bytes_max:
            collector.counters.refused["inflight_bytes"] += 1
            self.close(CloseCode.TRY_AGAIN_LATER, "no room")
            self._turn_deaf()

    def _turn_deaf(self) -> None:
        """Let go of the message that is being read, and take nothing more."""
        self._deaf = True
        self._pieces.clear()
        self._pieces_bytes = 0
        self._protocol.reader.buffer.clear()
        self.collector.inflight_bytes -= self._held_bytes
        self._held_bytes = 0

    def _message(self, body: bytes) -> None:
        collector = self.collector
        self._begun_at = collector.now
        if self._ended or self._draining:
            return  # (when it is the client that has closed since, the message came before that)
        if self._text:
            try:
                body.decode()
            except UnicodeDecodeError:
                self._ended = True
                self._protocol.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                return
        if collector.wait_seconds(self._peer):
            collector.counters.refused["rate_limit"] += 1
            self.close(CloseCode.TRY_AGAIN_LATER, "too many events")
            return
        cost = len(body) + OVERHEAD_BYTES
        if collector.inflight_bytes + cost > collector.settings.inflight_bytes_max:
            collector.counters.refused["inflight_bytes"] += 1
            self.close(CloseCode.TRY_AGAIN_LATER, "no room")
            return
        request = collector.bare_request(self._connection, self._call)
        key = self.desk.tenant(request)
        found = collector.accounts.find(self.desk.dialect_name, key)
        if found is None:  # removed by a reload
            self.close(CloseCode.POLICY_VIOLATION, "unknown app")
            return
        at = collector.clock()
        request.body = body
        request.account = found.account
        request.received_at = at
        request.request_id = collector.ids.next(at)
        message = Message(self, request, cost)
        self._owed.append(message)
        collector.judge(message, self.desk, request, found, None)
        if self._carried is not None:
            answer = message.answer  # set where it was kept
            if answer is not None and not answer.refused:
                self._carried.carry((found.account, self.desk.dialect_name, key), body)
                self._kept_peer = request.peer

    def _over(self, code: int) -> None:
        """The client has ended the connection, or is gone (1006): journal it for the sessions that
        this was the last socket of. Nobody waits for it."""
        if self._carried is None:
            return
        account, sessions = self._carried.tenant[0], self._carried.end()
        if not sessions:
            return
        collector = self.collector
        silent = 0.0 if code != CloseCode.ABNORMAL_CLOSURE else collector.now - self._heard_at
        at = collector.clock()
        request = collector.bare_request(self._connection, self._call)
        request.endpoint = CLOSE
        request.account = account
        request.peer = self._kept_peer
        request.body = record(code, max(0, round(silent * 1_000)), sessions)
        request.received_at = at
        request.request_id = collector.ids.next(at)
        cost = len(request.body) + OVERHEAD_BYTES
        if collector.inflight_bytes + cost > collector.settings.inflight_bytes_max:
            return

        def done(error: Exception | None) -> None:
            collector.inflight_bytes -= cost

        collector.inflight_bytes += cost
        try:
            collector.journal.append(request, 0, done)
        except Exception as error:  # a lost record makes a session end later, and nothing else
            done(error)

    def finish(self, message: Message, answer: Answer) -> None:
        """The answer of a message is known: send it, and those behind it that waited for it."""
        message.data = answer.body
        self.collector.counters.websocket_messages += 1
        owed = self._owed
        protocol = self._protocol
        while owed and owed[0].data is not None:
            data = owed.popleft().data
            if data and protocol.state is State.OPEN:
                protocol.send_text(data)
        if self._draining and not owed:
            self.close(CloseCode.GOING_AWAY, "going away")
        self._flush()
        self._connection.balance()

    def close(self, code: CloseCode, reason: str) -> None:
        """Send a close frame, once; what is owed is not answered any more."""
        self._ended = True
        if self._protocol.state is not State.OPEN:
            return
        self._protocol.send_close(code, reason)
        self._closing_at = self.collector.now
        self._flush()

    def drain(self) -> None:
        """Take no further message; close with 1001 once what was taken is acknowledged."""
        self._draining = True
        if not self._owed:
            self.close(CloseCode.GOING_AWAY, "going away")

    def check(self, now: float) -> None:
        """Pings and silence; called by the sweep."""
        settings = self.collector.settings
        transport = self._connection.transport
        if transport is None:
            return
        if self._closing_at or self._protocol.state is not State.OPEN:
            self._closing_at = self._closing_at or now
            if now - self._closing_at > _CLOSE_SECONDS_MAX:
                transport.abort()
        elif now - self._heard_at > settings.websocket_idle_seconds_max:
            self.collector.counters.deadlines += 1
            transport.abort()
        elif self._held_bytes and now - self._begun_at > settings.body_seconds_max:
            self.collector.counters.deadlines += 1
            self.close(CloseCode.POLICY_VIOLATION, "message too slow")
            self._turn_deaf()
        elif now - self._pinged_at >= settings.websocket_ping_seconds:
            self._pinged_at = now
            self._protocol.send_ping(b"")
            self._flush()

    def lost(self) -> None:
        """The connection is gone: nothing is owed to anybody."""
        if self._ended or self._draining or self._protocol.close_sent is not None:
            if self._carried is not None:
                self._carried.end()  # it was this side that ended it
        else:
            self._over(CloseCode.ABNORMAL_CLOSURE)
        self._turn_deaf()
        self._owed.clear()
        if self._open:
            self._open = False
            self.collector.counters.websockets_open -= 1

    def _flush(self) -> None:
        """Write what the protocol object has to say; an empty piece is the end of the stream."""
        pieces = self._protocol.data_to_send()
        transport = self._connection.transport
        if not pieces or transport is None or transport.is_closing():
            return
        ends = not pieces[-1]
        data = b"".join(pieces)
        if data:
            transport.write(data)
        if ends:
            self._closing_at = self._closing_at or self.collector.now
            transport.write_eof()


def _let_go(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and of what led to it."""
    while error is not None:
        led_to_it = error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = led_to_it
