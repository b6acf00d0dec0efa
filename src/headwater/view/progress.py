"""Work that takes a while, answered as JSON lines: progress as it comes, the result last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from headwater.errors import HeadwaterError
from headwater.view.formats import to_json

log = logging.getLogger("headwater.view.progress")

#: Told how far the work is.
Progress = Callable[[dict[str, Any]], None]
#: Blocks until it is done, and gives the result.
Work = Callable[[Progress], dict[str, Any]]

LINES = "application/x-ndjson"


def lines_of(name: str, work: Work, ended: Callable[[], None]) -> AsyncIterator[bytes]:
    """Start the work. Its ``{"progress": …}`` lines, then one ``{"result": …}`` or
    ``{"error": …, "remedy": …}``.

    `ended` is called when the work ends, which is later than the lines when the asker goes away.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def progress(done: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, done)

    def finished(task: asyncio.Future[Any]) -> None:
        ended()
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it a second time

    task = asyncio.ensure_future(run_in_threadpool(work, progress))
    task.add_done_callback(finished)
    return _lines(name, task, lines)


async def _lines(
    name: str, task: asyncio.Future[dict[str, Any]], lines: asyncio.Queue[dict[str, Any]]
) -> AsyncIterator[bytes]:
    while not task.done() or not lines.empty():
        waiting = asyncio.ensure_future(lines.get())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            yield to_json({"progress": waiting.result()}) + b"\n"
        else:
            waiting.cancel()
    error = task.exception()
    if error is None:
        yield to_json({"result": task.result()}) + b"\n"
    elif isinstance(error, HeadwaterError):
        yield to_json({"error": error.message, "remedy": error.remedy}) + b"\n"
    else:
        log.error("%s failed", name, exc_info=error)
        yield to_json({"error": f"{name} failed", "remedy": "see the log"}) + b"\n"
