"""Try a request: decode it as the collector would, or send it through the collector's own port.

A **dry run** takes the way of ``accept.intake`` with the accounts in force and stops where a write
would begin: the vendor's answer, the events, where their fields came from, and who carries their
identifiers today. What only the registry can decide, the visitor id of a unique id that is new, is
made up and said to be.

**Sending** is the real thing: a socket to the collector, its answer as it came, and then the
request out of the journal and its events out of the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec

from headwater import limits
from headwater.accept.accounts import Accounts, Admission
from headwater.accept.encoding import EncodingError, inflate
from headwater.accept.head import BadHead, Head
from headwater.accept.request import Answer, Dialect, Request, Rules
from headwater.accept.request_ids import RequestIds
from headwater.accept.routes import Router
from headwater.clock import Clock
from headwater.config import Config
from headwater.decoding import Judge
from headwater.errors import JournalDamaged, NotFound, WrongUse
from headwater.event import Decoded, Identity
from headwater.inspecting import Inspecting
from headwater.journal.journal import Position, Reader
from headwater.people import Ask
from headwater.try_examples import changes, curl, examples
from headwater.try_sending import Answered, check_head, clean_target, send, send_message
from headwater.view.access import Who
from headwater.view.inspect import RequestShown
from headwater.view.trying import Attempt, Attempted, Attribution, Examples

#: The state of an answer whose visitor id the registry would make.
_NEW_VISITOR = "new-visitor-made"
_LAST_VISITOR = (
    "SELECT JSONExtractString(raw, 'vid') AS visitor FROM headwater_store.events_rows "
    "WHERE account = {account:String} AND dialect = 'gamooga' AND scope = {scope:String} "
    "AND hasAny(identities.value, {users:Array(String)}) AND visitor != '' "
    "ORDER BY received_at LIMIT 1"
)
#: The collector's clock is this machine's; its batches are found by the time of their requests.
_WINDOW_US = 1_000_000
_POLL_SECONDS = 0.03
_IDENTIFIERS_MAX = 20
_STRENGTHS = {
    "strong": "nobody has it yet: it would be a new person",
    "weak": "nobody has it yet: it would make a person, until something stronger says who it is",
    "correlation": "not seen yet: it ties events together, and makes nobody by itself",
    "lookup": "nobody has it: it is looked up only, and makes nobody",
    "context": "kept as context: it makes nobody",
}

#: Who carries ``namespace:value`` in an account (``people.People.find``).
Find = Callable[[str, str], Mapping[str, Any]]


class _Judged(msgspec.Struct):
    """What the collector would answer, and the request as it would be kept (None: it would not)."""

    answer: Answer
    dialect: Dialect | None = None
    account: str = ""
    request: Request | None = None
    note: str = ""


class Trying:
    """Any thread. `config` and `accounts` are those in force; `collector` gives the URL of the
    collector beside this hub, "" for none."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        accounts: Callable[[], Accounts],
        dialects: Sequence[Dialect],
        inspecting: Inspecting,
        judge: Judge,
        ask: Ask,
        find: Find,
        open_reader: Callable[[], Reader],
        marks: Callable[[], Mapping[int, int]],
        collector: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._router = Router(dialects)
        self._inspecting = inspecting
        self._judge = judge
        self._ask = ask
        self._find = find
        self._open_reader = open_reader
        self._marks = marks
        self._collector = collector
        self._clock = clock

    def examples(self, who: Who, dialect: str, account: str) -> Examples:
        """See ``view.trying.Trying``."""
        config = self._config()
        collector = self._collector()
        return Examples(
            examples=[
                one
                for name, settings in sorted(config.accounts.items())
                if who.may_see(name) and account in ("", name)
                for one in examples(settings, self._clock())
                if dialect in ("", one.dialect)
            ],
            changes=[
                one
                for one in changes(collector, config.collect.public_host)
                if dialect in ("", one.dialect)
            ],
            collector=collector,
        )

    def attempt(self, attempt: Attempt, who: Who) -> Attempted:
        """See ``view.trying.Trying``."""
        target = clean_target(attempt.target)
        check_head(attempt.method, attempt.headers)
        token = attempt.token.strip()
        headers = {
            name: value.replace("$TOKEN", token) if name.lower() == "authorization" else value
            for name, value in attempt.headers.items()
        }
        check_head(attempt.method, headers)
        method = "GET" if attempt.transport == "websocket" else attempt.method
        clean = msgspec.structs.replace(
            attempt, target=target, method=method, headers=headers, token=""
        )
        judged = self._judged(clean)
        if judged.account and not who.may_see(judged.account):
            raise NotFound(
                "no account that you may see answers to this request",
                remedy="use an id of an account of yours",
            )
        if attempt.mode == "dry":
            found = self._dry(clean, judged)
        else:
            found = self._send(clean, judged, who)
        found.account = judged.account
        found.dialect = judged.dialect.NAME if judged.dialect is not None else ""
        found.curl = curl(
            self._collector() or "http://127.0.0.1:8080",
            method,
            target,
            attempt.headers,
            attempt.body,
            websocket=attempt.transport == "websocket",
        )
        if token:
            _blank(found, token)
        return found

    # --- as the collector would judge it ----------------------------------------------------------

    def _judged(self, attempt: Attempt) -> _Judged:
        """The way of accept.intake, up to the journal."""
        websocket = attempt.transport == "websocket"
        path = attempt.target.partition("?")[0]
        match = self._router.match(path, websocket=websocket)
        if match is None:
            body = b'{"error":"not found"}'
            return _Judged(
                Answer(status=404, body=body, keep=False), note="no dialect answers at this path"
            )
        dialect = match.dialect
        body = attempt.body.encode()
        fields = [(n.encode(), _wire(v)) for n, v in attempt.headers.items()]
        if not any(name.lower() == b"host" for name, _ in fields):
            fields.append((b"host", self._collector().partition("://")[2].encode() or b"localhost"))
        try:
            head = Head("1.1", fields, True)
        except BadHead as error:
            return _Judged(dialect.error(400, str(error), None), dialect, note=str(error))
        request = Request(
            dialect=dialect.NAME,
            method=attempt.method,
            target=attempt.target,
            endpoint=match.endpoint,
            params=dict(match.params),
            headers=head.headers,
            body=body,
            transport="websocket" if websocket else "http",
            peer="127.0.0.1",
            received_at=self._clock(),
        )
        if not websocket and attempt.method not in match.methods:
            return _Judged(dialect.error(405, "", request), dialect)
        if len(attempt.target) > dialect.BOUNDS.target_bytes_max:
            return _Judged(dialect.error(414, "", request), dialect)
        if len(body) > dialect.BOUNDS.body_bytes_max:
            return _Judged(dialect.error(413, "", request), dialect)
        return self._admitted(dialect, request, head)

    def _admitted(self, dialect: Dialect, request: Request, head: Head) -> _Judged:
        early = dialect.precheck(request)
        if early is not None:
            return _Judged(early, dialect)
        accounts = self._accounts()
        admission: Admission | None
        if dialect.BEARER:
            way = request.headers.get("x-vaix-authentication-method", "").strip().lower()
            found = accounts.authorize(head.authorization, way)
            if not isinstance(found, Admission):
                note = "this token opens no account"
                if not head.authorization.partition(" ")[2].strip():
                    note = "paste a token: it is used for this request only and kept nowhere"
                elif way == "iam":
                    note = "JWTs are judged by the collector, which has the keys: send it"
                return _Judged(
                    dialect.error(401 if found is None else 400, found or "", request),
                    dialect,
                    note=note,
                )
            admission = found
        else:
            key = dialect.tenant(request)
            admission = accounts.find(dialect.NAME, key) if key else None
            if key and admission is None:
                return _Judged(
                    dialect.error(404, "unknown account", request),
                    dialect,
                    note=f"no account is configured for {key}",
                )
        wire = request.body
        encoding = request.headers.get("content-encoding")
        if encoding and request.transport == "http":
            try:
                request.body = inflate(request.body, encoding, dialect.BOUNDS.body_bytes_max)
            except EncodingError as error:
                return _Judged(dialect.error(415, str(error), request), dialect, note=str(error))
        if admission is None:  # the dialect's own way to say that nobody is named
            return _Judged(dialect.answer(request, Rules()), dialect)
        request.account = admission.account
        judged = self._answered(dialect, request, admission)
        request.body = wire  # as the journal has it
        return judged

    def _answered(self, dialect: Dialect, request: Request, admission: Admission) -> _Judged:
        answer = dialect.answer(request, admission.rules)
        note = ""
        if answer.identify is not None:
            asked = answer.identify
            rows = self._ask(
                _LAST_VISITOR,
                {"account": request.account, "scope": asked.scope, "users": list(asked.users)},
            )
            known = rows[0]["visitor"] if rows else ""
            request.state = known or asked.visitor or _NEW_VISITOR
            request.created = not known and not asked.visitor
            note = "the visitor id is the one that it was answered with before"
            if not known:
                note = "sent, it would be given this visitor id"
            if request.created:
                note = "sent, it would be given a fresh visitor id; the one shown is made up"
            answer = dialect.answer(request, admission.rules)
        privacy = admission.privacy
        if privacy is not None and privacy.opted_out(request.headers):
            note = "it asks not to be tracked, and this account honours that: nothing is kept"
            return _Judged(answer, dialect, request.account, None, note)
        if privacy is not None:
            request.peer = privacy.address(request.peer)
        request.refused = answer.refused
        return _Judged(answer, dialect, request.account, request if answer.keep else None, note)

    # --- a dry run --------------------------------------------------------------------------------

    def _dry(self, attempt: Attempt, judged: _Judged) -> Attempted:
        answer, dialect = judged.answer, judged.dialect
        websocket = attempt.transport == "websocket"
        given = [*dialect.ALWAYS, *answer.headers] if dialect is not None else []
        if answer.content_type:
            given.append(("content-type", answer.content_type))
        as_message = websocket and judged.request is not None
        found = Attempted(
            mode="dry",
            status=101 if as_message else answer.status,
            reason="message" if as_message else _phrase(answer.status),
            headers=[] if as_message else given,
            body=answer.body.decode("utf-8", "replace"),
            seconds=0.0,
            account="",
            dialect="",
            note=judged.note,
            curl="",
        )
        if judged.request is not None:
            request = msgspec.structs.replace(
                judged.request, request_id=RequestIds().next(self._clock())
            )
            decoded = self._judge.replayed(request)
            found.request = self._inspecting.decoded(request, decoded)
            found.request.request_id = ""
            for event in found.request.events:
                event.status = "dry run"
            found.attribution = self._attribution(request.account, decoded)
        return found

    def _attribution(self, account: str, decoded: Decoded) -> list[Attribution]:
        """Who carries each identifier today: what a look tells, without the order of events, which
        decides in the end."""
        said: dict[Identity, int] = {}
        for event in decoded.events:
            for one in event.identities:
                if one.value != _NEW_VISITOR:
                    said.setdefault(one, event.index)
        return [
            self._who_has(account, one, at) for one, at in list(said.items())[:_IDENTIFIERS_MAX]
        ]

    def _who_has(self, account: str, one: Identity, index: int) -> Attribution:
        person = None
        words = "a value that means nobody: kept, and it identifies nobody"
        if not one.denied:
            words = _STRENGTHS[one.strength]
            found = self._find(f"{one.namespace}:{one.value}", account)
            people = [
                row
                for row in found.get("people", ())
                if row.get("scope", "") == one.scope and row.get("value") == one.value
            ]
            if people:
                person = str(people[0]["person_id"])
                words = "known: it is this person's"
                if len(people) > 1:
                    words = f"{len(people)} people have had it; the latest is shown"
        return Attribution(
            index=index,
            namespace=one.namespace,
            scope=one.scope,
            value=one.value,
            strength=one.strength,
            person_id=person,
            words=words,
        )

    # --- sent -------------------------------------------------------------------------------------

    def _send(self, attempt: Attempt, judged: _Judged, who: Who) -> Attempted:
        collector = self._collector()
        if not collector:
            raise WrongUse(
                "no collector runs beside this hub", remedy="take the dry run, or the curl line"
            )
        since = self._clock()
        body = attempt.body.encode()
        answered: Answered
        if attempt.transport == "websocket":
            answered = send_message(collector, attempt.target, attempt.headers, attempt.body)
        else:
            answered = send(collector, attempt.method, attempt.target, attempt.headers, body)
        found = Attempted(
            mode="send",
            status=answered.status,
            reason=answered.reason,
            headers=answered.headers,
            body=answered.body.decode("utf-8", "replace"),
            seconds=answered.seconds,
            account="",
            dialect="",
            note=answered.note,
            curl="",
        )
        place = self._kept(attempt, body, since) if judged.dialect is not None else None
        if place is None:
            found.note = found.note or judged.note or "it is not in the journal: nothing was kept"
            return found
        position, ident = place
        until = time.monotonic() + limits.try_visible_seconds_max
        while self._marks().get(position.writer, 0) < position.batch:
            if time.monotonic() > until:
                found.note = "its events are not visible yet: look again at its request"
                break
            time.sleep(_POLL_SECONDS)
        found.request = self._inspecting.request(str(UUID(bytes=ident)), who)
        found.attribution = _whose(found.request)
        return found

    def _kept(self, attempt: Attempt, body: bytes, since: int) -> tuple[Position, bytes] | None:
        """The request that has just been answered, in the journal: the newest that is the same."""
        reader = self._open_reader()
        best: tuple[int, Position, bytes] | None = None
        try:
            until = self._clock() + _WINDOW_US
            for position in reader.find(since=since - _WINDOW_US, until=until):
                before = Position(position.writer, position.batch - 1)
                for batch in reader.read(before, batches_max=1, bytes_max=1):
                    for request in batch.requests:
                        if (
                            request.received_at >= since - _POLL_SECONDS * 1e6
                            and request.target == attempt.target
                            and request.body == body
                            and request.transport == attempt.transport
                            and (best is None or request.received_at > best[0])
                        ):
                            best = (request.received_at, batch.position, request.request_id)
        except JournalDamaged:
            return None
        finally:
            reader.close()
        return None if best is None else best[1:]


def _whose(request: RequestShown) -> list[Attribution]:
    """Whose the stored events are."""
    return [
        Attribution(
            index=event.index,
            namespace="",
            scope=event.scope,
            value=event.name,
            strength="",
            person_id=event.person_id,
            words="this person's" if event.person_id else "nobody's yet",
        )
        for event in request.events
        if event.status in ("stored", "duplicate")
    ]


def _blank(found: Attempted, token: str) -> None:
    """Take the token out, wherever the request repeats it."""
    found.body = found.body.replace(token, "$TOKEN")
    found.headers = [(name, value.replace(token, "$TOKEN")) for name, value in found.headers]


def _wire(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
