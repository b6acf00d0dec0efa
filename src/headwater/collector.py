"""One collector process: accept → journal → answer, and nothing else.

Started by the supervisor as ``python -m headwater.collector NUMBER DESCRIPTOR``, with the listening
socket inherited. It imports neither the store nor Arrow (a test looks): its memory is what
connections and requests in flight need.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable

import uvloop

from headwater import limits, logs, metrics
from headwater.accept import browser_script
from headwater.accept.accounts import Accounts
from headwater.accept.counters import LATENCY_BUCKETS_MICROSECONDS, Counters
from headwater.accept.http import Collector
from headwater.accept.intake import Settings
from headwater.children import Line, Report
from headwater.clock import Clock, system_clock
from headwater.config import Config, LogSettings
from headwater.decode.dialects import DIALECTS
from headwater.errors import HeadwaterError
from headwater.folder import Folder
from headwater.journal.sqlite import SqliteWriter
from headwater.journal_end import first_segment
from headwater.resolve.desk import VisitorDesk
from headwater.resolve.sqlite import SqliteRegistry

log = logging.getLogger("headwater.collector")

_METRICS_SECONDS = 1.0
#: Of the time that stopping may take, what the journal's last commit gets.
_CLOSE_SECONDS = 3.0
BACKLOG = 4_096


def _accounts(config: Config, clock: Clock) -> Accounts:
    return Accounts(config.accounts, public_host=config.collect.public_host, clock=clock)


async def _count(
    counters: Counters, folder: Folder, worker: int, state: Callable[[], metrics.State]
) -> None:
    """Show the hub what was counted, each second."""
    told = False
    while True:
        counted = metrics.snapshot(
            counters, latency_buckets=LATENCY_BUCKETS_MICROSECONDS, state=state()
        )
        try:
            metrics.write(counted, folder.metrics, worker)
            told = False
        except OSError as error:  # a full disk must not end a collector that still has journal room
            if not told:
                log.warning("the counters cannot be written: %s", error)
            told = True
        await asyncio.sleep(_METRICS_SECONDS)


async def serve(line: Line, worker: int, listening: socket.socket, clock: Clock) -> None:
    """Run until SIGTERM. Raises HeadwaterError when the journal or registry cannot be opened."""
    config = line.config
    loop = asyncio.get_running_loop()
    folder = Folder(config.data)
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    # Workers share the bound evenly: none can know what the others hold without asking the disk.
    writer = SqliteWriter(
        folder.journal,
        worker,
        loop=loop,
        clock=clock,
        bytes_max=config.journal.max_bytes // config.collect.workers,
        first_segment=first_segment(folder, worker),
    )
    registry = SqliteRegistry(folder.registry, clock)
    desk = VisitorDesk(registry, loop)
    counters = Counters([dialect.NAME for dialect in DIALECTS])
    collector = Collector(
        dialects=DIALECTS,
        accounts=_accounts(config, clock),
        writer=writer,
        visitors=desk,
        clock=clock,
        settings=Settings(
            trusted_proxies=config.collect.trusted_proxies,
            rate_limit_per_ip=config.collect.rate_limit_per_ip,
        ),
        counters=counters,
        script=browser_script.load(config.browser.script),
    )

    def state() -> metrics.State:
        return metrics.State(clock(), writer.healthy, writer.failures)

    def reload(fresh: Config) -> None:
        accounts = _accounts(fresh, clock)
        loop.call_soon_threadsafe(collector.reload, accounts)

    server = await loop.create_server(collector.protocol_factory, sock=listening, backlog=BACKLOG)
    counting = loop.create_task(_count(counters, folder, worker, state))
    line.follow(reload)
    # What was imported and wired stays: the collector of garbage need not look at it again.
    gc.collect()
    gc.freeze()
    line.report(Report(ready=True))
    try:
        await stopping.wait()
        server.close()
        await collector.drain(limits.drain_seconds_max - _CLOSE_SECONDS)
    finally:
        counting.cancel()
        await writer.close()
        desk.close()
        registry.close()


def main(arguments: list[str]) -> int:
    """The process; its exit status."""
    worker, descriptor = int(arguments[0]), int(arguments[1])
    name = f"collector {worker}"
    logs.configure(LogSettings(), name)
    line = Line()
    logs.configure(line.config.log, name)
    listening = socket.socket(fileno=descriptor)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(line, worker, listening, system_clock))
    except HeadwaterError as error:
        line.report(Report(failed=f"{name}: {error.message}", remedy=error.remedy))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
