"""Real clients, unchanged, pointed at Headwater: Nucleus' npm and PyPI packages, PHP, and curl.

What they need beyond this project's own environment is installed into temporary folders; where a
program is missing, the test is skipped and says which (in CI it fails, see tests/conftest.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served

HERE = Path(__file__).parent
TOKEN = "client-token"
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
#: One app for each client: the books are kept per account, so each has an account too.
APPS = ("node309", "node306", "analytics403", "python030")
ACCOUNTS = "\n".join(
    [
        *(f'[accounts.{app}.nucleus]\napps = ["{app}"]' for app in APPS),
        "[accounts.acme.vaix]",
        f'tokens = ["sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"]',
        '[accounts.acme.orbee]\ntrackers = ["1/1"]',
        '[accounts.acme.vibetrace]\naccounts = ["ACCT123"]',
        f'[accounts.acme.gamooga]\ncompanies = ["{COMPANY}"]',
    ]
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), ACCOUNTS) as running:
        yield running


def run(command: list[str], *, cwd: Path, home: Path) -> str:
    """Run a client with a home of its own (its queue lies there); its output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def events(served: Served, account: str) -> list[dict[str, Any]]:
    served.wait_loaded()
    rows = served.query(
        "SELECT dialect, kind, name, toJSONString(properties) AS properties,"
        " toJSONString(identities) AS identities, transport FROM events"
        f" WHERE account = '{account}' ORDER BY occurred_at, name"
    )
    for row in rows:
        row["properties"] = json.loads(row["properties"])
    return rows


def books_of(served: Served, account: str, dialect: str) -> dict[str, int]:
    return served.wait_loaded()[account, dialect]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("app", "package"), [("node309", "nucleus-nodejs"), ("node306", "nucleus-nodejs-3.0.6")]
)
def test_nucleus_nodejs_3_sends_each_event_once_and_never_again(
    served: Served, node_modules: Path, tmp_path: Path, app: str, package: str
) -> None:
    endpoint = served.collect.replace("http", "ws", 1)
    command = ["node", "nucleus_nodejs.js", endpoint, app, package]
    run(command, cwd=node_modules, home=tmp_path)
    found = events(served, app)
    assert sorted((row["kind"], row["name"]) for row in found) == [
        ("error", "weirdError"),
        ("session_start", "init"),
        ("track", "LATER"),
        ("track", "NO_DATA"),
        ("track", "PLAYED_TRACK"),
    ]
    (played,) = [row for row in found if row["name"] == "PLAYED_TRACK"]
    assert played["properties"]["trackName"] == "Ünï ☃"
    assert played["properties"]["duration"] == 120
    assert played["transport"] == "websocket"
    assert all("ada@example.com" in row["identities"] for row in found)
    assert books_of(served, app, "nucleus")["duplicate"] == 0, "it resent what was acknowledged"
    run(command, cwd=node_modules, home=tmp_path)
    assert len(events(served, app)) == 10, "a second start sends its own five, none from its queue"
    assert books_of(served, app, "nucleus")["duplicate"] == 0


@pytest.mark.timeout(300)
def test_nucleus_analytics_4_sends_each_event_once(
    served: Served, node_modules: Path, tmp_path: Path
) -> None:
    endpoint = served.collect.replace("http", "ws", 1)
    command = ["node", "nucleus_analytics.js", endpoint, "analytics403"]
    run(command, cwd=node_modules, home=tmp_path)
    found = events(served, "analytics403")
    assert sorted((row["kind"], row["name"]) for row in found) == sorted(
        [
            ("session_start", "init"),
            ("identify", "userid"),
            ("profile", "props"),
            ("track", "PLAYED_TRACK"),
            ("page", "Cart"),
            ("error", "weirdError"),
        ]
    )
    assert all("richard_hendrix" in row["identities"] for row in found)
    assert books_of(served, "analytics403", "nucleus")["duplicate"] == 0


@pytest.mark.timeout(300)
def test_nucleus_python_0_3_empties_its_queue(
    served: Served, tmp_path: Path, nucleus_python: Path
) -> None:
    endpoint = served.collect.replace("http", "ws", 1)
    script = str(HERE / "nucleus_python.py")
    command = [str(nucleus_python), script, endpoint, "python030"]
    assert "left in the queue: 0" in run(command, cwd=tmp_path, home=tmp_path)
    found = events(served, "python030")
    assert sorted((row["kind"], row["name"]) for row in found) == sorted(
        [
            ("track", "BEFORE_INIT"),
            ("session_start", "init"),
            ("identify", "userid"),
            ("track", "PLAYED_TRACK"),
            ("error", "ZeroDivisionError"),
        ]
    )


def test_the_php_of_vibetraces_page_works_as_it_stands(served: Served, tmp_path: Path) -> None:
    if shutil.which("php") is None:
        pytest.skip("missing: php (Debian: apt-get install php-cli)")
    said = run(
        ["php", str(HERE / "vibetrace.php"), served.collect, "ACCT123"],
        cwd=tmp_path,
        home=tmp_path,
    )
    assert said.splitlines() == ['/**/vt({"status":"ok","received":1});'] * 2
    confirmation, login = [row for row in events(served, "acme") if row["dialect"] == "vibetrace"]
    assert (confirmation["name"], login["name"]) == ("confirmation", "login")
    assert "order/1 é" in json.dumps(confirmation["properties"], ensure_ascii=False)
    assert "0111" in confirmation["identities"], "leading zeros are part of an id"


def curl(*arguments: str) -> tuple[int, str]:
    """Status and body."""
    if shutil.which("curl") is None:
        pytest.skip("missing: curl (Debian: apt-get install curl)")
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_curl_posts_to_vaix(served: Served) -> None:
    arguments = [
        *("-H", f"Authorization: Bearer {TOKEN}"),
        *("-H", "x-vaix-client-id: g1"),
        *("-d", '{"user_id":"123","event_type":"clicks:event","data":{"event_id":"by-curl"}}'),
    ]
    url = f"{served.collect}/api/tracker/events"
    assert curl(*arguments, url) == (204, "")
    # Larger than curl's 1 MiB: it waits for `100 Continue` before it sends the body.
    large = json.dumps({"event_type": "clicks:large", "data": {"text": "x" * 1_500_000}})
    done = subprocess.run(
        ["curl", "-sS", "-w", "%{http_code}", *arguments[:4], "--data-binary", "@-", url],
        input=large,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "204"
    names = [row["name"] for row in events(served, "acme") if row["dialect"] == "vaix"]
    assert names == ["clicks:event", "clicks:large"]


def test_curl_posts_to_orbee(served: Served) -> None:
    event = {
        "action": "Submit",
        "object": "Form",
        "vendor": "Vendor A",
        "product": "Product 1",
        "instance_id": "abc123",
    }
    url = f"{served.collect}/collect/1/1/event"
    assert curl("--json", json.dumps(event), url) == (204, "")
    names = [row["name"] for row in events(served, "acme") if row["dialect"] == "orbee"]
    assert names == ["submit:form"]


def test_curl_calls_gamooga(served: Served) -> None:
    base = served.collect
    status, body = curl(f"{base}/id/?c={COMPANY}&u=cust-1")
    visitor = json.loads(body)["vid"]
    assert (status, len(visitor)) == (200, 16)
    sent = ["-G", *("--data-urlencode", "e=add to cart"), *("-d", f"c={COMPANY}&u=cust-1")]
    triples = ["-d", "ky=sku&vl=A1&tp=s&ky=price&vl=19.5&tp=n"]
    answer = json.loads(curl(*sent, *triples, f"{base}/evwid/")[1])
    assert answer == {"result": "success", "vid": visitor}
    rows = [row for row in events(served, "acme") if row["name"] == "add to cart"]
    assert [row["properties"] for row in rows] == [{"sku": "A1", "price": 19.5}]
