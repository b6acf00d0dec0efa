"""The background profile of property types: a thread in the hub, beside the loader.

It looks at one window of received_at after another once everything in it is loaded, and rests for
several times as long as that took, so that loading and questions hardly notice. It may be cut off
anywhere (``store.property_types``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.store.property_types import PropertyTypes

log = logging.getLogger("headwater.profiling")

#: How often it is looked whether a window is over.
_LOOK_SECONDS = 5.0
#: Of its time, what it works at the most.
_SHARE = 0.2
_AGAIN_SECONDS = 60.0
#: Requests of one moment are journaled in another order than received, by milliseconds.
_MARGIN_US = 2_000_000
_STOP_SECONDS = 1.0


class Profiling:
    """`pending` says whether anything journaled is not loaded yet, `lag_seconds` how old that is,
    0 while nobody knows."""

    def __init__(
        self,
        *,
        types: PropertyTypes,
        pending: Callable[[], bool],
        lag_seconds: Callable[[], float],
        clock: Clock,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._types = types
        self._pending = pending
        self._lag_seconds = lag_seconds
        self._clock = clock
        self._look_seconds = look_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiling", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> bool:
        """End; whether the thread has ended. One that has not may be cut off."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def step(self) -> bool:
        """Look at one window, if one is over; whether there was one. Raises StoreError,
        JournalFailed."""
        window = self._types.next_window(self._loaded_until())
        if window is None:
            return False
        self._types.profile(window)
        return True

    def _loaded_until(self) -> int:
        now = self._clock()
        if not self._pending():
            return now - _MARGIN_US
        lag = self._lag_seconds()
        return now - round(lag * 1e6) - _MARGIN_US if lag else 0

    def _run(self) -> None:
        pause = self._look_seconds
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                found = self.step()
            except HeadwaterError as error:
                log.warning("no profile of properties, tried again: %s", error)
                pause = _AGAIN_SECONDS
                continue
            took = time.monotonic() - began
            pause = max(took / _SHARE, 0.05) if found else self._look_seconds
