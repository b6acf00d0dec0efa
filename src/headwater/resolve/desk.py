"""Asks the registry for visitors on behalf of an event loop: many questions, one transaction."""

from __future__ import annotations

import asyncio
import queue
import threading

from headwater import limits
from headwater.accept.request import Identified, Identify
from headwater.errors import RegistryFailed
from headwater.resolve.registry import Visitors

_Ask = tuple[str, Identify, "asyncio.Future[Identified]"]


class VisitorDesk:
    """One process's way to the registry. Everything but the thread's own work belongs to `loop`.

    Questions that arrive while a transaction is under way are answered together by the next one,
    as the journal does with requests. They are bounded by the collector's in-flight bytes.
    """

    def __init__(self, registry: Visitors, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop
        self._asks: queue.SimpleQueue[_Ask | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="visitors", daemon=True)
        self._thread.start()

    def known(self, account: str, question: Identify) -> Identified | None:
        """The answer from memory when it needs no write; None: ask `identify`. Never blocks."""
        return self._registry.known(account, question)

    async def identify(self, account: str, question: Identify) -> Identified:
        """The answer, durable. Raises RegistryFailed."""
        if self._closed:
            raise RegistryFailed("the registry is closed")
        answer: asyncio.Future[Identified] = self._loop.create_future()
        self._asks.put((account, question, answer))
        return await answer

    def close(self) -> None:
        """Answer what was asked, then end. Blocks for as long as that takes."""
        if not self._closed:
            self._closed = True
            self._asks.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (ask := self._asks.get()) is not None:
            asks = [ask]
            last = False
            while len(asks) < limits.visitor_questions_max and not last:
                try:
                    more = self._asks.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    asks.append(more)
            self._answer(asks)
            if last:
                return

    def _answer(self, asks: list[_Ask]) -> None:
        answers: list[Identified] | Exception
        try:
            answers = self._registry.identify_many(
                [(account, question) for account, question, _ in asks]
            )
        except Exception as error:  # whatever it is, those who wait are told
            answers = (
                error
                if isinstance(error, RegistryFailed)
                else RegistryFailed(f"the registry failed: {error}")
            )
        try:
            self._loop.call_soon_threadsafe(_settle, asks, answers)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _settle(asks: list[_Ask], answers: list[Identified] | Exception) -> None:
    for place, (_, _, future) in enumerate(asks):
        if future.done():  # the client has gone
            continue
        if isinstance(answers, Exception):
            future.set_exception(answers)
        else:
            future.set_result(answers[place])
