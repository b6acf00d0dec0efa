"""Enrichment and privacy through real sockets: what SQL shows, what never reaches the disk, and
what a replay redoes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.client import connect

from tests.resolve.country_file import write_countries
from tests.resolve.test_device import GOOGLEBOT, IPHONE
from tests.served import Served
from tests.test_app import send, soon

COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
ACCOUNTS = f"""
[accounts.keeps.orbee]
trackers = ["1/1"]
[accounts.truncates]
ip = "truncate"
[accounts.truncates.orbee]
trackers = ["2/2"]
[accounts.drops]
ip = "drop"
[accounts.drops.orbee]
trackers = ["3/3"]
[accounts.drops.nucleus]
apps = ["drops"]
[accounts.honours]
privacy_signals = ["dnt", "gpc"]
[accounts.honours.orbee]
trackers = ["4/4"]
[accounts.honours.nucleus]
apps = ["honours"]
[accounts.honours.gamooga]
companies = ["{COMPANY}"]
"""
VIEW = {"action": "view", "object": "form", "vendor": "V", "product": "P", "instance_id": "i"}
PEER = "203.0.113.177"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("enriching")
    write_countries(folder / "countries.mmdb", {"203.0.113.0/24": "AT", "198.51.100.0/24": "CH"})
    with Served(
        folder,
        ACCOUNTS,
        collect='trusted_proxies = ["127.0.0.0/8"]',
        tables='[enrich]\ncountry_file = "countries.mmdb"',
    ) as running:
        yield running


def view(served: Served, tracker: str, label: str, peer: str = PEER, **headers: str) -> None:
    body = msgspec.json.encode({**VIEW, "label": label})
    headers = {"x_forwarded_for": peer, "user_agent": IPHONE, **headers}
    target = f"/collect/{tracker}/event"
    assert send(served.collect, "POST", target, body, **headers)[0] == 204


def context(served: Served, label: str) -> dict[str, Any]:
    """The context of the event with a label, once it is there."""
    sql = f"SELECT toJSONString(context) AS found FROM events WHERE context.label = '{label}'"
    assert soon(lambda: len(served.query(sql)) == 1), label
    found: dict[str, Any] = msgspec.json.decode(served.query(sql)[0]["found"])
    return found


def test_device_bot_and_country_can_be_asked_for_in_sql(served: Served) -> None:
    view(served, "1/1", "phone")
    view(served, "1/1", "crawler", "198.51.100.4", user_agent=GOOGLEBOT)
    phone = context(served, "phone")
    assert (phone["ip"], phone["country"], phone["bot"]) == (PEER, "AT", False)
    assert phone["device"]["model"] == "iPhone"
    assert context(served, "crawler")["device"]["browser"] == "Googlebot"
    (row,) = served.query(
        "SELECT context.device.kind AS kind, context.country AS country FROM events"
        " WHERE account = 'keeps' AND NOT context.bot::Bool"
    )
    assert row == {"kind": "mobile", "country": "AT"}


def test_addresses_are_cut_or_dropped_before_they_reach_the_disk(served: Served) -> None:
    peer = "203.0.113.178"
    view(served, "2/2", "truncated", peer)
    view(served, "3/3", "dropped", peer)
    url = served.collect.replace("http", "ws", 1) + "/app/drops/track"
    event = {"name": "E", "id": 1, "deviceId": "d", "label": "socket", "ip": "192.0.2.1"}
    with connect(url, additional_headers={"X-Forwarded-For": peer}) as socket:
        socket.send(msgspec.json.encode({"data": [event]}).decode())
        socket.recv(10)
    truncated, dropped = context(served, "truncated"), context(served, "dropped")
    assert (truncated["ip"], truncated["country"]) == ("203.0.113.0", "AT")
    assert {"ip", "country"} & set(dropped) == set()
    assert context(served, "socket")["ip"] == "192.0.2.1", "the client's own data"
    served.wait_loaded()
    assert not files_with(served, peer)
    assert files_with(served, PEER), "what an account keeps can be found like this"


def files_with(served: Served, text: str) -> list[Path]:
    """The files of the data folder that hold a text."""
    files = [path for path in served.data.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


@pytest.mark.parametrize("signal", ["dnt", "sec_gpc"])
def test_who_asks_not_to_be_tracked_is_answered_and_not_kept(served: Served, signal: str) -> None:
    before = served.wait_loaded()
    view(served, "4/4", f"with {signal}", **{signal: "1"})
    target = f"/id/?c={COMPANY}&u=u1&v=mine"
    status, body = send(served.collect, "GET", target, b"", **{signal: "1"})
    assert (status, msgspec.json.decode(body)["vid"]) == (200, "mine")
    url = served.collect.replace("http", "ws", 1) + "/app/honours/track"
    with connect(url, additional_headers={signal.replace("_", "-"): "1"}) as socket:
        socket.send('{"data":[{"name":"E","id":7,"deviceId":"d","sessionId":1}]}')
        assert msgspec.json.decode(socket.recv(10)) == {"reportedIds": [7]}
    view(served, "1/1", f"after {signal}", **{signal: "1"})  # another account's business
    context(served, f"after {signal}")
    after = served.wait_loaded()
    after["keeps", "orbee"] = before["keeps", "orbee"]
    assert after == before
    for dialect in ("orbee", "gamooga", "nucleus"):
        assert soon(lambda dialect=dialect: opted_out(served, dialect) > 0), dialect  # type: ignore[misc]


def opted_out(served: Served, dialect: str) -> float:
    """What the metric says, a second behind at most."""
    page = send(served.console, "GET", "/metrics")[1].decode()
    start = f'headwater_opted_out_total{{dialect="{dialect}",worker="0"}} '
    return sum(float(line.removeprefix(start)) for line in page.splitlines() if start in line)


def test_a_replay_looks_countries_up_in_the_file_of_today(served: Served) -> None:
    view(served, "1/1", "moved", "198.51.100.9")
    assert context(served, "moved")["country"] == "CH"
    write_countries(served.folder / "countries.mmdb", {"198.51.100.0/24": "LI"})
    served.run("replay", "--since", "1h")
    assert context(served, "moved")["country"] == "CH", "not in force before SIGHUP"
    served.reload()
    assert soon(lambda: now_in(served, "later") == "LI")
    served.run("replay", "--since", "1h")
    assert context(served, "moved")["country"] == "LI"
    assert "country" not in context(served, "phone"), "the new file does not know it"
    assert context(served, "phone")["device"]["model"] == "iPhone"
    for row in served.wait_loaded().values():
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]


_numbers = iter(range(1_000))


def now_in(served: Served, label: str) -> str | None:
    """The country that an event of now gets."""
    label = f"{label} {next(_numbers)}"
    view(served, "1/1", label, "198.51.100.9")
    found: str | None = context(served, label).get("country")
    return found


def test_a_broken_country_file_is_not_put_in_force(served: Served) -> None:
    (served.folder / "countries.mmdb").write_text("broken")
    served.reload()
    assert soon(lambda: "is no MaxMind database" in served.tail_of_log())
    assert now_in(served, "still") == "LI"
