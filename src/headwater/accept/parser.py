"""Bytes to whole requests, within bounds: llhttp (through httptools), and what it leaves open.

llhttp calls back as it recognises things; what is refused is refused at the earliest callback that
shows it, and raising `_Stop` there makes llhttp stop. Between callbacks llhttp and httptools hold
an unfinished field in memory, so bytes that produce no callback are counted too: a header, trailer
or chunk extension that does not end is refused after tens of kilobytes.

Most clients send the same header lines again and again. A header block that was parsed and found
good is remembered under its bytes (`Collector.heads`): one that is equal byte for byte means the
same, and is not parsed twice. A request is served from memory only if a read holds exactly that one
request, with nothing half-parsed before it, and its request line is plain (GET or POST, a path of
visible ASCII, HTTP/1.1); everything else goes to llhttp. What frames a request stands in the block,
so the line, which differs, cannot change where it ends.

llhttp refuses raw bytes above 127 in a request line, and real callers of the GET dialects send them
(Gamooga's card, section 2): they are percent-encoded before it sees them. A read with such bytes is
handed over in pieces that end where a head or a body ends, so that it is known which are a line's.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import httptools

from headwater.accept import answers
from headwater.accept.head import BadHead, Head, origin_form
from headwater.accept.phase import BODY, DEAF, HEAD, IDLE, WEBSOCKET
from headwater.accept.request import Answer
from headwater.accept.slots import Call
from headwater.limits import target_bytes_max_query

if TYPE_CHECKING:
    from headwater.accept.connection import Connection

log = logging.getLogger("headwater.accept")

#: A refused request's body up to this size is read and dropped, so that the connection can go on.
_DROP_BYTES_MAX = 65_536
#: Bytes that may arrive within a chunked body without being body: chunk sizes, trailers.
_QUIET_BYTES_MAX = 32_768
_REMEMBERED_BYTES_MAX = 2_048
_REMEMBERED_LINES_MAX = 16
_BLANK = re.compile(rb"[\r\n]*").match
_PLAIN_LINE = re.compile(rb"(GET|POST) (/[!-~]*) HTTP/1\.1").fullmatch


class _Stop(Exception):
    """Raised within a callback to make llhttp stop; what to say is settled already."""


class Parser:
    """One connection's parser. It calls `serve`, `refuse`, `drop` and `upgrade` of its connection,
    whose `phase` it moves between IDLE, HEAD and BODY."""

    __slots__ = (
        "_began",
        "_block",
        "_body",
        "_call",
        "_chunked",
        "_connection",
        "_dropped_bytes",
        "_dropping",
        "_fields_bytes",
        "_held_bytes",
        "_in_line",
        "_llhttp",
        "_quiet_bytes",
        "_stirred",
        "fields",
        "url",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self._fields_bytes = 0
        self._call: Call | None = None
        self._body: list[bytes] = []
        self._held_bytes = 0  # of the body that is being read
        self._quiet_bytes = 0  # of a head that is being read, or since the last callback in a body
        self._stirred = False  # a callback has come since the read began
        self._began = False  # a message has begun since the read began
        self._chunked = False
        self._dropping: Answer | None = None  # the refusal that follows a body nobody reads
        self._dropped_bytes = 0  # of that body
        self._in_line = False  # in phase HEAD: the request line has not ended
        self._block: bytes | None = None  # what the head may be remembered under

    @property
    def call(self) -> Call | None:
        """What the head that was read last asks for; None while a head is being read."""
        return self._call if self._connection.phase == BODY else None

    def feed(self, data: bytes) -> None:
        """Bytes from the socket, in phase IDLE, HEAD or BODY."""
        connection = self._connection
        if connection.phase == IDLE:
            self._block = None
            end = data.find(b"\r\n\r\n")
            if end > 0:
                start = data.find(b"\r\n")
                block = data[start:end]
                head = connection.collector.heads.get(block)
                if head is None:
                    if start > 0 and len(block) <= _REMEMBERED_BYTES_MAX:
                        self._block = block
                elif len(data) == end + 4 + head.length:
                    line = data[:start]
                    call = head.calls.get(line) or self._recall(head, line)
                    if call is not None:
                        connection.since = connection.collector.now
                        connection.serve(call, data[end + 4 :])
                        return
        if data.isascii():
            self._parse(data)
        else:
            self._parse_apart(data)

    def _recall(self, head: Head, line: bytes) -> Call | None:
        """What a request line asks for with a header block that is known; None: ask llhttp."""
        plain = _PLAIN_LINE(line)
        if plain is None:
            return None
        target = plain[2].decode("ascii")
        call, answer = self._connection.collector.route(plain[1].decode("ascii"), target, head)
        if answer is not None:
            return None
        if "?" not in target and len(head.calls) < _REMEMBERED_LINES_MAX:
            head.calls[line] = call
        return call

    def _parse_apart(self, data: bytes) -> None:
        """A read with bytes above 127: of request lines percent-encoded, the rest as it is."""
        connection = self._connection
        at, size = 0, len(data)
        while at < size and connection.phase < DEAF:
            phase = connection.phase
            if phase == IDLE or (phase == HEAD and self._in_line):
                start = at
                if phase == IDLE or not self.url:  # blank lines may come before a request
                    start = _blank(data, at)
                stop = data.find(b"\n", start) + 1 or size
                line = _escape(data[at:stop])
                if phase == IDLE:
                    end = data.find(b"\r\n\r\n", stop - 2)
                    end = size if end < 0 else end + 4
                    self._parse(line + data[stop:end])
                else:
                    end = stop
                    self._parse(line)
            elif phase == HEAD or self._chunked:
                end = _blank(data, at)  # may be the rest of a CRLFCRLF that began earlier
                if end == at:
                    found = data.find(b"\r\n\r\n", at)
                    end = size if found < 0 else found + 4
                self._parse(data[at:end])
            else:
                end = size
                if self._call is not None:
                    left = self._call.head.length - self._held_bytes - self._dropped_bytes
                    end = min(size, at + left)
                self._parse(data[at:end])
            at = end
        if connection.phase == WEBSOCKET and at < size:
            connection.beyond(data[at:])

    def _parse(self, data: bytes) -> None:
        connection = self._connection
        self._stirred = self._began = False
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Stop) and connection.phase < DEAF:
                log.error(
                    "a request could not be handled",
                    exc_info=error.__context__,
                    extra={"request_id": None},  # of one that has none yet; its words stay out
                )
                connection.refuse(answers.own(500, "internal error"))
            return
        except httptools.HttpParserError:
            connection.refuse(self.error(400, answers.BAD_REQUEST))
            return
        self._block = None
        if connection.phase == HEAD:
            # the read in which a message begins may hold the end of the one before
            self._quiet_bytes += 1 if self._began else len(data)
            bound = connection.collector.settings.headers_bytes_max + target_bytes_max_query
            if len(self.url) > target_bytes_max_query:
                connection.refuse(answers.TARGET_TOO_LONG)
            elif self._quiet_bytes > bound:
                connection.refuse(answers.HEADERS_TOO_LARGE)
            self._in_line = not self.fields and self._ends_in_line(data)
        elif connection.phase == BODY and self._chunked:
            self._quiet_bytes = 0 if self._stirred else self._quiet_bytes + len(data)
            if self._quiet_bytes > _QUIET_BYTES_MAX:
                connection.refuse(self.error(400, answers.BAD_REQUEST))

    def _ends_in_line(self, data: bytes) -> bool:
        """Whether a read that ended before the first field did ended within the request line."""
        url = self.url
        if not url:
            return True
        if not self._began:
            return self._in_line and b"\n" not in data
        before = data.rpartition(b"\n")[0]
        return data.endswith(b" " + url) and not before.endswith(b" %b HTTP/1.1\r" % url)

    def error(self, status: int, default: Answer) -> Answer:
        """The dialect's own words for a status where the route is known."""
        call = self.call
        return default if call is None or call.desk is None else call.desk.error(status, "", None)

    def release(self) -> None:
        """Let go of the body that is being read."""
        self._connection.collector.inflight_bytes -= self._held_bytes
        self._held_bytes = 0
        self._body = []

    # --- llhttp calls these --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        connection = self._connection
        connection.phase = HEAD
        connection.since = connection.collector.now
        self.url = b""
        self.fields = []
        self._fields_bytes = 0
        self._quiet_bytes = 0
        self._began = True
        self._call = None

    def on_url(self, url: bytes) -> None:
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._stirred = True
        fields = self.fields
        fields.append((name, value))
        self._fields_bytes += len(name) + len(value) + 4
        settings = self._connection.collector.settings
        if (
            self._fields_bytes > settings.headers_bytes_max
            or len(fields) > settings.header_count_max
        ):
            self._connection.refuse(self.error(431, answers.HEADERS_TOO_LARGE))
            raise _Stop

    def on_headers_complete(self) -> None:
        connection = self._connection
        collector = connection.collector
        if len(self.url) > target_bytes_max_query:
            connection.refuse(answers.TARGET_TOO_LONG)
            raise _Stop
        llhttp = self._llhttp
        try:
            target = origin_form(self.url.decode("latin-1"))
            head = Head(llhttp.get_http_version(), self.fields, llhttp.should_keep_alive())
        except BadHead:
            connection.refuse(answers.BAD_REQUEST)
            raise _Stop from None
        connection.phase = BODY
        connection.since = collector.now
        self._quiet_bytes = 0
        self._chunked = head.chunked
        block, self._block = self._block, None
        method = llhttp.get_method().decode("latin-1")
        if llhttp.should_upgrade():
            self._judge_upgrade(method, target, head)
            return
        call, answer = collector.route(method, target, head)
        self._call = call
        if head.expect and not head.http10:
            if answer is None:
                answer = connection.expected(call)
        elif block is not None and head.keep_alive and not head.chunked and not head.http10:
            collector.remember(block, head)
        if answer is not None:
            if head.length > _DROP_BYTES_MAX or head.chunked or head.expect or answer.close:
                connection.refuse(answer)
                raise _Stop
            self._dropping = answer

    def on_chunk_header(self) -> None:
        self._stirred = True

    def on_body(self, piece: bytes) -> None:
        self._stirred = True
        if self._dropping is not None:
            self._dropped_bytes += len(piece)
            return
        connection = self._connection
        collector = connection.collector
        self._held_bytes += len(piece)
        collector.inflight_bytes += len(piece)
        self._body.append(piece)
        call = self._call
        assert call is not None
        bound = _DROP_BYTES_MAX if call.desk is None else call.desk.body_bytes_max
        if self._held_bytes > bound:
            connection.refuse(self.error(413, answers.own(413, "body too large")))
            raise _Stop
        if collector.inflight_bytes > collector.settings.inflight_bytes_max:
            collector.counters.refused["inflight_bytes"] += 1
            connection.refuse(self.error(503, answers.own(503, "try again")))
            raise _Stop

    def on_message_complete(self) -> None:
        self._stirred = True
        call = self._call
        if call is None or call.websocket:
            return  # HttpParserUpgrade follows
        connection = self._connection
        connection.phase = IDLE
        connection.since = connection.collector.now
        body = b""
        if self._held_bytes:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self.release()
        answer, self._dropping = self._dropping, None
        self._dropped_bytes = 0
        if not call.keep_alive or connection.collector.draining:
            connection.phase = DEAF
        if answer is None:
            connection.serve(call, body)
        else:
            connection.drop(call, answer)

    # --- upgrade -------------------------------------------------------------------------------

    def _judge_upgrade(self, method: str, target: str, head: Head) -> None:
        """llhttp will stop behind this head; say what becomes of it."""
        if method == "CONNECT":
            answer = answers.own(405, "method not allowed", (("allow", "GET, POST, OPTIONS"),))
            self._connection.refuse(answer)
            raise _Stop
        if head.upgrade == "websocket" and method == "GET" and not head.has_body:
            call, refusal = self._connection.collector.route(method, target, head, websocket=True)
            if refusal is None and call.websocket:
                self._call = call

    def _upgraded(self, rest: bytes) -> None:
        """llhttp has stopped behind a head that asks for an upgrade; `rest` follows it."""
        connection = self._connection
        if connection.phase >= DEAF:
            return
        call = self._call
        if call is not None:
            connection.upgrade(call, rest)
            return
        # An upgrade that is not offered here (h2c, websocket elsewhere) is ignored, as RFC 9110,
        # section 7.8 says: parse the request again without the header that asks for it.
        method = self._llhttp.get_method()
        lines = [b"%b %b HTTP/1.1\r\n" % (method, self.url)]
        lines += [
            b"%b: %b\r\n" % (name, value)
            for name, value in self.fields
            if name.lower() != b"upgrade"
        ]
        self._llhttp = httptools.HttpRequestParser(self)
        self._parse(b"".join(lines) + b"\r\n" + rest)


def _blank(data: bytes, at: int) -> int:
    """Where the CRs and LFs end that stand at a place."""
    found = _BLANK(data, at)
    assert found is not None
    return found.end()


def _escape(line: bytes) -> bytes:
    """Percent-encode what is above 127."""
    if line.isascii():
        return line
    return b"".join(b"%%%02X" % byte if byte > 127 else bytes((byte,)) for byte in line)
