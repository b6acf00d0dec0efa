"""Ids for Gamooga's visitors, where the collector gives them one."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.digits + string.ascii_lowercase
_CHARACTERS = 16  # 82 bits: no two are alike by chance


def fresh_visitor_id() -> str:
    """16 characters, digits and small letters."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))
