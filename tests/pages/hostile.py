"""Events whose every field would run, if a page made markup of it."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from bench.traffic import APP, COMPANY, TOKEN, Wire

#: Each sets `window.pwned` where it is taken for markup, script, or a template; the last is long.
MARKUP = (
    "<img src=x onerror=\"window.pwned='img'\">",
    "</script><script>window.pwned='script'</script>",
    "\"'><svg onload=\"window.pwned='svg'\">",
    "{{constructor.constructor('window.pwned=1')()}}",
    "javascript:window.pwned='url'",
    "=HYPERLINK(\"javascript:window.pwned='sheet'\")\u202e\u0007",
    "<a href='javascript:pwned=1' style='position:fixed;inset:0'>x</a>",
    "\u00c6onerror" * 50,
)


def requests() -> list[Wire]:
    """The dialects' own fields, one piece of markup after another."""
    found = []
    for place, text in enumerate(MARKUP):
        properties = {text: text, "url": text, "page": text, "nested": {text: [text]}}
        nucleus = {
            "data": [
                {
                    "type": kind,
                    "name": text,
                    "id": 10_000 + 10 * place + nth,
                    "date": 1_795_226_263_000,
                    "payload": {**properties, "message": text, "stack": f"{text}\n at {text}"},
                    "sessionId": text,
                    "userId": f"{text}{place}",
                    "deviceId": text,
                    "platform": text,
                    "locale": text,
                    "version": text,
                }
                for nth, kind in enumerate(("event", "error", "nucleus:view"))
            ]
        }
        found.append(_post(f"/app/{APP}/track", nucleus))
        found.append(
            _post(
                "/api/tracker/events",
                {
                    "user_id": text,
                    "event_type": "clicks:event",
                    "data": {"event_id": text, "page": text, "location": text, text: text},
                },
                Authorization=f"Bearer {TOKEN}",
                **{"x-vaix-client-id": "g1"},
            )
        )
        lead = dict.fromkeys(("action", "object", "vendor", "product", "instance_id"), text)
        found.append(
            _post("/collect/1/1/event", {**lead, "email": f"{text}@x.example", "label": text})
        )
        # Refused: the reason's detail and the readable request show what was sent.
        found.append(_post("/collect/1/1/event", {"action": text}))
        event = {
            "userId": text,
            "sessionId": text,
            "_vtsid": text,
            "type": text,
            "generic": properties,
        }
        query = urlencode({"data": json.dumps([event])})
        found.append(Wire(method="GET", target=f"/event/ACCT123/login?{query}"))
        query = urlencode({"c": COMPANY, "u": text, "e": text, "ky": text, "vl": text, "tp": "s"})
        found.append(Wire(method="GET", target=f"/evwid/?{query}"))
    return found


def _post(target: str, body: object, **headers: str) -> Wire:
    sent = {"Content-Type": "application/json", "User-Agent": "<b>agent</b>", **headers}
    return Wire(
        method="POST", target=target, headers=tuple(sent.items()), body=json.dumps(body).encode()
    )
