"""JSON bodies: what is refused must not depend on who asks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.decode.json_body import BadJson, nested_too_deeply, parse_json
from headwater.limits import json_nesting_max


def levels(value: Any) -> int:
    """How deep arrays and objects are nested in a value."""
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(levels, inside), default=0) if isinstance(value, dict | list) else 0


def nested(count: int, inside: bytes = b"") -> bytes:
    return b"[" * count + inside + b"]" * count


TEXT = st.text(st.sampled_from('[]{}"\\a')) | st.text()
VALUES = st.recursive(
    TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.integers(json_nesting_max - 6, json_nesting_max))
def test_the_nesting_of_valid_json_is_measured_exactly(value: Any, around: int) -> None:
    text = nested(around, msgspec.json.encode(value))
    assert nested_too_deeply(text) == (around + levels(value) > json_nesting_max)


def test_brackets_in_strings_are_no_nesting() -> None:
    many = "[" * 2 * json_nesting_max
    value = [many, '\\"' + many, {many: "]"}]
    assert parse_json(msgspec.json.encode(value)) == value


def test_the_deepest_document_parses_from_a_deep_stack_as_well() -> None:
    def deeper(frames: int) -> Any:
        return deeper(frames - 1) if frames else parse_json(nested(json_nesting_max))

    assert deeper(300) == parse_json(nested(json_nesting_max))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf",
        b"nul",
        b"NaN",
        b"1e400",
        b'"\\ud800"',
        b'"\xff"',
        b'{"\xff":1}',
        b"1" * 5_000,
        b"1 2",
        nested(json_nesting_max + 1),
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_or_could_not_be_stored_is_refused(body: bytes) -> None:
    with pytest.raises(BadJson) as refused:
        parse_json(body)
    assert str(refused.value)


def test_a_byte_order_mark_is_tolerated() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
