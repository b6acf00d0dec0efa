"""What happens to a request once its bytes are in, whatever brought them.

    rate limit → account → the dialect's answer → [registry] → privacy → journal → answer

An HTTP request and a WebSocket message take the same way; the `Owed` that stands for either knows
how its answer travels. Two rules hold throughout:

**An answer that means success leaves only from `Owed.done(None)`**, which the journal calls after
its fsync. Everything else that settles an answer settles one that the dialect marked `keep=False`,
or an error.

**Nothing raises out of here.** A decoder that fails on some bytes (a bug) costs that request a 500,
and the request is journaled all the same, so that a replay can mend it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import msgspec

from headwater import limits
from headwater.accept.accounts import Accounts, Admission, BadMethod
from headwater.accept.answers import DateHeader, Voice
from headwater.accept.counters import Counters
from headwater.accept.encoding import Corrupt, EncodingError, TooLarge, inflate
from headwater.accept.head import Head
from headwater.accept.interfaces import Journal, Visitors
from headwater.accept.liveness import Carrying, OpenSessions
from headwater.accept.proxies import Proxies
from headwater.accept.rate import RateLimiter
from headwater.accept.request import Answer, Dialect, Request, Rules
from headwater.accept.request_ids import RequestIds
from headwater.accept.visitor_ids import fresh_visitor_id
from headwater.clock import Clock
from headwater.errors import HeadwaterError

log = logging.getLogger("headwater.accept")

#: What a waiting request costs besides its body and target: the objects made for it. With this the
#: bound on bytes in flight bounds the number of requests too.
OVERHEAD_BYTES = 1_024
_NOBODY = Admission("", Rules())


def _of(request: Request) -> dict[str, bytes]:
    """For a log line that belongs to a request."""
    return {"request_id": request.request_id}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses, and the bounds, which tests shorten."""

    trusted_proxies: tuple[str, ...] = ()
    rate_limit_per_ip: int = 0
    header_count_max: int = limits.header_count_max
    headers_bytes_max: int = limits.headers_bytes_max
    headers_seconds_max: float = limits.headers_seconds_max
    body_seconds_max: float = limits.body_seconds_max
    unread_answer_seconds_max: float = limits.unread_answer_seconds_max
    idle_seconds_max: float = limits.idle_seconds_max
    websocket_idle_seconds_max: float = limits.websocket_idle_seconds_max
    websocket_ping_seconds: float = limits.websocket_ping_seconds
    websocket_messages_max: int = limits.websocket_messages_max
    connections_max: int = limits.connections_max
    inflight_bytes_max: int = limits.inflight_bytes_max
    pipeline_requests_max: int = limits.pipeline_requests_max


class Desk(Voice):
    """One dialect at work: its functions, at hand, and its voice."""

    def __init__(self, dialect: Dialect, date: DateHeader) -> None:
        super().__init__(dialect, date)
        self.dialect = dialect
        self.dialect_name = dialect.NAME
        self.answer = dialect.answer
        self.error = dialect.error
        self.precheck = dialect.precheck
        self.tenant = dialect.tenant
        #: What a dialect with a WebSocket offers besides: which sessions a message carries.
        self.carried: Carrying | None = getattr(dialect, "carried", None)
        self.bearer = dialect.BEARER
        self.body_bytes_max = dialect.BOUNDS.body_bytes_max
        self.target_bytes_max = dialect.BOUNDS.target_bytes_max


class Owed(Protocol):
    """An answer that is owed to somebody."""

    answer: Answer | None
    cost: int

    def settle(self, answer: Answer) -> None:
        """Give an answer that promises nothing."""
        ...

    def done(self, error: Exception | None) -> None:
        """The journal's word: give `answer`, or say that it could not be kept."""
        ...


class Intake:
    """What all connections of a process share."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        journal: Journal,
        visitors: Visitors,
        clock: Clock,
        settings: Settings,
        counters: Counters,
    ) -> None:
        self.accounts = accounts
        self.journal = journal
        self.visitors = visitors
        self.clock = clock
        self.settings = settings
        self.counters = counters
        self.proxies = Proxies(settings.trusted_proxies)
        self.limiter = (
            RateLimiter(settings.rate_limit_per_ip) if settings.rate_limit_per_ip > 0 else None
        )
        self.ids = RequestIds()
        self.sessions = OpenSessions()
        self.inflight_bytes = 0
        self._group_at = 0
        self._identifying: set[asyncio.Task[None]] = set()

    def full(self, desk: Desk, request: Request | None) -> Answer:
        """The answer when there is no room for another request; it ends the connection."""
        self.counters.refused["inflight_bytes"] += 1
        return msgspec.structs.replace(desk.error(503, "try again", request), close=True)

    def take(self, owed: Owed, desk: Desk, request: Request, head: Head) -> None:
        """See a whole request through. `request.body` is as on the wire."""
        if desk.bearer:
            early = desk.precheck(request)
            if early is not None:
                owed.settle(early)
                return
            admission = head.admission
            if admission is None or head.admitted_by is not self.accounts:
                found = self._authorize(head)
                if not isinstance(found, Admission):
                    status = 401 if found is None else 400
                    owed.settle(desk.error(status, found or "", request))
                    return
                admission = found
            request.account = admission.account
        else:
            admission = None
            if self._held_back(owed, desk, request):
                return
        wire: bytes | None = None
        if "content-encoding" in request.headers:
            wire = request.body
            try:
                request.body = inflate(
                    wire, request.headers["content-encoding"], desk.body_bytes_max
                )
            except EncodingError as error:
                self._unreadable(owed, desk, request, admission, error)
                return
        if admission is None:
            admission = self._tenant(owed, desk, request)
            if admission is None:
                return
        self.judge(owed, desk, request, admission, wire)

    def _authorize(self, head: Head) -> Admission | BadMethod | None:
        """The account of a bearer token. An opaque token's is remembered with its head for as long
        as these accounts are in force; a JWT expires, so it is not."""
        method = head.headers.get("x-vaix-authentication-method", "").strip().lower()
        found = self.accounts.authorize(head.authorization, method)
        if isinstance(found, Admission) and method != "iam":
            head.admission, head.admitted_by = found, self.accounts
        return found

    def peek(self, owed: Owed, desk: Desk, request: Request) -> None:
        """Settle what GET would be answered, and do nothing of what it does (HEAD)."""
        request.method = "GET"
        if desk.bearer:
            owed.settle(desk.error(405, "", request))
            return
        if self._held_back(owed, desk, request):
            return
        admission = self._tenant(owed, desk, request)
        if admission is None:
            return
        try:
            answer = desk.answer(request, admission.rules)
        except Exception:
            self.counters.decoder_errors += 1
            log.exception("%s: the decoder failed on a HEAD request", desk.name, extra=_of(request))
            answer = desk.error(500, "internal error", request)
        owed.settle(answer)

    def early(self, desk: Desk, request: Request, head: Head) -> Answer | None:
        """What the head alone is refused with, if anything: before a body is asked for, or a
        connection is upgraded."""
        early = desk.precheck(request)
        if early is not None:
            return early
        if desk.bearer:
            return desk.error(401, "", request) if self._authorize(head) is None else None
        wait = self.wait_seconds(request.peer)
        if wait:
            self.counters.refused["rate_limit"] += 1
            answer = desk.error(429, "too many events", request)
            return msgspec.structs.replace(answer, headers=_retry(answer, wait))
        if request.transport == "websocket":
            found = self.accounts.find(desk.dialect_name, desk.tenant(request))
            return desk.error(404, "unknown account", request) if found is None else None
        return None

    def _tenant(self, owed: Owed, desk: Desk, request: Request) -> Admission | None:
        """The account that the request names."""
        early = desk.precheck(request)
        if early is not None:
            owed.settle(early)
            return None
        key = desk.tenant(request)
        if not key:
            return _NOBODY
        admission = self.accounts.find(desk.dialect_name, key)
        if admission is None:
            self._charge(desk, request, 1)
            owed.settle(desk.error(404, "unknown account", request))
            return None
        request.account = admission.account
        return admission

    def _held_back(self, owed: Owed, desk: Desk, request: Request) -> bool:
        """Whether the client has no room left; then that is its answer. Asked before anything is
        done that costs more than asking."""
        wait = self.wait_seconds(request.peer)
        if not wait:
            return False
        self.counters.refused["rate_limit"] += 1
        answer = desk.error(429, "too many events", request)
        owed.settle(msgspec.structs.replace(answer, headers=_retry(answer, wait)))
        return True

    def wait_seconds(self, peer: str) -> int:
        """How long a client has to wait under the rate limit; 0: it may go on."""
        if self.limiter is None:
            return 0
        return self.limiter.wait_seconds(peer, self.clock() / 1e6)

    def _charge(self, desk: Desk, request: Request, events: int) -> None:
        if self.limiter is not None and not desk.bearer:
            self.limiter.charge(request.peer, events, self.clock() / 1e6)

    def judge(
        self, owed: Owed, desk: Desk, request: Request, admission: Admission, wire: bytes | None
    ) -> None:
        """Ask the dialect for its answer, and keep the request if it says so."""
        try:
            answer = desk.answer(request, admission.rules)
        except Exception:
            self._charge(desk, request, 1)
            self._failed(owed, desk, request, admission, wire)
            return
        # Before the registry is asked: what waits for it is charged already.
        self._charge(desk, request, answer.events)
        try:
            if answer.identify is not None and request.account:
                privacy = admission.privacy
                if privacy is not None and privacy.opted_out(request.headers):
                    # Its visitor is not looked up either: that would tell who it is.
                    request.state = answer.identify.visitor or fresh_visitor_id()
                else:
                    known = self.visitors.known(request.account, answer.identify)
                    if known is None:
                        task = asyncio.ensure_future(
                            self._identify(owed, desk, request, admission, wire, answer)
                        )
                        self._identifying.add(task)
                        task.add_done_callback(self._identifying.discard)
                        return
                    request.state, request.created = known.visitor, known.created
                answer = desk.answer(request, admission.rules)
        except Exception:
            self._failed(owed, desk, request, admission, wire)
            return
        self._conclude(owed, desk, request, admission, answer, wire)

    async def _identify(
        self,
        owed: Owed,
        desk: Desk,
        request: Request,
        admission: Admission,
        wire: bytes | None,
        answer: Answer,
    ) -> None:
        assert answer.identify is not None
        self.inflight_bytes += owed.cost
        try:
            try:
                found = await self.visitors.identify(request.account, answer.identify)
            finally:
                self.inflight_bytes -= owed.cost
            request.state, request.created = found.visitor, found.created
            answer = desk.answer(request, admission.rules)
        except HeadwaterError as error:
            self.counters.refused["registry"] += 1
            log.error("the registry did not answer: %s", error, extra=_of(request))
            owed.settle(desk.error(503, "try again", request))
        except Exception:
            self._failed(owed, desk, request, admission, wire)
        else:
            self._conclude(owed, desk, request, admission, answer, wire)

    def _conclude(
        self,
        owed: Owed,
        desk: Desk,
        request: Request,
        admission: Admission,
        answer: Answer,
        wire: bytes | None,
    ) -> None:
        if not answer.keep:
            owed.settle(answer)
            return
        if not request.account:
            # nobody's request is never kept, whatever the dialect would make of it
            owed.settle(desk.error(404, "unknown account", request))
            return
        privacy = admission.privacy
        if privacy is not None:
            if privacy.opted_out(request.headers):
                self.counters.opted_out[desk.name] += 1
                owed.settle(msgspec.structs.replace(answer, keep=False))
                return
            request.peer = privacy.address(request.peer)
        if wire is not None:
            request.body = wire
        request.refused = answer.refused
        owed.answer = answer
        self.inflight_bytes += owed.cost
        try:
            self.journal.append(request, answer.events, owed.done)
        except Exception as error:
            owed.done(error)

    def _failed(
        self, owed: Owed, desk: Desk, request: Request, admission: Admission, wire: bytes | None
    ) -> None:
        """A decoder failed on these bytes: keep them, say 500."""
        self.counters.decoder_errors += 1
        log.exception("%s: the decoder failed", desk.name, extra=_of(request))
        answer = desk.error(500, "internal error", request)
        answer = msgspec.structs.replace(answer, keep=True, refused=True, events=1)
        self._conclude(owed, desk, request, admission, answer, wire)

    def _unreadable(
        self,
        owed: Owed,
        desk: Desk,
        request: Request,
        admission: Admission | None,
        error: EncodingError,
    ) -> None:
        """A body that cannot be inflated. Corrupt ones of a known account are kept, as rejected;
        those in a foreign encoding or over the bound are not."""
        if not isinstance(error, Corrupt):
            self._charge(desk, request, 1)
            status = 413 if isinstance(error, TooLarge) else 400 if desk.bearer else 415
            owed.settle(desk.error(status, str(error), request))
            return
        wire, request.body = request.body, b""
        if admission is None:
            admission = self._tenant(owed, desk, request)
            if admission is None:
                return
        self._charge(desk, request, 1)
        answer = desk.error(400, str(error), request)
        if request.account:
            answer = msgspec.structs.replace(answer, keep=True, refused=True, events=1)
        self._conclude(owed, desk, request, admission, answer, wire)

    def group_at(self) -> int:
        """The time at which the current group of acknowledgements goes out: the clock is read once
        for all calls within one turn of the event loop."""
        at = self._group_at
        if not at:
            at = self._group_at = self.clock()
            self.counters.groups += 1
            asyncio.get_running_loop().call_soon(self._end_group)
        return at

    def _end_group(self) -> None:
        self._group_at = 0


def _retry(answer: Answer, seconds: int) -> tuple[tuple[str, str], ...]:
    """The answer's headers with Retry-After in place of any it has."""
    others = tuple(pair for pair in answer.headers if pair[0].lower() != "retry-after")
    return (*others, ("retry-after", str(seconds)))
