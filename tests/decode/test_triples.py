"""Property triples as real callers send them: complete, shuffled, cut and short."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.decode.form import pairs
from headwater.decode.triples import Fields, Typed, read_triples, typed

EVENT = Fields(("ky",), "vl", "tp")
VISITOR = Fields(("p", "ky"), "vl", "tp")


def read(query: str, fields: Fields = EVENT) -> Typed:
    return read_triples(pairs(query), fields)


def codes(found: Typed) -> list[str]:
    return [issue.code for issue in found.issues]


def test_triples_in_order_have_their_types() -> None:
    found = read("ky=sku&vl=A1&tp=s&ky=price&vl=19.5&tp=n&ky=gift&vl=true&tp=b")
    assert found.properties == {"sku": "A1", "price": 19.5, "gift": True}
    assert found.types == {"sku": "s", "price": "n", "gift": "b"}
    assert found.issues == []
    assert found.repeated == []


def test_a_type_before_the_first_key_is_ignored() -> None:
    found = read("tp=n&ky=mobile_num&vl=98&tp=s&ky=enroll_id&vl=007&tp=s")
    assert found.properties == {"mobile_num": "98", "enroll_id": "007"}
    assert found.issues == []


def test_the_first_type_of_a_group_counts() -> None:
    assert read("ky=a&vl=1&tp=s&tp=n").properties == {"a": "1"}


def test_the_order_within_a_group_does_not_matter() -> None:
    assert read("ky=a&tp=n&vl=1&ky=b&vl=x").properties == {"a": 1, "b": "x"}


def test_all_names_before_all_values_are_matched_by_place() -> None:
    found = read("ky=a&ky=b&vl=1&vl=yes&tp=n&tp=b")
    assert found.properties == {"a": 1, "b": True}
    assert found.issues == []


def test_values_before_their_names_are_matched_by_place() -> None:
    assert read("vl=1&ky=a&vl=2&ky=b").properties == {"a": "1", "b": "2"}


def test_types_that_cannot_be_matched_by_place_are_text() -> None:
    assert read("ky=a&ky=b&vl=1&vl=2&tp=n").properties == {"a": "1", "b": "2"}


def test_a_key_without_a_value_is_left_over() -> None:
    found = read("ky=a&ky=b&vl=2&tp=n")
    assert found.properties == {"b": 2}
    assert codes(found) == ["unpaired"]
    assert found.issues[0].detail == "a"


def test_a_value_without_a_key_is_left_over() -> None:
    found = read("ky=a&vl=1&vl=2&ky=b&vl=3")
    assert found.properties == {"a": "1", "b": "3"}
    assert codes(found) == ["unpaired"]


def test_values_before_the_first_key_are_left_over_when_all_keys_have_one() -> None:
    found = read("vl=0&ky=a&vl=1")
    assert found.properties == {"a": "1"}
    assert [(issue.code, issue.detail) for issue in found.issues] == [("unpaired", "0")]


def test_an_unescaped_ampersand_leaves_the_start_of_the_value() -> None:
    assert read("ky=name&vl=Tom&Jerry&tp=s").properties == {"name": "Tom"}


def test_an_empty_name_is_skipped() -> None:
    found = read("ky=&vl=1&tp=n&ky=b&vl=2&tp=n")
    assert found.properties == {"b": 2}
    assert codes(found) == ["empty_name"]


def test_the_last_of_equal_names_counts_and_all_are_kept() -> None:
    found = read("ky=a&vl=1&tp=n&ky=a&vl=2&tp=s")
    assert found.properties == {"a": "2"}
    assert found.types == {"a": "s"}
    assert found.repeated == [["a", "1", "n"], ["a", "2", "s"]]


def test_an_unknown_type_is_text_and_noted() -> None:
    found = read("ky=a&vl=1&tp=int&ky=b&vl=2&tp=N&ky=c&vl=3&tp=")
    assert found.properties == {"a": "1", "b": 2, "c": "3"}
    assert codes(found) == ["unknown_type"]


def test_visitor_properties_are_named_by_p_or_ky() -> None:
    assert read("p=a&vl=1&ky=b&vl=2&tp=n", VISITOR).properties == {"a": "1", "b": 2}


def test_no_triples_are_no_properties() -> None:
    assert read("sku=A1&price=2") == Typed()


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("A1", "s", "A1"),
        (" 1 ", "s", " 1 "),
        ("42", "n", 42),
        ("-7", "n", -7),
        ("+7", "n", 7),
        (" 5", "n", 5),
        ("007", "n", 7),
        ("9007199254740993", "n", 9007199254740993),
        ("19.5", "n", 19.5),
        (".5", "n", 0.5),
        ("5.", "n", 5.0),
        ("1e3", "n", 1000.0),
        ("1e400", "n", None),
        ("NaN", "n", None),
        ("inf", "n", None),
        ("-Infinity", "n", None),
        ("0x10", "n", None),
        ("1_000", "n", None),
        ("1,000", "n", None),
        ("١٢", "n", None),
        ("", "n", None),
        ("1" * 5_000, "n", None),
        ("TRUE", "b", True),
        ("1", "b", True),
        ("Yes", "b", True),
        ("on", "b", True),
        ("False", "b", False),
        ("0", "b", False),
        ("no", "b", False),
        ("OFF", "b", False),
        ("2", "b", None),
        ("", "b", None),
    ],
)
def test_a_value_of_each_type(text: str, wanted: str, value: Any) -> None:
    found = typed(text, wanted)
    assert found == value
    assert type(found) is type(value)


def test_a_value_of_another_type_stays_text_with_an_issue() -> None:
    found = read("ky=price&vl=1,000&tp=n&ky=vip&vl=maybe&tp=b")
    assert found.properties == {"price": "1,000", "vip": "maybe"}
    assert found.types == {"price": "n", "vip": "b"}
    assert codes(found) == ["bad_type", "bad_type"]


_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["ky", "vl", "tp", "x"]),
        st.sampled_from(["", "a", "b", "n", "s", "1", "1e999", "٣", "9" * 4_301]),
    ),
    max_size=12,
)


@given(_FIELDS)
def test_whatever_comes_is_paired_or_noted_and_can_be_stored(sent: list[tuple[str, str]]) -> None:
    found = read_triples(sent, EVENT)
    keys = [text for name, text in sent if name == "ky"]
    told = len([issue for issue in found.issues if issue.field == "ky"])
    told += len(found.repeated) or len(found.properties)
    assert told == len(keys), "every key is a property or an issue"
    for value in found.properties.values():
        assert not isinstance(value, float) or math.isfinite(value)
    msgspec.json.encode(found)
