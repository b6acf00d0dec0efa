"""identity.md's scenarios and many more, through real sockets, in every order of arrival.

One Headwater. All cases are sent, the merges of some are undone, all is replayed; after each of the
three, at most five seconds after it is loaded, SQL has to say what the scenarios say.
"""

from __future__ import annotations

import datetime as dt
import http.client
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.identity.cases import Case, accounts_toml, cases_of
from tests.identity.judging import Facts, wrong
from tests.identity.notation import Scenario, scenarios
from tests.identity.sending import Sender
from tests.served import Served

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "identity.md"
SCENARIOS = scenarios(PAGE) + scenarios(Path(__file__).with_name("variants.md"))
CASES = [cases_of(scenario, number) for number, scenario in enumerate(SCENARIOS)]
SETTLED_SECONDS_MAX = 5.0
SHOWN_IDS = 6
UNDOING = 4

pytestmark = pytest.mark.timeout(180)


class Outcome(msgspec.Struct):
    """What was wrong, by case name: when all was sent, in the end, and after a replay. `persons` is
    each event's person, in the end and after the replay; `shown` are ids that were seen on the way.
    """

    sent: dict[str, list[str]] = {}
    finally_: dict[str, list[str]] = {}
    replayed: dict[str, list[str]] = {}
    persons: list[dict[str, str | None]] = []
    shown: set[str] = set()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    accounts = accounts_toml(case for cases in CASES for case in cases)
    with Served(tmp_path_factory.mktemp("identity"), accounts) as running:
        yield running


@pytest.fixture(scope="module")
def outcome(served: Served) -> Outcome:
    """Everything that is sent, and what came of it."""
    all_cases = [case for cases in CASES for case in cases]
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    sender = Sender(served.collect, int((today - dt.timedelta(days=1)).timestamp() * 1_000))
    found = Outcome()
    on_the_way: Callable[[], None] = lambda: found.shown.update(_some_persons(served))  # noqa: E731
    sender.send([(case, case.arrivals) for case in all_cases], after_round=on_the_way)

    def judged_first(facts: Facts) -> dict[str, list[str]]:
        return {
            case.name: wrong(case, facts, finally_=not case.rest and case.scenario.turn != "undo")
            for case in all_cases
        }

    def judged(facts: Facts) -> dict[str, list[str]]:
        return {case.name: wrong(case, facts, finally_=True) for case in all_cases}

    facts, found.sent = _settled(served, judged_first)
    undone = [
        merge["merge_id"]
        for case in all_cases
        if case.scenario.turn == "undo"
        for merge in facts.merges.get(case.name, [])
    ]
    with ThreadPoolExecutor(UNDOING) as threads:
        paths = [f"/api/merges/{merge}/undo" for merge in undone]
        assert {*threads.map(lambda path: _call(served, "POST", path)[0], paths)} <= {200}
    sender.send([(case, case.rest) for case in all_cases if case.rest])
    facts, found.finally_ = _settled(served, judged)
    found.persons.append(_persons(facts))
    served.run("replay", "--since", "1h")
    facts, found.replayed = _settled(served, judged)
    found.persons.append(_persons(facts))
    for name, words in sender.wrong.items():
        found.sent[name] += words
    return found


def _settled(
    served: Served, judge: Callable[[Facts], dict[str, list[str]]]
) -> tuple[Facts, dict[str, list[str]]]:
    """The facts once nothing is wrong with them, or when it is too late for that."""
    served.wait_loaded(60)
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        facts = Facts(served.query)
        found = judge(facts)
        if not any(found.values()) or time.monotonic() > deadline:
            return facts, found
        time.sleep(0.3)


def _some_persons(served: Served) -> list[str]:
    sql = "SELECT DISTINCT person_id FROM events WHERE person_id IS NOT NULL"
    return [row["person_id"] for row in served.query(sql)]


def _persons(facts: Facts) -> dict[str, str | None]:
    return {one.event_id: one.person for seen in facts.events.values() for one in seen}


def _call(served: Served, method: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(served.console).netloc, timeout=30)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {served.token()}"})
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read())
    finally:
        connection.close()


def _told(cases: list[Case], failures: dict[str, list[str]]) -> str:
    """What went wrong, and in which order of arrival."""
    told = []
    for case in cases:
        if failures.get(case.name):
            order = ", ".join(str(line.number) for line in case.arrivals)
            together = " at once" if case.at_once else ""
            told.append(f"{case.name} lines {order}{together}: {'; '.join(failures[case.name])}")
    return "\n".join(told)


_EACH = pytest.mark.parametrize(
    "cases", CASES, ids=[re.sub(r"\W+", "-", one.title.lower())[:60] for one in SCENARIOS]
)


@_EACH
def test_a_scenario_ends_as_it_says_in_every_order(outcome: Outcome, cases: list[Case]) -> None:
    assert _told(cases, outcome.sent) == ""
    assert _told(cases, outcome.finally_) == ""


@_EACH
def test_a_replay_keeps_it_so(outcome: Outcome, cases: list[Case]) -> None:
    assert _told(cases, outcome.replayed) == ""


def test_a_replay_changes_no_id(outcome: Outcome) -> None:
    before, after = outcome.persons
    assert before == after


def test_every_id_that_was_shown_on_the_way_resolves(served: Served, outcome: Outcome) -> None:
    assert len(outcome.shown) > SHOWN_IDS
    now = set(outcome.persons[-1].values())
    gone = sorted(outcome.shown - now)
    chosen = random.Random(1).sample(gone, min(SHOWN_IDS, len(gone)))
    for ident in chosen:
        status, found = _call(served, "GET", f"/api/people/{ident}")
        assert status == 200, ident
        assert found["person_id"] in now


@pytest.mark.usefixtures("outcome")
def test_people_add_up_to_the_events(served: Served) -> None:
    counted = """
    SELECT account, person_id, count() AS events FROM events WHERE person_id IS NOT NULL
    GROUP BY account, person_id ORDER BY person_id"""
    listed = "SELECT account, person_id, events FROM people ORDER BY person_id"
    assert served.query(listed) == served.query(counted)


@pytest.mark.usefixtures("outcome")
def test_sessions_add_up_to_the_events(served: Served) -> None:
    counted = """
    SELECT account, session_id, count() AS events FROM events WHERE session_id IS NOT NULL
    GROUP BY account, session_id ORDER BY session_id"""
    listed = "SELECT account, session_id, events FROM sessions ORDER BY session_id"
    assert served.query(listed) == served.query(counted)


@pytest.mark.usefixtures("outcome")
def test_the_books_close(served: Served) -> None:
    books = served.wait_loaded()
    assert all(row["rejected"] == 0 for row in books.values())
    assert sum(row["duplicate"] for row in books.values()) == _copies()


def _copies() -> int:
    """How many requests of the cases are second copies."""
    copies = 0
    for cases in CASES:
        told = [line.copy_of for line in cases[0].scenario.lines if line.copy_of is not None]
        copies += (len(told) - len(set(told))) * len(cases)
    return copies


@pytest.mark.usefixtures("outcome")
@pytest.mark.parametrize("sql", re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), re.M | re.S))
def test_the_questions_of_the_page_have_answers(served: Served, sql: str) -> None:
    assert served.query(sql)


def test_the_page_has_the_fourteen_scenarios() -> None:
    numbered = [one.title for one in SCENARIOS if re.match(r"\d+\. ", one.title)]
    assert [int(title.partition(".")[0]) for title in numbered] == list(range(1, 15))


def test_most_scenarios_hold_in_every_order() -> None:
    free: list[Scenario] = [one for one in SCENARIOS if one.every_order]
    assert len(free) > len(SCENARIOS) // 2
