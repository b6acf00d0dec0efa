"""What goes into a JSON column, and what is kept as text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from headwater import limits
from headwater.store.clickhouse import Store
from headwater.store.fit import fit, json_text
from tests.store.made import insert, make_event


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def in_lists(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return {"a": value}


FITTING: list[dict[str, Any]] = [
    {},
    {"a": 1, "b": "x", "c": 1.5, "d": True, "e": None},
    {"": 1},
    {"a.b": 1},
    {".": 1},
    {"a": {"b": {"c": [1, "x", None, {"d": 2}]}}},
    {"a": [{"b": 1}, {"b": "x"}]},
    {"a": 2**64 - 1, "b": -(2**63)},
    {"a": 2**70},
    {"a\0b": "x\0y"},
    {"`a`": 1, 'a"b': 2, "a\\b": 3},
    {"A": 1, "a": 2},
    {"a": "2020-01-01", "b": "2020-01-01 00:00:00", "c": "12", "d": "true"},
    {"k" * 10_000: 1},
    {"a": 1e308, "b": -0.0},
    {f"k{i}": i for i in range(limits.json_keys_max)},
    nested(limits.json_depth_max),
    in_lists(limits.json_depth_max - 1),
]
KEPT_AS_TEXT: list[dict[str, Any]] = [
    {"a": {"b": 1}, "a.b": 2},
    {"a": 1, "a.b": 2},
    {"a": [{"b": {"c": 1}, "b.c": 2}]},
    {'a"': {"b": 1}, 'a".b': 2},
    {"a": {"b\\": 1}, "a.b\\": 2},
    {"a": "\ud800"},
    {"\ud800": 1},
    {f"k{i}": i for i in range(limits.json_keys_max + 1)},
    nested(limits.json_depth_max + 1),
    nested(5_000),
    in_lists(5_000),
]


@pytest.mark.parametrize(
    "value", FITTING, ids=lambda value: str(value)[:40].encode("ascii", "replace").decode()
)
def test_what_the_store_can_hold_goes_in_as_it_is(value: dict[str, Any]) -> None:
    text, as_text = fit(value)
    assert not as_text
    assert json.loads(text) == value


@pytest.mark.parametrize("value", KEPT_AS_TEXT, ids=range(len(KEPT_AS_TEXT)))
def test_what_the_store_would_refuse_is_kept_as_text(value: dict[str, Any]) -> None:
    text, as_text = fit(value)
    assert as_text
    assert list(json.loads(text)) == ["_text"]


def test_the_text_that_is_kept_is_the_json_of_the_whole() -> None:
    value = {"a": {"b": 1}, "a.b": 2}
    assert json.loads(json.loads(fit(value)[0])["_text"]) == value


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.5, "b": "x.y:", "c": ['"z.":', "."], "d": {"e": "1.2"}},
        {"a": "." * 2_000_000 + '"'},
        {"a": '".' * 1_000_000, "b": "\\." * 1_000_000},
    ],
    ids=range(3),
)
def test_dots_in_values_are_no_paths_and_cost_no_time(value: dict[str, Any]) -> None:
    began = time.perf_counter()
    text, as_text = fit(value)
    assert time.perf_counter() - began < 2
    assert not as_text
    assert json.loads(text) == value


def test_a_lone_surrogate_stays_visible_and_the_text_is_valid() -> None:
    assert json_text({"a": "\ud800"}) == b'{"a":"\\ud800"}'
    fit({"a": "\ud800"})[0].decode("utf-8")


def test_chdb_takes_everything_that_fit_lets_through(store: Store) -> None:
    everything = FITTING + KEPT_AS_TEXT
    insert(store, *(make_event(i, properties=value) for i, value in enumerate(everything)))
    rows = store.query(
        "SELECT has(issues, 'kept_as_text: properties'), "
        "arrayExists(one -> one LIKE '%refused by the store%', issues) "
        "FROM events ORDER BY event_id"
    ).rows
    assert len(rows) == len(everything)
    assert sum(row[0] for row in rows) == len(KEPT_AS_TEXT)
    assert not any(row[1] for row in rows)


def test_a_context_that_does_not_fit_is_kept_as_text_too(store: Store) -> None:
    insert(store, make_event(context={"a": {"b": 1}, "a.b": 2}))
    ((context, issues),) = store.query("SELECT context, issues FROM events").rows
    assert json.loads(context["_text"])["a.b"] == 2
    assert issues == ["kept_as_text: context"]
