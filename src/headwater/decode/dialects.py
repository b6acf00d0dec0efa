"""The table of dialects, edited by hand: a new one is a module, a folder of cases, a line here."""

from __future__ import annotations

from headwater.accept.request import Dialect
from headwater.decode import gamooga, nucleus, orbee, vaix, vibetrace

DIALECTS: tuple[Dialect, ...] = (vaix, orbee, nucleus, vibetrace, gamooga)
