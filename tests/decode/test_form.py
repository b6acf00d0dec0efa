"""Query strings as ordered pairs, and as the values of single names."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from headwater.decode.form import as_characters, first, is_utf8, pairs, values

_QUERIES = st.text(alphabet=st.sampled_from("&=%uv1 +76é"), max_size=40)


@given(_QUERIES)
def test_pairs_are_those_of_urllib(text: str) -> None:
    assert pairs(text) == parse_qsl(text, keep_blank_values=True)


@given(_QUERIES)
def test_the_first_value_is_the_first_of_all_values(text: str) -> None:
    assert first(text, "u") == next(iter(values(text, "u")), None)


@given(_QUERIES)
def test_plainly_written_names_are_found_as_pairs_finds_them(text: str) -> None:
    text = text.replace("%", "")
    written = [field.partition("=") for field in text.split("&")]
    assert len(values(text, "u")) == len([one for one in written if one[:2] == ("u", "=")])
    assert set(values(text, "u")) <= {value for name, value in pairs(text) if name == "u"}


def test_a_name_without_an_equals_sign_has_no_value() -> None:
    assert first("u&v=1", "u") is None
    assert values("u&u=", "u") == [""]


def test_a_name_is_never_found_inside_another() -> None:
    assert first("menu=1&uu=2&xu=3", "u") is None
    assert values("menu=1&u=2&uu=3&u=4", "u") == ["2", "4"]


def test_a_name_written_with_escapes_counts_where_none_is_plain() -> None:
    assert first("%75=1", "u") == "1"
    assert values("x=%20&%75=1&%75=2", "u") == ["1", "2"]
    assert values("%75=1&u=2", "u") == ["2"]


def test_a_field_without_an_equals_sign_has_an_empty_value() -> None:
    assert pairs("a&b=&&c=1") == [("a", ""), ("b", ""), ("c", "1")]


def test_pairs_stop_at_their_bound() -> None:
    assert len(pairs("a=1&" * 5_000)) == 4_096


def test_raw_bytes_are_read_as_utf_8() -> None:
    assert as_characters("caf\xc3\xa9") == "café"
    assert as_characters("caf\xe9") == "caf\ufffd"


def test_what_was_no_utf_8_is_told_from_a_replacement_character_that_was_sent() -> None:
    assert is_utf8("a=%C3%A9&b=%EF%BF%BD")
    assert not is_utf8("a=%FF")
    assert not is_utf8(as_characters("a=\xff"))
