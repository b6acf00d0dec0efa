"""S12, the way out: what clients sent is stored verbatim, and inert in sheets and terminals.

(Names and values as SQL parameters: tests/store; the pages: S13.)
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.faults.watching import metric, until
from tests.served import HEADWATER, Served
from tests.trust.serving import ACME, ask, request

#: What a client may call things. JSON can carry all of them.
TEXTS = {
    "a formula": "=HYPERLINK('http://a.test','x')",
    "a sum": "+1+1",
    "a difference": "-1+1",
    "a function": "@SUM(1)",
    "a tab and a formula": "\t=1",
    "a CR and a formula": "\r=1",
    "DDE": "=cmd|' /C calc'!A0",
    "a quote and a formula": '",=1,"',
    "a window's title": "\x1b]0;owned\x07",
    "a cleared screen": "\x1b[2J\x1b[H",
    "C1": "\u009b2J\u009d0;owned\u009c",
    "line ends": "a\r\nb\nc",
    "a backspace": "rm\b\b",
    "DEL": "a\x7f",
    "right to left": "\u202egpj.exe",
    "isolates": "\u2066a\u2069",
    "rich's markup": "[red]a[/red][link=http://a.test]b[/link]",
    "quotes": "'\"`\\",
    "braces": "{x:String} {} %s",
}
NUL = "a\0b"
#: What must not reach a terminal: any control but the line end, and what turns text around.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: What this program's own colours are made of.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SQL = (
    "SELECT name, toString(properties.v) AS v FROM events WHERE context.client_group = 'output'"
    " ORDER BY v"
)


@pytest.fixture(scope="module")
def stored(served: Served) -> list[str]:
    """Every text, as a value of a VAIX event; NUL too."""
    texts = [*TEXTS.values(), NUL]
    for text in texts:
        send(served, text)
    served.wait_loaded()
    return texts


def send(served: Served, text: str) -> None:
    written = "".join(f"\\u{ord(one):04x}" for one in text)
    body = '{"event_type":"trust:output","user_id":"u","data":{"v":"TEXT"}}'
    body = body.replace("TEXT", written)
    fields = (f"Authorization: Bearer {ACME.token}", "x-vaix-client-id: output")
    data = request("POST", "/api/tracker/events", *fields, body=body.encode())
    assert ask(served.collect_port, data).status == 204
    aim = f"/collect/{ACME.tracker}/event"
    body = '{"action":"TEXT","object":"output","vendor":"v","product":"p","instance_id":"i"}'
    body = body.replace("TEXT", written)
    ask(served.collect_port, request("POST", aim, body=body.encode()))


def test_it_is_stored_verbatim(served: Served, stored: list[str]) -> None:
    assert [row["v"] for row in served.query(SQL)] == sorted(stored, key=str.encode)


def test_a_csv_cell_is_no_formula(served: Served, stored: list[str]) -> None:
    done = subprocess.run(
        [str(HEADWATER), "query", SQL, "--format", "csv", "--config", str(served.config)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    rows = list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))[1:]
    cells = [cell for row in rows for cell in row]
    assert len(rows) == len(stored)
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []
    guarded = {f"'{text}" if text[0] in "=+-@\t\r" else text for text in stored}
    assert {row[1] for row in rows} == guarded


@contextmanager
def terminal(served: Served, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command whose output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(HEADWATER), *arguments, "--config", str(served.config)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)


def shown(ours: int, enough: str, seconds: float = 30.0) -> str:
    """What the terminal was told, until it says `enough` or ends."""
    said = b""
    until = time.monotonic() + seconds
    while time.monotonic() < until and enough.encode() not in said:
        if select.select([ours], [], [], 0.2)[0]:
            with suppress(OSError):
                if piece := os.read(ours, 65_536):
                    said += piece
                    continue
            break
    text = said.decode()
    return COLOURS.sub("", text.replace("\r\n", "\n"))


@pytest.mark.parametrize("shape", ["table", "jsonl", "csv"])
def test_a_query_on_a_terminal_steers_nothing(
    shape: str, served: Served, stored: list[str]
) -> None:
    with terminal(served, "query", SQL, "--format", shape) as (_, ours):
        text = shown(ours, "\0")
    assert "owned" in text
    assert STEERING.findall(text) == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_the_feed_on_a_terminal_steers_nothing(
    options: tuple[str, ...], served: Served, stored: list[str]
) -> None:
    def watched_by(readers: int) -> None:
        async def so_many() -> bool:
            return await metric(served, "headwater_live_watchers") == readers

        asyncio.run(until(so_many))

    watched_by(0)
    with terminal(served, "tail", *options) as (_, ours):
        watched_by(1)
        for text in (*TEXTS.values(), NUL):
            send(served, text)
        send(served, "the last of them")
        text = shown(ours, "the last of them")
    assert "owned" in text
    assert STEERING.findall(text) == []
