"""What the loader and a replay make of a journaled request: its body inflated, then decoded.

An acknowledged request is decided: it is decoded with permissive rules, whatever the configuration
says today. One that was answered as refused is judged by the rules in force, and on first load may
only become rejected rows; a replay may accept it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headwater.accept.encoding import EncodingError, inflate
from headwater.accept.request import Dialect, DialectName, Request, Rules
from headwater.event import Decoded, Rejection

log = logging.getLogger("headwater.decoding")


#: Adds to the events of a request what else it tells (``resolve.enrichment``); never raises.
Enrich = Callable[[Request, Decoded], None]


class AccountRules(Protocol):
    """Where the rules in force are found (``accept.accounts.Accounts``)."""

    def rules(self, account: str, dialect: DialectName) -> Rules:
        """The account's rules; permissive ones for an account that is gone."""
        ...


class TrackingPlan(Protocol):
    """What an account says its events should look like (``resolve.tracking_plan.Plan``)."""

    def check(self, request: Request, decoded: Decoded) -> None:
        """Leave each event as it is, give it issues, or reject it. Never raises."""
        ...


class Judge:
    """Decodes and enriches requests; never raises for what a client sent. `accounts` gives the
    present rules, `plan_of` an account's tracking plan, None where it has none."""

    def __init__(
        self,
        dialects: Sequence[Dialect],
        accounts: Callable[[], AccountRules],
        enrich: Enrich,
        plan_of: Callable[[str], TrackingPlan | None] = lambda account: None,
    ) -> None:
        self._dialects = {dialect.NAME: dialect for dialect in dialects}
        self._accounts = accounts
        self._enrich = enrich
        self._plan_of = plan_of
        self._permissive = Rules()

    def first(self, request: Request) -> Decoded:
        """On first load: what was refused at arrival stays so."""
        decoded = self.again(request)
        if request.refused and decoded.events:
            for event in decoded.events:
                detail = "it was answered as refused; `headwater replay` judges it anew"
                decoded.rejected.append(
                    Rejection(
                        index=event.index,
                        reason="refused_at_arrival",
                        detail=detail,
                        scope=event.scope,
                    )
                )
            decoded.events = []
        return self._planned(request, decoded)

    def replayed(self, request: Request) -> Decoded:
        """In a replay: by the rules and the tracking plan in force now."""
        return self._planned(request, self.again(request))

    def _planned(self, request: Request, decoded: Decoded) -> Decoded:
        if decoded.events:
            plan = self._plan_of(request.account)
            if plan is not None:
                plan.check(request, decoded)
        return decoded

    def again(self, request: Request) -> Decoded:
        """What it says, whatever a tracking plan says of it: refused ones by the rules in force
        now, acknowledged ones as ever."""
        if request.erased is not None:
            return Decoded()
        dialect = self._dialects.get(request.dialect)
        if dialect is None:
            return _refused("undecodable", f"no dialect {request.dialect}")
        encoding = request.headers.get("content-encoding")
        if encoding and request.transport == "http":
            try:
                body = inflate(request.body, encoding, dialect.BOUNDS.body_bytes_max)
            except EncodingError as error:
                return _refused("bad_encoding", str(error))
            request = msgspec.structs.replace(request, body=body)
        rules = self._permissive
        if request.refused:
            rules = self._accounts().rules(request.account, request.dialect)
        try:
            decoded = dialect.decode(request, rules)
        except Exception as error:
            # A decoder's bug costs that request's events until a replay after the fix, and never
            # stops the loader.
            log.exception(
                "the decoder of %s failed",
                request.dialect,
                extra={"request_id": request.request_id},
            )
            return _refused("undecodable", type(error).__name__)
        self._enrich(request, decoded)
        return decoded


def _refused(reason: str, detail: str) -> Decoded:
    return Decoded(rejected=[Rejection(index=0, reason=reason, detail=detail)])
