"""What accept needs from the stages to its right, as it sees them.

A stage does not import what comes after it, so the two promises that the answer waits for are
restated here; ``app.py`` and ``collector.py`` put the real parts in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headwater.accept.request import Identified, Identify, Request


class Journal(Protocol):
    """The journal's writing end (see ``headwater.journal.journal.Writer``)."""

    @property
    def healthy(self) -> bool:
        """Whether a write would be durable now."""
        ...

    def append(
        self, request: Request, events: int, done: Callable[[Exception | None], None]
    ) -> None:
        """Queue a request; `done` is called on the event loop, with None once it is durable."""
        ...


class Visitors(Protocol):
    """The registry's visitors, for use on the event loop."""

    def known(self, account: str, question: Identify) -> Identified | None:
        """The answer from memory when it needs no write; None: ask `identify`. Never blocks."""
        ...

    async def identify(self, account: str, question: Identify) -> Identified:
        """The answer, durable. Raises RegistryFailed."""
        ...
