"""Enrichment: what a request tells besides what the client said, added to each event's context.

`device` and `bot` come from the user agent, `country` from the address. It is done behind the
journal, between decoding and rows, in loading and in a replay alike, so a replay with newer
patterns or another country file redoes it. A key that the client sent is never overwritten.
"""

from __future__ import annotations

import logging
from pathlib import Path

from headwater import limits
from headwater.accept.request import Request
from headwater.errors import ConfigError
from headwater.event import Decoded
from headwater.resolve.country import Countries, version_of
from headwater.resolve.device import NOTHING, Devices

log = logging.getLogger("headwater.resolve")


class Enrichment:
    """`enrich` is a pure function of request, events and country file. Any thread.

    `scratch` is the folder for the country file's copy, None the system's.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._devices = Devices()
        self._countries: Countries | None = None

    def prepare(self) -> None:
        """Load now what would be loaded with the first event."""
        self._devices.prepare()

    def use_country_file(self, path: str) -> None:
        """Look countries up in a file from now on, "" for none. The same file is read again only
        when it has changed; one that cannot be read is reported and what was in force stays."""
        if not path:
            self._countries = None
            return
        try:
            if self._countries is None or self._countries.version != version_of(Path(path)):
                self._countries = Countries(Path(path), self._scratch)
        except ConfigError as error:
            stays = "no country is known" if self._countries is None else "the old one stays"
            log.error("the country file is not in force, %s: %s", stays, error)

    def enrich(self, request: Request, decoded: Decoded) -> None:
        """Add to the context of each event. Never raises, whatever a client sent."""
        countries = self._countries
        peer = request.peer
        device_of = self._devices.of
        last, device = "", NOTHING
        for event in decoded.events:
            context = event.context
            agent = context.get("user_agent", "")
            if agent is not last:  # events of a request mostly share it
                last = agent
                # Nucleus passes on what a client sends under that key, whatever it is.
                known = type(agent) is str
                device = device_of(agent[: limits.agent_chars_max]) if known else NOTHING
            if "device" not in context and device.fields:
                context["device"] = device.fields
            if "bot" not in context:
                context["bot"] = device.bot
            if countries is not None and "country" not in context:
                address = context.get("ip", peer)
                if address and type(address) is str and (code := countries.of(address)):
                    context["country"] = code
