"""What connects a request that was read with the answer that it is owed.

A `Call` is what a head asks for, and may be shared by many requests; a `Slot` is one request's
place in its connection's queue of answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.accept.accounts import Admission
from headwater.accept.answers import Variant, Voice
from headwater.accept.head import Head
from headwater.accept.intake import Desk
from headwater.accept.request import Answer, Request

if TYPE_CHECKING:
    from headwater.accept.connection import Connection


class Call:
    """What a request line and header block ask for: the dialect, the endpoint, and how the answer
    is rendered. `target` is in origin-form.

    `desk` is None for what no dialect speaks; `websocket`: the connection is to be upgraded.
    `admission` is set where the head alone settles the account (an opaque token that was found
    good): requests with the same head need not be asked again until the accounts change.
    """

    __slots__ = (
        "admission",
        "desk",
        "endpoint",
        "head",
        "keep_alive",
        "method",
        "params",
        "target",
        "variant",
        "voice",
        "websocket",
    )

    def __init__(
        self,
        method: str,
        target: str,
        head: Head,
        voice: Voice,
        variant: Variant,
        *,
        desk: Desk | None = None,
        endpoint: str = "",
        params: dict[str, str] | None = None,
        websocket: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.head = head
        self.voice = voice
        self.variant = variant
        self.desk = desk
        self.endpoint = endpoint
        self.params = params or {}
        self.websocket = websocket
        self.keep_alive = head.keep_alive
        self.admission: Admission | None = None


class Slot:
    """One HTTP request's place in the queue of answers (an headwater.accept.intake.Owed).

    `call` is None where the head was refused before it meant anything. `data` is the rendered
    answer, once known. `last`: the connection ends with it while the client may still be sending.
    """

    __slots__ = ("answer", "at", "call", "connection", "cost", "data", "last", "request")

    def __init__(self, connection: Connection, call: Call | None, at: int = 0, cost: int = 0):
        self.connection = connection
        self.call = call
        self.at = at
        self.cost = cost
        self.answer: Answer | None = None
        self.request: Request | None = None
        self.data: bytes | None = None
        self.last = False

    def settle(self, answer: Answer) -> None:
        """Give an answer that promises nothing."""
        self.connection.finish(self, answer)

    def done(self, error: Exception | None) -> None:
        """The journal's word: give `answer`, or say that it could not be kept."""
        connection = self.connection
        collector = connection.collector
        collector.inflight_bytes -= self.cost
        answer = self.answer
        call = self.call
        assert answer is not None
        assert call is not None
        desk = call.desk
        assert desk is not None
        if error is None:
            collector.counters.acknowledged(
                desk.name, answer.events, collector.group_at() - self.at
            )
        else:
            collector.counters.refused["journal"] += 1
            answer = desk.error(503, "try again", self.request)
        connection.finish(self, answer)
