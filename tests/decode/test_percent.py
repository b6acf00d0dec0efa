"""Percent-decoding in C says what urllib says, whatever the text."""

from __future__ import annotations

from urllib.parse import quote_plus, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.decode.percent import percent_decode


@given(st.text(alphabet=st.sampled_from("%=+&2acCfF9 \r\n\t.é\u2028zZ"), max_size=40))
def test_it_equals_urllib_for_malformed_escapes_too(text: str) -> None:
    assert percent_decode(text) == unquote_plus(text)


@given(st.text(st.characters(codec="utf-8")))
def test_what_was_encoded_is_read_back(text: str) -> None:
    assert percent_decode(quote_plus(text)) == text


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("", ""),
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("%3D%3D=", "==="),
        ("100%", "100%"),
        ("%%41", "%A"),
        ("%2541", "%41"),
        ("%zz%41", "%zzA"),
        ("%\n41", "%\n41"),
        ("%C3%A9%c3%a9", "éé"),
        ("%FF", "\ufffd"),
        ("é%C3%A9", "éé"),
    ],
)
def test_escapes_one_by_one(text: str, decoded: str) -> None:
    assert percent_decode(text) == decoded
