"""Requests of many cases over real sockets: each case in its order, all cases side by side."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect

from tests.identity.cases import Case, Sent, request_of
from tests.identity.notation import Line

CONNECTIONS = 8
#: More than the loader waits between two loads at low rates: what is sent after it is loaded later.
ROUND_SECONDS = 0.25


class Sender:
    """Sends to one collector, and keeps what a case was answered."""

    def __init__(self, collect: str, midnight_ms: int) -> None:
        self._host = urlsplit(collect).netloc
        self._midnight_ms = midnight_ms
        #: Case name -> visitor id by its name in the scenario.
        self.made: dict[str, dict[str, str]] = {}
        #: What was answered otherwise than a scenario says, by case name.
        self.wrong: dict[str, list[str]] = {}

    def send(
        self,
        work: Sequence[tuple[Case, Sequence[Line]]],
        after_round: Callable[[], None] | None = None,
    ) -> None:
        """Each case's lines in order. Those of cases that are not `at_once` go in rounds, a line of
        each a round, so that they are loaded one after the other."""
        self._side_by_side((case, lines) for case, lines in work if case.at_once)
        spread = [(case, lines) for case, lines in work if not case.at_once]
        for place in range(max((len(lines) for _, lines in spread), default=0)):
            self._side_by_side((case, lines[place : place + 1]) for case, lines in spread)
            time.sleep(ROUND_SECONDS)
            if after_round is not None:
                after_round()

    def _side_by_side(self, work: Iterable[tuple[Case, Sequence[Line]]]) -> None:
        todo: queue.SimpleQueue[tuple[Case, Sequence[Line]]] = queue.SimpleQueue()
        for one in work:
            todo.put(one)
        failed: list[BaseException] = []
        threads = [
            threading.Thread(target=self._work, args=(todo, failed)) for _ in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _work(
        self,
        todo: queue.SimpleQueue[tuple[Case, Sequence[Line]]],
        failed: list[BaseException],
    ) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=20)
        try:
            while not failed:
                try:
                    case, lines = todo.get_nowait()
                except queue.Empty:
                    return
                for line in lines:
                    self._send(connection, case, line)
        except BaseException as error:  # raised again by the caller's thread
            failed.append(error)
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, case: Case, line: Line) -> None:
        made = self.made.setdefault(case.name, {})
        sent = request_of(case, line, self._midnight_ms, made)
        if sent.message:
            self._send_message(sent, case, line)
            return
        connection.request(sent.method, sent.target, sent.body or None, sent.headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            self._note(case, line, f"{answer.status} {body.decode(errors='replace')}")
        elif line.answers and case.as_written:
            self._compare(case, line, json.loads(body))

    def _send_message(self, sent: Sent, case: Case, line: Line) -> None:
        with connect(f"ws://{self._host}{sent.target}") as socket:
            socket.send(sent.body.decode())
            reported = json.loads(socket.recv(20))["reportedIds"]
        if len(reported) != 1:
            self._note(case, line, f"reported {reported}")

    def _compare(self, case: Case, line: Line, answer: dict[str, Any]) -> None:
        visitor = answer.get("vid", "")
        expected = line.answers
        if expected.startswith("$"):
            expected = self.made[case.name].setdefault(expected, visitor)
        if visitor != expected:
            self._note(case, line, f"answered {visitor}, expected {expected}")

    def _note(self, case: Case, line: Line, words: str) -> None:
        self.wrong.setdefault(case.name, []).append(f"line {line.number}: {words}")
