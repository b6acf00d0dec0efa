"""VAIX's `iam` method: a JWT as bearer token, from the customer's own identity provider.

What is checked (RFC 8725): the algorithm is on the configured list (`none` never is), the
signature verifies under a configured key, `exp` is there and not past, `nbf` not ahead (60 s of
leeway), `aud` contains the configured audience, `iss` is the configured issuer, and `client_id`,
`azp` or `sub` is one of the configured clients (none configured: any).

Keys from a file are read when the object is made. Keys from a URL are fetched by a thread, never by
the event loop: at `start`, and when a token names a key that is not known, at most once a minute.
While there are none, tokens are refused and the log says why. A token that verified is remembered
by its digest until it expires, so the hot path does not verify signatures.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, OctKey

from headwater import limits
from headwater.clock import Clock

log = logging.getLogger("headwater.accept.iam")

_LEEWAY_SECONDS = 60
_FETCH_SECONDS_MAX = 5.0
_FETCH_GAP_MICROSECONDS = 60_000_000
_KEYS_BYTES_MAX = 1_048_576
#: What reading a JWKS document can raise (msgspec's errors are ValueErrors).
_KEY_ERRORS = (OSError, ValueError, KeyError, TypeError, JoseError)
_TOKEN_CHARS_MAX = 16_384
#: For how long a token counts as verified when its own expiry is further away: a key that the
#: provider withdraws is noticed within this time.
_TRUST_MICROSECONDS_MAX = 15 * 60 * 1_000_000


class Settings(Protocol):
    """What the configuration says (``headwater.config.IamSettings``)."""

    @property
    def keys(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def algorithms(self) -> tuple[str, ...]: ...
    @property
    def clients(self) -> tuple[str, ...]: ...


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS_MAX) as answer:  # noqa: S310 - the operator's own http(s) URL
        content: bytes = answer.read(_KEYS_BYTES_MAX + 1)
    if len(content) > _KEYS_BYTES_MAX:
        raise ValueError(f"more than {_KEYS_BYTES_MAX} bytes")
    return content


class Verifier:
    """Judges the tokens of one account. `fetch` reads a URL, blocking."""

    def __init__(
        self, settings: Settings, *, clock: Clock, fetch: Callable[[str], bytes] = _fetch
    ) -> None:
        self._settings = settings
        self._algorithms = [name for name in settings.algorithms if name.lower() != "none"]
        self._clients = frozenset(settings.clients)
        self._clock = clock
        self._fetch = fetch
        self._keys: KeySet | OctKey | None = None
        self._fetched_at = 0
        self._fetching: threading.Thread | None = None
        self._verified: dict[bytes, int] = {}  # digest of the token -> good until (microseconds)
        self._url = ""
        source = settings.keys
        if source.startswith(("http://", "https://")):
            self._url = source
        else:
            try:
                self._keys = _read(source)
            except _KEY_ERRORS as error:
                log.error("iam: the keys in %s cannot be read: %s", source, error)

    @property
    def ready(self) -> bool:
        """False only while the first fetch of keys is under way."""
        return self._keys is not None or self._fetching is None or not self._fetching.is_alive()

    def start(self) -> None:
        """Begin to fetch the keys, when they come from a URL."""
        if self._url and self._keys is None:
            self._refresh()

    def accepts(self, token: str) -> bool:
        """Whether a token opens this account, now."""
        if len(token) > _TOKEN_CHARS_MAX:
            return False
        now = self._clock()
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        until = self._verified.get(digest)
        if until is not None:
            if now < until:
                return True
            del self._verified[digest]
        until = self._verify(token, now)
        if until <= now:
            return False
        if len(self._verified) >= limits.token_cache_max:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = until
        return True

    def _verify(self, token: str, now: int) -> int:
        """Until when the token is good, in microseconds; 0 when it is not."""
        keys = self._keys
        if keys is None:
            self._refresh()
            return 0
        try:
            claims = jwt.decode(token, keys, algorithms=self._algorithms).claims
        except InvalidKeyIdError:
            self._refresh()
            return 0
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            return 0
        return self._judge(claims, now)

    def _judge(self, claims: dict[str, Any], now: int) -> int:
        leeway = _LEEWAY_SECONDS * 1_000_000
        expires = _microseconds(claims.get("exp"))
        if expires is None or now >= expires + leeway:
            return 0
        if "nbf" in claims:
            starts = _microseconds(claims["nbf"])
            if starts is None or now < starts - leeway:
                return 0
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._settings.audience not in audiences or claims.get("iss") != self._settings.issuer:
            return 0
        if self._clients and not any(
            isinstance(claims.get(name), str) and claims[name] in self._clients
            for name in ("client_id", "azp", "sub")
        ):
            return 0
        return min(expires + leeway, now + _TRUST_MICROSECONDS_MAX)

    def _refresh(self) -> None:
        now = self._clock()
        busy = self._fetching is not None and self._fetching.is_alive()
        recent = self._fetched_at and abs(now - self._fetched_at) < _FETCH_GAP_MICROSECONDS
        if not self._url or busy or recent:
            return
        self._fetched_at = now
        self._fetching = threading.Thread(target=self._load, name="iam-keys", daemon=True)
        self._fetching.start()

    def _load(self) -> None:
        try:
            self._keys = _key_set(self._fetch(self._url))
        except _KEY_ERRORS as error:
            log.warning("iam: no keys from %s: %s", self._url, error)


def _read(source: str) -> KeySet | OctKey:
    """The keys of a file, or the secret of an environment variable (``secret:NAME``)."""
    if not source.startswith("secret:"):
        return _key_set(Path(source).read_bytes())
    secret = os.environ.get(source.removeprefix("secret:"), "")
    if not secret:
        raise ValueError("the environment variable is empty or not set")
    return OctKey.import_key(secret)


def _key_set(content: bytes) -> KeySet:
    """The keys of a JWKS document. Keys without a `kid` get their thumbprint as one."""
    document: Any = msgspec.json.decode(content)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('expected a JSON object with a list "keys"')
    return KeySet.import_key_set({"keys": document["keys"]})


def _microseconds(value: Any) -> int | None:
    """A NumericDate (RFC 7519) in microseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        return None
    return int(value * 1_000_000)
