"""The supervisor's line to its child processes, both ends of it.

A child is started by exec (chDB installs signal handlers and must not be forked into). Its standard
input is a pipe that carries one JSON line per order, first of all the configuration; a line with a
new configuration is a reload. End of file means that the supervisor is gone, by whatever death, and
the child ends at once: everything acknowledged is on disk, so there is nothing to tidy. Its
standard output carries one JSON line per report: `ready`, or why it cannot start. Errors and logs
go to the shared standard error. Children never read the configuration file: what the supervisor has
checked is what they get, also after a restart while the file is broken.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from headwater.config import Config

log = logging.getLogger("headwater.children")

EXIT_ORPHANED = 70


class Order(msgspec.Struct):
    """Supervisor to child."""

    config: Config


class Report(msgspec.Struct, omit_defaults=True):
    """Child to supervisor: ready, or the reason why it is not going to be."""

    ready: bool = False
    failed: str = ""
    remedy: str = ""


def _convert(kind: type, value: object) -> object:
    """msgspec knows no Path."""
    return kind(value)


_decoder = msgspec.json.Decoder(Order, dec_hook=_convert)


def encode(message: Order | Report) -> bytes:
    """One message as a line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def decode_order(line: bytes) -> Order:
    """An order from its line. Raises ValueError."""
    return _decoder.decode(line)


def decode_report(line: bytes) -> Report | None:
    """A report from its line; None for anything else that a child printed."""
    try:
        return msgspec.json.decode(line, type=Report)
    except ValueError:
        return None


def _lines(descriptor: int) -> Iterator[bytes]:
    held = b""
    while data := os.read(descriptor, 65_536):
        *whole, held = (held + data).split(b"\n")
        yield from whole


class Line:
    """A child's end: takes the first order, then follows the pipe in a thread of its own."""

    def __init__(self) -> None:
        # Ctrl-C and a hang-up are the supervisor's to act on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Standard output belongs to the reports; a stray print goes to the log instead.
        self._reports: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        # Not sys.stdin: a thread that waits in a buffered read is fatal at the interpreter's end.
        self._orders = _lines(os.dup(0))
        first = next(self._orders, None)
        if first is None:
            os._exit(EXIT_ORPHANED)
        self.config = decode_order(first).config

    def report(self, report: Report) -> None:
        """Say it to the supervisor; a supervisor that is gone hears nothing, which is no error."""
        try:
            self._reports.write(encode(report))
        except BrokenPipeError:
            return

    def follow(self, reload: Callable[[Config], None]) -> None:
        """Hand each further configuration to `reload` (in another thread); end with the pipe."""

        def run() -> None:
            for line in self._orders:
                try:
                    reload(decode_order(line).config)
                except Exception:
                    # Whatever it is, the old accounts stay, and the line must go on being heard.
                    log.exception("not reloaded, the old accounts stay in force")
            os._exit(EXIT_ORPHANED)

        threading.Thread(target=run, name="supervisor-line", daemon=True).start()
