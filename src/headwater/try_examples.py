"""Requests to begin with, made of what is configured, and what a client has to change.

Each is one that a real client of its dialect sends (docs/dialects/), with the ids of the account.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from headwater.config import Account
from headwater.view.trying import Change, Example

_JSON = {"content-type": "application/json"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def examples(account: Account, at: int) -> list[Example]:
    """Those of one account; `at` is now, in microseconds."""
    found: list[Example] = []
    for make in (_vaix, _orbee, _nucleus, _vibetrace, _gamooga):
        found += make(account, at)
    return found


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _vaix(account: Account, at: int) -> Iterator[Example]:
    if account.vaix is None:
        return
    group = (account.vaix.groups or ("group-a",))[0]
    listed = [one.replace("*", "event") for one in account.vaix.event_types or ("clicks:event",)]
    headers = {"authorization": "Bearer $TOKEN", "x-vaix-client-id": group, **_JSON}

    def one(title: str, why: str, body: Any, **more: str) -> Example:
        return Example(
            title=title,
            why=why,
            dialect="vaix",
            account=account.name,
            method="POST",
            target="/api/tracker/events",
            headers={**headers, **more},
            body=_json(body),
        )

    data = {"page": "/live", "location": "highlights:recommended", "event_id": "sr:match:42"}
    yield one(
        "A backend's event",
        "one event, its user within the client group",
        {"event_type": listed[0], "user_id": "5", "data": data},
    )
    yield one(
        "From a browser",
        "brand and channel are read off the headers",
        {"event_type": listed[0], "user_id": "5", "data": data},
        origin="https://shop.example",
        **{
            "user-agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) "
            "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1"
        },
    )
    yield one(
        "Nobody signed in",
        "user 0 means nobody; page and location are missing, which is noted only",
        {"event_type": listed[0], "user_id": 0, "data": {}},
    )
    yield one(
        "An event type of another form", "422, kept among the rejected", {"event_type": "Click"}
    )


def _orbee(account: Account, at: int) -> Iterator[Example]:
    if account.orbee is None or not account.orbee.trackers:
        return
    tracker = account.orbee.trackers[0]

    def one(title: str, why: str, body: Any) -> Example:
        return Example(
            title=title,
            why=why,
            dialect="orbee",
            account=account.name,
            method="POST",
            target=f"/collect/{tracker}/event",
            headers=dict(_JSON),
            body=_json(body),
        )

    lead = {
        "action": "submit",
        "object": "form",
        "vendor": "Vendor A",
        "product": "Product 1",
        "instance_id": "lead-4711",
        "label": "Lead form",
        "email": "jane@example.com",
    }
    yield one("A lead form", "vendor, product and instance group what belongs together", lead)
    yield one(
        "The web side's browser",
        "duid ties the instance to a browser; a numeric text is a score",
        {**lead, "duid": "1/124986124/123487527615", "score": "3", "dtm": at // 1_000},
    )
    yield one(
        "Something is missing",
        "400 that names the fields",
        {"action": "view", "object": "form", "vendor": "Vendor A"},
    )


def _nucleus(account: Account, at: int) -> Iterator[Example]:
    if account.nucleus is None or not account.nucleus.apps:
        return
    app = account.nucleus.apps[0]
    ms = at // 1_000
    who = {"deviceId": "CiF9fH5XFVjD7Xo", "anonId": "oT3FAllRW0CQ", "sessionId": 967949}
    track = {
        "type": "event",
        "name": "PLAYED_TRACK",
        "id": ms % 1_000_000,
        "date": ms,
        "userId": "richard_hendrix",
        **who,
        "payload": {"trackName": "Giant Steps", "duration": 120},
    }

    def one(title: str, why: str, data: list[Any], transport: Any = "websocket") -> Example:
        return Example(
            title=title,
            why=why,
            dialect="nucleus",
            account=account.name,
            method="POST" if transport == "http" else "GET",
            target=f"/app/{app}/track",
            transport=transport,
            headers=dict(_JSON) if transport == "http" else {},
            body=_json({"data": data}),
        )

    start = {"type": "init", "id": ms % 999_983, "date": ms - 500, **who}
    yield one(
        "A session over a WebSocket",
        "a start whose payload is the profile, and an event; each is acknowledged by its id",
        [{**start, "payload": {"plan": "pro"}, "platform": "Linux", "locale": "en"}, track],
    )
    yield one("One event over HTTP", "the same message by POST", [track], "http")
    error = {"message": "boom", "stack": "Error: boom\n    at main (app.js:11:46)"}
    yield one(
        "An error with its stack",
        "grouped on the page Errors",
        [{**track, "type": "error", "name": "TypeError", "payload": error}],
    )
    local = (_EPOCH + timedelta(microseconds=at)).replace(tzinfo=None).isoformat()
    yield one(
        "As the Python client writes it",
        "a time without a zone, machineId for deviceId: both are noted",
        [
            {
                "type": "event",
                "name": "REPORT_BUILT",
                "id": ms % 10_000,
                "date": local,
                "userId": None,
                "machineId": "b1f5c5b7caf866bdaddd439b331f2640",
                "sessionId": 9169,
                "payload": {"rows": 7},
            }
        ],
    )


def _vibetrace(account: Account, at: int) -> Iterator[Example]:
    if account.vibetrace is None or not account.vibetrace.accounts:
        return
    ident = account.vibetrace.accounts[0]

    def one(title: str, why: str, kind: str, item: Any, **headers: str) -> Example:
        data = quote(msgspec.json.encode([item]), safe="")
        return Example(
            title=title,
            why=why,
            dialect="vibetrace",
            account=account.name,
            method="GET",
            target=f"/event/{quote(ident)}/{kind}?data={data}&callback=vt&ts={at // 1_000 % 1_000}",
            headers=headers,
        )

    order = {"orderId": "A-1042", "total": 234.12, "email": "jane@example.com"}
    items = [{"id": "123123-M", "quantity": 2}, {"id": "23423-XL", "quantity": 1}]
    ids = {"userId": "8139618027113397", "sessionId": "253412802711339765"}
    yield one(
        "An order, by the pixel's ids",
        "the first way of identification: userId and sessionId",
        "confirmation",
        {"type": "confirmation", **ids, "items": items, "generic": order},
    )
    yield one(
        "A login, by address",
        "the second way: an address that is known",
        "login",
        {"type": "login", "email": "jane@example.com", "source": "checkout"},
    )
    yield one(
        "An order, by _vtsid",
        "the third way: a session that the browser has named before",
        "confirmation",
        {"type": "confirmation", "_vtsid": "S1", "items": items, "generic": order},
    )
    yield one(
        "A page view, by cookie",
        "the cookie counts where the event names nobody",
        "pageview",
        {"type": "pageview", "url": "/products/42"},
        cookie="_vt_user=8139618027113397_253412802711339765_false_false",
    )


def _gamooga(account: Account, at: int) -> Iterator[Example]:
    if account.gamooga is None or not account.gamooga.companies:
        return
    company = account.gamooga.companies[0]
    tm = at // 1_000

    def one(title: str, why: str, target: str, method: str = "GET", body: str = "") -> Example:
        return Example(
            title=title,
            why=why,
            dialect="gamooga",
            account=account.name,
            method=method,
            target=target.replace("COMPANY", company),
            headers=dict(_JSON) if body else {},
            body=body,
        )

    yield one(
        "Who is it?",
        "a unique id is answered with its visitor id",
        "/id/?c=COMPANY&u=cust-1",
    )
    yield one(
        "An event with typed properties",
        "name, value and type are three fields each",
        "/evwid/?c=COMPANY&u=cust-1&e=add_to_cart&ky=sku&vl=A1&tp=s&ky=price&vl=19.5&tp=n"
        f"&ky=gift&vl=true&tp=b&tm={tm}",
    )
    yield one(
        "The same as JSON",
        "types come from the JSON",
        f"/evwidj/?c=COMPANY&u=cust-1&e=order&tm={tm}",
        "POST",
        _json({"sku": "A1", "price": 19.5, "gift": True}),
    )
    yield one(
        "Event and visitor properties",
        "eky, evl, etp for the event, vky, vvl, vtp for the visitor",
        "/evvprwid/?c=COMPANY&u=cust-2&e=signup&eky=plan&evl=pro&etp=s&vky=age&vvl=34&vtp=n",
    )
    yield one(
        "A value that was not escaped",
        "the & cuts it in two: noted as unpaired",
        "/evwid/?c=COMPANY&u=cust-1&e=search&ky=text&vl=salt & pepper&tp=s&ky=page".replace(
            " ", "+"
        ),
    )


# --- what a client has to change ------------------------------------------------------------------


def changes(collector: str, public_host: str) -> list[Change]:
    """By dialect. `collector` is the address that it listens on; `public_host` what clients use."""
    new = f"https://{public_host}" if public_host else collector or "http://127.0.0.1:8080"
    host = new.partition("://")[2]
    scheme = "wss" if new.startswith("https") else "ws"

    def one(dialect: str, old: list[str], *lines: str, to: str = new) -> Change:
        page = f"docs/dialects/{dialect}.md#move-an-integration-here"
        return Change(dialect=dialect, old=old, new=to, lines=list(lines), page=page)

    return [
        one(
            "vaix",
            ["https://api.vaix.ai"],
            f"{new}/api/tracker/events",
            "authorization: Bearer <a token of `headwater token`>",
        ),
        one("orbee", ["https://c*.orb.ee"], f"{new}/collect/<aid>/<tid>/event"),
        one(
            "nucleus",
            ["wss://app.nucleus.sh", "https://app.nucleus.sh"],
            f"Nucleus.init(appId, {{ endpoint: '{scheme}://{host}' }})",
            f"nucleus.api_url = '{scheme}://{host}'   # Python",
            f'Nucleus.shared.apiUrl = "{scheme}://{host}"   // Swift',
            to=f"{scheme}://{host}",
        ),
        one("vibetrace", ["https://app.vtcdn.net"], f"$server_base = '{new}';"),
        one(
            "gamooga",
            ["https://evbk.gamooga.com", "https://cdn-jp.gsecondscreen.com"],
            f"{new}/evwid/?c=…",
            f"{new}/newnaconf/<company>/   # where clients ask first",
        ),
    ]


# --- a shell's line -------------------------------------------------------------------------------


def curl(
    base: str, method: str, target: str, headers: Mapping[str, str], body: str, *, websocket: bool
) -> str:
    """A line for a POSIX shell that sends the same; the token is the variable TOKEN. Every text
    stands in quotes, so nothing of it is run. A WebSocket's message is sent with websocat."""
    lines = []
    if websocket:
        address = "ws" + base.removeprefix("http") + target
        lines.append(f"printf %s {shlex.quote(body)} | websocat -n1 --no-line")
        lines += [f"-H {_header(name, value)}" for name, value in headers.items()]
        lines.append(shlex.quote(address))
        return " \\\n  ".join(lines)
    # -g and --path-as-is: brackets and dots of the target stay as they are.
    lines.append(f"curl -isS -g --path-as-is -X {shlex.quote(method)} {shlex.quote(base + target)}")
    given = {name.lower() for name in headers}
    lines += [f"-H {_header(name, value)}" for name, value in headers.items()]
    if body:
        if "content-type" not in given:
            lines.append("-H 'content-type;'")
        lines.append(f"--data-raw {shlex.quote(body)}")
    return " \\\n  ".join(lines)


def _header(name: str, value: str) -> str:
    if name.lower() == "authorization":
        scheme = value.split(" ", maxsplit=1)[0] if " " in value else "Bearer"
        return f'{shlex.quote(f"{name}: {scheme} ")}"$TOKEN"'
    return shlex.quote(f"{name}: {value}")
