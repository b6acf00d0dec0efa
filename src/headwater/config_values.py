"""What one value of the configuration may be: each function gives the value in its normal form, or
raises Wrong with what was expected and what to do."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from headwater.config import DIALECTS, IP_POLICIES, PRIVACY_SIGNALS, split_address
from headwater.errors import ConfigError

_TOKEN = re.compile(r"sha256:[0-9a-fA-F]{64}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_APP = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SEGMENT = re.compile(r"[^/\s?#%]{1,128}")
_EVENT_TYPE = re.compile(r"[^\s:*]+:([^\s:*]+|\*)")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")
_SCRIPT = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._-]+)+")
_HEALTH = ("/healthz", "/readyz")
_ALGORITHMS = ("RS256", "ES256", "HS256")
_LATER = {  # the other engine of each interface, which this version does not have yet
    "journal": ("sqlite:", "kafka:"),
    "registry": ("sqlite:", "postgresql:"),
    "store": ("chdb:", "clickhouse:"),
}


class Wrong(Exception):
    """A value that is not what was expected; caught where the value was taken."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def address(value: str) -> str:
    """``HOST:PORT``"""
    try:
        split_address(value)
    except ValueError as error:
        raise Wrong(
            f'expected "HOST:PORT", got "{value}"',
            "127.0.0.1:8080 is this machine only, 0.0.0.0:8080 every network, port 0 a free one",
        ) from error
    return value


def host(value: str) -> str:
    """A bare host or host:port; empty for none."""
    if value and not _HOST.fullmatch(value):
        raise Wrong(
            f'expected a bare host or host:port, got "{value}"',
            'write it without scheme and path, as "collect.example.com"',
        )
    return value


def script(value: str) -> str:
    """The path of the browser's script on the collector's port; "" for none."""
    remedy = 'write a path of its own, as "/headwater.js"; "" switches it off'
    if value and not _SCRIPT.fullmatch(value):
        raise Wrong(
            f'expected an absolute path of letters, digits, ".", "_", "-" and "/", got "{value}"',
            remedy,
        )
    if value:
        # Here, so that who only reads a value needs no dialect.
        from headwater.accept.routes import Router  # noqa: PLC0415
        from headwater.decode.dialects import DIALECTS  # noqa: PLC0415

        taken = Router(DIALECTS).match(value)
        owner = taken.dialect.NAME if taken else "health" if value in _HEALTH else ""
        if owner:
            raise Wrong(f'"{value}" is a route of {owner}', remedy)
    return value


def network(value: str) -> str:
    """A CIDR, in its normal form."""
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise Wrong(
            f'expected a network, got "{value}"', 'write it as "10.0.0.0/8" or "::1/128"'
        ) from error


def engine(stage: str) -> Callable[[str], str]:
    """The URL of a stage's engine."""
    here, later = _LATER[stage]

    def parse(value: str) -> str:
        if value == here:
            return value
        if value.startswith(later):
            raise Wrong(
                f'"{later}" is not supported by this version',
                f'use "{here}", which keeps it in the data folder',
            )
        raise Wrong(f'expected "{here}", got "{value}"', f'"{here}" is the only engine here')

    return parse


def one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        if value not in allowed:
            words = ", ".join(f'"{word}"' for word in allowed)
            raise Wrong(f'expected one of {words}, got "{value}"', f'"{allowed[0]}" is one of them')
        return value

    return parse


def token(value: str) -> str:
    """A token's hash, in lower case."""
    if not _TOKEN.fullmatch(value):
        raise Wrong('expected "sha256:" and 64 hex digits', 'run "headwater token"')
    return value.lower()


def uuid(value: str) -> str:
    """A company's UUID, in lower case."""
    if not _UUID.fullmatch(value):
        raise Wrong(
            f'expected a UUID, got "{value}"',
            'write the company\'s id as "dcaf55cc-b36d-4d0e-9003-f93187c04886"',
        )
    return str(UUID(value))


def tracker(value: str) -> str:
    """``aid/tid``, UUIDs in lower case."""
    parts = value.split("/")
    if len(parts) != 2 or not all(_NUMBER.fullmatch(p) or _UUID.fullmatch(p) for p in parts):
        raise Wrong(
            f'expected "aid/tid", each a number or a UUID, got "{value}"',
            'take the two segments of /collect/{aid}/{tid}/event, as in "1/1"',
        )
    return "/".join(p.lower() for p in parts)


def app(value: str) -> str:
    """A Nucleus appId."""
    if not _APP.fullmatch(value):
        raise Wrong(
            f'expected 1 to 128 letters, digits, "_" or "-", got "{value}"',
            "take the appId that the client was given",
        )
    return value


def segment(value: str) -> str:
    """A Vibetrace account id."""
    if not _SEGMENT.fullmatch(value):
        raise Wrong(
            f'expected one path segment, got "{value}"',
            'take {account_id} of /event/{account_id}/…, as in "ACCT123"',
        )
    return value


def event_type(value: str) -> str:
    """An entry of a VAIX allow-list."""
    if not _EVENT_TYPE.fullmatch(value):
        raise Wrong(
            f'expected "verb:object" or "verb:*", got "{value}"',
            'write it as "clicks:event" or "impressions:*"',
        )
    return value


def filled(value: str) -> str:
    """Any text that is not blank."""
    if not value.strip():
        raise Wrong("expected a text that is not empty", "fill it in or remove the key")
    return value


def dialect(value: str) -> str:
    """A dialect's name."""
    if value not in DIALECTS:
        near = difflib.get_close_matches(value, DIALECTS, 1, 0.5)
        raise Wrong(
            f'"{value}" is no dialect',
            f'did you mean "{near[0]}"?' if near else f"known: {', '.join(DIALECTS)}",
        )
    return value


def ip_policy(value: str) -> str:
    """What becomes of a client's address."""
    if value not in IP_POLICIES:
        raise Wrong(
            f'expected "keep", "truncate" or "drop", got "{value}"',
            '"truncate" keeps the IPv4 /24 or IPv6 /48, "drop" nothing',
        )
    return value


def privacy_signal(value: str) -> str:
    """The name of a signal that an account honours."""
    if value not in PRIVACY_SIGNALS:
        raise Wrong(
            f'"{value}" is no privacy signal', '"dnt" is Do-Not-Track, "gpc" Global Privacy Control'
        )
    return value


def country_file(folder: Path) -> Callable[[str], str]:
    """A MaxMind database that knows countries; its path is relative to `folder`. "" for none."""

    def parse(value: str) -> str:
        if not value:
            return value
        # Here, so that commands without a database do not wait for its reader.
        from headwater.resolve.country import check  # noqa: PLC0415

        path = folder / Path(value).expanduser()
        try:
            check(path)
        except ConfigError as error:
            raise Wrong(error.message, error.remedy) from error
        return str(path)

    return parse


def plan(folder: Path) -> Callable[[str], tuple[str, str]]:
    """A tracking plan: its path, relative to `folder`, and its text. "" for none."""

    def parse(value: str) -> tuple[str, str]:
        if not value:
            return "", ""
        # Here, so that nobody without a plan waits for the validator.
        from headwater.resolve.tracking_plan import read  # noqa: PLC0415

        path = folder / Path(value).expanduser()
        try:
            return str(path), read(path)
        except ConfigError as error:
            raise Wrong(error.message, error.remedy) from error

    return parse


def algorithm(value: str) -> str:
    """A JWT signature algorithm."""
    if value not in _ALGORITHMS:
        raise Wrong(f'"{value}" is not supported', f"use one of {', '.join(_ALGORITHMS)}")
    return value


def keys(folder: Path) -> Callable[[str], str]:
    """Where the keys of JWTs are; a file's path is relative to `folder`."""

    def parse(value: str) -> str:
        if value.startswith("secret:"):
            name = value.removeprefix("secret:")
            if not os.environ.get(name):
                raise Wrong(
                    f'the environment variable "{name}" is not set',
                    "set it to the shared secret before the start",
                )
            return value
        if value.startswith(("https://", "http://")):
            return value
        path = folder / value
        if not value or not path.is_file():
            raise Wrong(
                f'there is no file "{path}"',
                'give a JWKS file, an https:// URL of one, or "secret:" and a variable\'s name',
            )
        return str(path)

    return parse
