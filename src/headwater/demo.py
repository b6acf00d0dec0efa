"""The demonstration: a real server, recorded traffic through real sockets, and what came of it.

Nothing here is simulated: the server is `headwater serve` as a process of its own on free ports,
the requests are those in demo_traffic/ byte for byte, and the table is made of what the query API
answers. Time to visibility runs from the last acknowledgement of a dialect until a query no longer
finds anything of it in flight, so it includes the query itself.
"""

from __future__ import annotations

import hashlib
import http.client
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from websockets.datastructures import HeadersLike
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from headwater.errors import HeadwaterError, WrongUse
from headwater.folder import Folder
from headwater.hub_client import HubClient
from headwater.view.formats import for_terminal

_READY_SECONDS_MAX = 60.0
_LANDED_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 35.0
_ANSWER_SECONDS_MAX = 10.0
_WIDTH_COLUMNS = 110  # of a pipe or a file, which have none of their own
_TOKEN = "demo-token"  # noqa: S105 - what demo_traffic/vaix.json sends, on loopback
_COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"

_BOOKS = "SELECT * FROM accounting"
_SAMPLES = """
SELECT dialect, name, kind, properties FROM events WHERE kind IN ('track', 'page')
ORDER BY received_at, event_id LIMIT 1 BY dialect
"""
#: Those with the most identifiers: what ties events together shows best in them.
_PEOPLE = """
SELECT
    person_id,
    arraySort(groupUniqArrayArray(identities)) AS known_as,
    count() AS events,
    uniqExact(session_id) AS sessions,
    arraySort(groupUniqArray(dialect)) AS dialects
FROM events WHERE person_id IS NOT NULL GROUP BY person_id
ORDER BY length(known_as) DESC, events DESC, person_id LIMIT 4
"""


class Call(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One HTTP request, and the status that it is known to be answered with."""

    method: str
    target: str
    expect: int
    headers: dict[str, str] = {}
    body: str = ""


class Play(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One file of demo_traffic/: HTTP requests, or the messages of one WebSocket."""

    title: str
    source: str
    dialect: str
    transport: Literal["http", "websocket"]
    requests: list[Call] = []
    target: str = ""
    headers: dict[str, str] = {}
    messages: list[str] = []

    @property
    def count(self) -> int:
        """How many requests or messages it sends."""
        return len(self.requests) or len(self.messages)


class Outcome(msgspec.Struct):
    """What one dialect's clients saw."""

    requests: int = 0
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    unexpected: list[str] = msgspec.field(default_factory=list)
    visible_seconds: float | None = None


def plays() -> list[Play]:
    """All of demo_traffic/, ordered by dialect."""
    folder = resources.files("headwater") / "demo_traffic"
    found = [
        msgspec.json.decode(file.read_bytes(), type=Play)
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    ]
    order = ("vaix", "orbee", "nucleus", "vibetrace", "gamooga")
    return sorted(found, key=lambda play: order.index(play.dialect))


def _config(data: Path) -> str:
    digest = hashlib.sha256(_TOKEN.encode()).hexdigest()
    return f"""data = {msgspec.json.encode(str(data)).decode()}
[collect]
listen = "127.0.0.1:0"
[console]
listen = "127.0.0.1:0"
[accounts.demo.vaix]
tokens = ["sha256:{digest}"]    # of "{_TOKEN}"
[accounts.demo.orbee]
trackers = ["1/1"]
[accounts.demo.nucleus]
apps = ["6387f260fae4a13be78fc664", "app1"]
[accounts.demo.vibetrace]
accounts = ["ACCT123"]
[accounts.demo.gamooga]
companies = ["{_COMPANY}"]
"""


class _Server:
    """`headwater serve` on a folder; a context manager that ends it with SIGTERM."""

    def __init__(self, folder: Path) -> None:
        self.folder = Folder(folder / "data")
        self.config = folder / "headwater.toml"
        self._log = folder / "headwater.log"
        self.config.write_text(_config(self.folder.root))
        self.collect = self.console = ""

    def __enter__(self) -> _Server:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headwater", "serve", "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # Ctrl-C is ours to pass on
            )
        assert self._process.stdout is not None
        # The supervisor bounds its own start; its end of file ends this wait.
        for line in self._process.stdout:
            words = line.decode().split()
            if words and words[0] == "ready":
                found = dict(word.split("=", 1) for word in words[1:])
                self.collect, self.console = found["collect"], found["console"]
                return self
        self.__exit__()
        raise HeadwaterError(
            "the server did not start", remedy=f"it wrote:\n{self._log.read_text()[-4_000:]}"
        )

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self) -> None:
        """Until the server ends by itself."""
        self._process.wait()


def _play_http(play: Play, at: str, outcome: Outcome, progress: Progress, task: Any) -> None:
    address = urlsplit(at)
    connection = http.client.HTTPConnection(
        str(address.hostname), address.port, timeout=_ANSWER_SECONDS_MAX
    )
    try:
        for call in play.requests:
            connection.request(
                call.method, call.target, call.body.encode() or None, headers=call.headers
            )
            answer = connection.getresponse()
            body = answer.read()
            outcome.requests += 1
            outcome.answers[str(answer.status)] += 1
            if answer.status != call.expect:
                outcome.unexpected.append(
                    f"{call.method} {call.target[:60]}: {answer.status} instead of {call.expect}: "
                    f"{body[:200].decode(errors='replace')}"
                )
            progress.advance(task)
    finally:
        connection.close()


def _play_websocket(play: Play, at: str, outcome: Outcome, progress: Progress, task: Any) -> None:
    headers: HeadersLike = [
        (name, value) for name, value in play.headers.items() if name != "origin"
    ]
    origin = play.headers.get("origin")
    with connect(
        at.replace("http:", "ws:", 1) + play.target,
        origin=Origin(origin) if origin else None,
        additional_headers=headers,
        user_agent_header=None,
        open_timeout=_ANSWER_SECONDS_MAX,
    ) as socket:
        for message in play.messages:
            socket.send(message)
            answer = socket.recv(timeout=_ANSWER_SECONDS_MAX)
            outcome.requests += 1
            reported = msgspec.json.decode(answer)
            outcome.answers["reportedIds"] += 1
            if "reportedIds" not in reported:
                outcome.unexpected.append(f"{play.title}: {for_terminal(answer)[:200]}")
            progress.advance(task)


class _Look:
    """Questions to the query API."""

    def __init__(self, client: HubClient) -> None:
        self._client = client

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found = msgspec.json.decode(self._client.query(sql, "json"))
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    def landed(self, dialect: str, since: float) -> float | None:
        """Seconds from `since` until nothing of a dialect is in flight; None: not in time."""
        while True:
            books = [row for row in self.rows(_BOOKS) if row["dialect"] == dialect]
            now = time.monotonic()
            if books and all(int(row["in_flight"]) == 0 for row in books):
                return now - since
            if now - since > _LANDED_SECONDS_MAX:
                return None
            time.sleep(0.01)


def _show(look: _Look, outcomes: dict[str, Outcome], console: Console) -> None:
    books = {row["dialect"]: row for row in look.rows(_BOOKS)}
    samples = {row["dialect"]: row for row in look.rows(_SAMPLES)}
    table = Table(title="what came of it", show_lines=True)
    table.add_column("dialect", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    table.add_column("answers", no_wrap=True)
    table.add_column("events", no_wrap=True)
    table.add_column("one of them")
    table.add_column("visible after", justify="right", no_wrap=True)
    for dialect, outcome in outcomes.items():
        book = books.get(dialect, {"stored": 0, "duplicate": 0, "rejected": 0})
        text = Text()
        if row := samples.get(dialect):
            text.append(for_terminal(row["name"]), style="bold")
            text.append(f" ({for_terminal(row['kind'])})\n", style="dim")
            text.append(for_terminal(row["properties"])[:160])
        answers = "\n".join(f"{count} × {kind}" for kind, count in sorted(outcome.answers.items()))
        seen = outcome.visible_seconds
        table.add_row(
            dialect,
            str(outcome.requests),
            answers,
            "\n".join(
                f"{book[what]} {what}"
                for what in ("stored", "duplicate", "rejected")
                if what == "stored" or int(book[what])
            ),
            text,
            "not in time" if seen is None else f"{seen * 1_000:.0f} ms",
        )
    console.print(table)


def _show_people(look: _Look, console: Console) -> str:
    """The people with the most identifiers; an identifier of the first, to ask for."""
    table = Table(title="who it was", show_lines=True)
    for head in ("person", "known as", "events", "sessions", "in"):
        table.add_column(head, justify="right" if head in ("events", "sessions") else "left")
    found = look.rows(_PEOPLE)
    for row in found:
        known = [for_terminal(_identifier(one))[:60] for one in row["known_as"]]
        table.add_row(
            str(row["person_id"])[:13] + "…",
            Text("\n".join(known)),
            str(row["events"]),
            str(row["sessions"]),
            ", ".join(row["dialects"]),
        )
    console.print(table)
    return _identifier(found[0]["known_as"][-1]) if found else ""


def _identifier(one: dict[str, str]) -> str:
    """As `headwater person find` takes it."""
    return f"{one['namespace']}:{one['value']}"


def _play_all(server: _Server, look: _Look, console: Console) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    todo = plays()
    columns = TextColumn("{task.description:<52}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console) as progress:
        for place, play in enumerate(todo):
            outcome = outcomes.setdefault(play.dialect, Outcome())
            task = progress.add_task(f"{play.dialect:<10} {play.title[:40]}", total=play.count)
            send = _play_http if play.transport == "http" else _play_websocket
            try:
                send(play, server.collect, outcome, progress, task)
            except (OSError, http.client.HTTPException, WebSocketException) as error:
                outcome.unexpected.append(f"{play.title}: {type(error).__name__}: {error}")
            acknowledged_at = time.monotonic()
            last = place + 1 == len(todo) or todo[place + 1].dialect != play.dialect
            if last:
                outcome.visible_seconds = look.landed(play.dialect, acknowledged_at)
    return outcomes


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(*, once: bool, data: Path | None) -> int:
    """Run the demonstration; the exit status: 1 when an answer was not the one expected.

    Raises HeadwaterError when the server does not start, WrongUse when `data` is not empty.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_COLUMNS
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        if any(data.iterdir()):
            raise WrongUse(f"{data} is not empty", remedy="give a new or an empty folder")
    root = data.resolve() if data else Path(tempfile.mkdtemp(prefix="headwater-demo-"))
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        console.print("starting headwater serve …")
        with _Server(root) as server:
            console.print(f"collect [cyan]{server.collect}[/]   console [cyan]{server.console}[/]")
            look = _Look(HubClient(server.console, server.folder.token()))
            outcomes = _play_all(server, look, console)
            _show(look, outcomes, console)
            somebody = _show_people(look, console)
            wrong = [line for outcome in outcomes.values() for line in outcome.unexpected]
            late = any(outcome.visible_seconds is None for outcome in outcomes.values())
            for line in wrong:
                console.print(f"[red]unexpected:[/] {escape(for_terminal(line))}", soft_wrap=True)
            console.print(
                f"console  {server.console}/?token={server.folder.token()}", soft_wrap=True
            )
            ask = f"query '{_BOOKS}' --config {server.config}"
            console.print(f"ask it   headwater {ask}", soft_wrap=True)
            if somebody:
                who = f"person find {shlex.quote(somebody)} --config {server.config}"
                console.print(f"who is   headwater {who}", soft_wrap=True)
            if not once:
                console.print("Ctrl-C ends it.")
                server.wait()
            return 1 if wrong or late else 0
    except KeyboardInterrupt:
        return 0
    finally:
        if data is None:
            shutil.rmtree(root, ignore_errors=True)
