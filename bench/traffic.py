"""The requests that are measured: one per dialect and size, in variants that differ in their ids.

Each is the card's own example with fresh ids; a load generator cycles through the variants, so that
no cache of whole requests could help. Nucleus batches repeat after the last variant, which the
collector cannot know (duplicates are the hub's business).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import msgspec

TOKEN = "bench-token"
APP = "6387f260fae4a13be78fc664"
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
VARIANTS = 512
_DATE = 1_795_226_263_000


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A request before it is written out."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def as_bytes(self) -> bytes:
        """HTTP/1.1, keep-alive."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


#: Makes the `number`th request of a kind, of one of some people: by default of the number's own,
#: with Nucleus always of the same one.
Make = Callable[..., Wire]


def vaix(number: int, person: int | None = None) -> Wire:
    body = {
        "user_id": str(number if person is None else person),
        "event_type": "clicks:event",
        "data": {
            "event_id": str(1_018_561_959 + number),
            "position": number % 10,
            "location": "widget:recommended",
            "page": "/home",
            "brand": "example",
            "channel": "desktop",
        },
    }
    headers = (
        ("Authorization", f"Bearer {TOKEN}"),
        ("x-vaix-client-id", "g1"),
        ("Content-Type", "application/json"),
    )
    return Wire(
        method="POST",
        target="/api/tracker/events",
        headers=headers,
        body=json.dumps(body, separators=(",", ":")).encode(),
    )


def orbee(number: int, person: int | None = None) -> Wire:
    who = number if person is None else person
    body = {
        "action": "submit",
        "object": "form",
        "vendor": "Vendor A",
        "product": "Product 1",
        "instance_id": f"abc{who}",
        "label": "Lead form",
        "email": f"x{who}@example.com",
    }
    return Wire(
        method="POST",
        target="/collect/1/1/event",
        headers=(("Content-Type", "application/json"),),
        body=json.dumps(body).encode(),
    )


def vibetrace(number: int, person: int | None = None) -> Wire:
    who = number if person is None else person
    event = {
        "userId": f"0{who}",
        "sessionId": f"013{who}",
        "type": "confirmation",
        "items": [{"id": "123123-M", "quantity": 2}, {"id": "23423-XL", "quantity": 1}],
        "generic": {
            "orderId": f"order_{number}",
            "total": 234.12,
            "email": f"jane{who}@example.com",
        },
    }
    query = urlencode({"data": json.dumps([event]), "callback": "vt", "ts": number})
    return Wire(method="GET", target=f"/event/ACCT123/confirmation?{query}")


def gamooga_get(number: int, person: int | None = None) -> Wire:
    who = number if person is None else person
    pairs = [("c", COMPANY), ("u", f"cust-{who}"), ("e", "add_to_cart")]
    triples = (("sku", f"A{number}", "s"), ("price", "19.5", "n"), ("gift", "true", "b"))
    for name, value, kind in triples:
        pairs += [("ky", name), ("vl", value), ("tp", kind)]
    return Wire(method="GET", target=f"/evwid/?{urlencode([*pairs, ('tm', str(_DATE))])}")


def gamooga_post(number: int) -> Wire:
    query = urlencode({"c": COMPANY, "u": f"cust-{number}", "e": "order", "tm": _DATE})
    body = {"sku": f"A{number}", "price": 19.5, "gift": True}
    return Wire(method="POST", target=f"/evwidj/?{query}", body=json.dumps(body).encode())


def nucleus_events(
    number: int, size: int, person: int | None = None, session: int | None = None
) -> bytes:
    """A message of `size` events as nucleus-analytics sends them; a session for each message, or
    the one that is given."""
    choose = random.Random(number)
    who = "" if person is None else str(person)
    events = [
        {
            "type": "event",
            "name": "PLAYED_TRACK",
            "id": choose.randrange(1, 1_000_000),
            "date": _DATE + number * 1_000 + place,
            "payload": {"trackName": f"track {place}", "duration": 120},
            "sessionId": 967_949 + (number if session is None else session),
            "userId": f"richard_hendrix{who}",
            "anonId": f"oT3FAllRW0CQ{who}",
            "deviceId": f"CiF9fH5XFVjD7Xo{who}",
        }
        for place in range(size)
    ]
    return json.dumps({"data": events}, separators=(",", ":")).encode()


def nucleus(size: int) -> Make:
    """Batches of `size` over HTTP."""

    def make(number: int, person: int | None = None) -> Wire:
        return Wire(
            method="POST",
            target=f"/app/{APP}/track",
            headers=(("Content-Type", "application/json"),),
            body=nucleus_events(number, size, person),
        )

    return make


def variants(make: Callable[[int], Wire], count: int = VARIANTS) -> Iterator[bytes]:
    """The same request with other ids, as bytes."""
    for number in range(count):
        yield make(number).as_bytes()


def accounts() -> str:
    """The configuration under which all of it is accepted, as TOML."""
    return f"""
[accounts.bench.vaix]
tokens = ["sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"]
[accounts.bench.orbee]
trackers = ["1/1"]
[accounts.bench.nucleus]
apps = ["{APP}"]
[accounts.bench.vibetrace]
accounts = ["ACCT123"]
[accounts.bench.gamooga]
companies = ["{COMPANY}"]
"""
