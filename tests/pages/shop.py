"""A shop's two weeks, sent over sockets: what the console's pages are looked at with.

Sixty people come by on some days; on each visit they look at things, some put one in the basket,
fewer pay, and now and then the app breaks. The app speaks Nucleus, the recommendations VAIX, the
server Gamooga and Vibetrace, the lead form Orbee. Seeded, so that each run sends the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import random
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from bench.traffic import APP, COMPANY, TOKEN, Wire

PEOPLE = 60
DAYS = 14
ITEMS = ("Lantern", "Tent", "Kettle", "Rope", "Boots", "Map", "Compass")
CITIES = (("en_GB", "Linux"), ("de_DE", "macOS"), ("ro_RO", "Windows"), ("hi_IN", "Android"))
STACK = """TypeError: Cannot read properties of undefined (reading 'price')
    at total (https://shop.example/app.js:41:17)
    at Basket.show (https://shop.example/app.js:88:9)"""
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0"
    " Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
)


def accounts() -> str:
    """The shop's account, and a second one beside it, as TOML."""
    return f"""
[accounts.shop]
shared_user_ids = ["vaix", "nucleus", "gamooga"]
[accounts.shop.vaix]
tokens = ["sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"]
[accounts.shop.orbee]
trackers = ["1/1"]
[accounts.shop.nucleus]
apps = ["{APP}"]
[accounts.shop.vibetrace]
accounts = ["ACCT123"]
[accounts.shop.gamooga]
companies = ["{COMPANY}"]
[accounts.other.orbee]
trackers = ["2/2"]
"""


def _json(target: str, body: object, **headers: str) -> Wire:
    sent = {"Content-Type": "application/json", **headers}
    return Wire(
        method="POST",
        target=target,
        headers=tuple((name.replace("_", "-"), value) for name, value in sent.items()),
        body=json.dumps(body).encode(),
    )


class _Visitor:
    """One person, and the ids by which the five know them."""

    def __init__(self, number: int, choose: random.Random) -> None:
        self.user = f"user-{number}"
        self.email = f"person{number}@shop.example"
        self.device = f"device-{number}"
        self.cookie = f"{8_139_618_027_000_000 + number}"
        self.locale, self.platform = choose.choice(CITIES)
        self.agent = choose.choice(AGENTS)


def _nucleus(visitor: _Visitor, session: int, at: int, name: str, **event: Any) -> dict[str, Any]:
    return {
        "type": "event",
        "name": name,
        "id": at % 1_000_000,
        "date": at,
        "sessionId": session,
        "userId": visitor.user,
        "deviceId": visitor.device,
        "platform": visitor.platform,
        "locale": visitor.locale,
        "version": "2.1.0",
        **event,
    }


def _visit(visitor: _Visitor, session: int, at: int, choose: random.Random) -> Iterator[Wire]:
    item = choose.choice(ITEMS)
    paid = round(choose.uniform(9, 240), 2)
    app = [
        _nucleus(visitor, session, at, "Home", type="nucleus:view", payload={"from": "search"}),
        _nucleus(visitor, session, at + 9_000, "VIEW_ITEM", payload={"item": item}),
    ]
    stage = choose.random()
    if stage < 0.6:
        app.append(
            _nucleus(visitor, session, at + 30_000, "ADD_TO_BASKET", payload={"item": item, "n": 1})
        )
    if stage < 0.08:
        broken = {"message": "Cannot read properties of undefined", "stack": STACK}
        app.append(
            _nucleus(visitor, session, at + 31_000, "TypeError", type="error", payload=broken)
        )
    if stage < 0.35:
        payload = {"total": paid, "items": [item], "coupon": "AUTUMN" if paid > 200 else None}
        app.append(_nucleus(visitor, session, at + 60_000, "PAID", payload=payload))
    yield _json(f"/app/{APP}/track", {"data": app}, User_Agent=visitor.agent)
    if stage < 0.35:
        order = {"item": item, "total": paid}
        query = urlencode({"c": COMPANY, "u": visitor.user, "e": "order", "tm": at + 61_000})
        yield _json(f"/evwidj/?{query}", order)
    if choose.random() < 0.4:
        yield _json(
            "/api/tracker/events",
            {
                "user_id": visitor.user,
                "event_type": choose.choice(("clicks:event", "impressions:widget")),
                "data": {"event_id": str(at), "position": choose.randrange(8), "page": "/home"},
            },
            Authorization=f"Bearer {TOKEN}",
            x_vaix_client_id="g1",
        )
    if choose.random() < 0.3:
        event: dict[str, Any] = {
            "userId": visitor.cookie,
            "sessionId": str(session),
            "email": visitor.email,
        }
        event |= {"type": "viewitem", "items": [{"id": item}]}
        yield Wire(
            method="GET",
            target=f"/event/ACCT123/viewitem?{urlencode({'data': json.dumps([event])})}",
            headers=(("User-Agent", visitor.agent),),
        )
    if choose.random() < 0.15:
        lead = {"action": "Submit", "object": "form", "vendor": "Shop", "product": "Leads"}
        lead |= {"instance_id": f"lead-{visitor.user}", "email": visitor.email, "label": item}
        yield _json("/collect/1/1/event", lead)


def _refused() -> Iterator[Wire]:
    yield _json("/collect/1/1/event", {"action": "view", "object": "form"})
    yield Wire(method="GET", target="/event/ACCT123/login?data=notjson")
    yield _json(
        "/api/tracker/events",
        {"user_id": "1", "event_type": "no grammar", "data": {}},
        Authorization=f"Bearer {TOKEN}",
        x_vaix_client_id="g1",
    )


def requests(now: float, *, people: int = PEOPLE, seed: int = 1) -> list[Wire]:
    """All of them, the oldest visit first; `now` in seconds since 1970."""
    choose = random.Random(seed)
    visits = []
    for number in range(people):
        visitor = _Visitor(number, choose)
        begins = choose.randrange(DAYS)
        for day in range(begins + 1):
            # Most come back within days, or not at all.
            if day == begins or choose.random() < 0.75 * 0.8 ** (begins - day):
                at = int((now - day * 86_400 - choose.uniform(120, 40_000)) * 1_000)
                visits.append((at, visitor, choose.randrange(1, 10**6)))
    visits.sort(key=lambda visit: visit[0])
    found = [one for at, who, session in visits for one in _visit(who, session, at, choose)]
    return [*found, *_refused()]


def send(port: int, wires: list[Wire]) -> list[int]:
    """One after another over one connection; the statuses."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    statuses = []
    try:
        for wire in wires:
            connection.request(wire.method, wire.target, wire.body or None, dict(wire.headers))
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
    finally:
        connection.close()
    return statuses


def requests_now() -> list[Wire]:
    """The two weeks up to now."""
    return requests(time.time())


def trickle(port: int, *, seconds: float = 120.0) -> None:
    """Some visits a second for a while, some requests twice: what a live page shows."""
    choose = random.Random(2)
    until = time.monotonic() + seconds
    with contextlib.suppress(OSError, http.client.HTTPException):
        for number in itertools.count(2):
            if time.monotonic() > until:
                return
            wires = requests(time.time(), people=4, seed=number)
            some = choose.sample(wires, min(4, len(wires)))
            send(port, [*some, *choose.sample(some, choose.randrange(2))])
            time.sleep(0.3)
