"""Whose request is it: tokens and tenant ids to accounts, as the configuration has it.

An `Accounts` object never changes; a reload makes a new one and swaps it in.

Opaque tokens are in the configuration as SHA-256 digests only. A presented token is hashed and its
digest looked up: how long that takes depends on the digest, and someone who cannot invert SHA-256
cannot steer a digest towards a stored one byte by byte, so there is no timing to learn from. (A
plain comparison of tokens would need `hmac.compare_digest`; this needs no comparison of secrets.)
Tokens are 128 random bits and more, so a salted, slow hash would only slow down each request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from headwater.accept.privacy import Privacy, privacy_of
from headwater.accept.request import Rules
from headwater.clock import Clock
from headwater.config import Account, IamSettings

if TYPE_CHECKING:
    from headwater.accept.iam import Verifier

_PERMISSIVE = Rules()


class Admission(msgspec.Struct, frozen=True):
    """The account that a request belongs to, the rules it is judged by, and what the account does
    not want to keep (None: it keeps everything)."""

    account: str
    rules: Rules
    privacy: Privacy | None = None


#: authorize's answer when x-vaix-authentication-method is neither `vaix` nor `iam`.
BadMethod = Literal["bad method"]


class Accounts:
    """The accounts of one configuration.

    `verifier` makes the judge of an account's JWTs. `public_host` is what Gamooga's clients are
    told ("" = the host they asked).
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        *,
        public_host: str,
        clock: Clock,
        verifier: Callable[[IamSettings], Verifier] | None = None,
    ) -> None:
        self._tenants: dict[str, dict[str, Admission]] = {}
        self._tokens: dict[bytes, Admission] = {}
        self._iam: list[tuple[Verifier, Admission]] = []
        self._rules: dict[tuple[str, str], Rules] = {}
        for name, account in accounts.items():
            keys: dict[str, tuple[str, ...]] = {}
            rules = Rules(public_host=public_host)
            privacy = privacy_of(account)
            if account.vaix is not None:
                vaix = account.vaix
                self._rules[name, "vaix"] = Rules(
                    event_types=None if vaix.event_types is None else frozenset(vaix.event_types),
                    groups=None if vaix.groups is None else frozenset(vaix.groups),
                )
                admission = Admission(name, self._rules[name, "vaix"], privacy)
                for token in vaix.tokens:
                    digest = bytes.fromhex(token.removeprefix("sha256:"))
                    self._tokens[digest] = admission
                if vaix.iam is not None:
                    made = verifier(vaix.iam) if verifier else _verifier(vaix.iam, clock)
                    self._iam.append((made, admission))
            if account.orbee is not None:
                keys["orbee"] = account.orbee.trackers
                self._rules[name, "orbee"] = Rules(lenient=account.orbee.lenient)
            if account.nucleus is not None:
                keys["nucleus"] = account.nucleus.apps
            if account.vibetrace is not None:
                keys["vibetrace"] = account.vibetrace.accounts
            if account.gamooga is not None:
                keys["gamooga"] = account.gamooga.companies
            for dialect, names in keys.items():
                judged_by = self._rules.setdefault((name, dialect), rules)
                admission = Admission(name, judged_by, privacy)
                self._tenants.setdefault(dialect, {}).update(dict.fromkeys(names, admission))

    @property
    def ready(self) -> bool:
        """False only while the first fetch of some account's JWT keys is under way."""
        return all(verifier.ready for verifier, _ in self._iam)

    def start(self) -> None:
        """Begin to fetch what has to be fetched (JWT keys behind a URL), in the background."""
        for verifier, _ in self._iam:
            verifier.start()

    def find(self, dialect: str, key: str) -> Admission | None:
        """The account that a tenant key of a dialect names (``1/1``, an appId, a company)."""
        return self._tenants.get(dialect, {}).get(key)

    def rules(self, account: str, dialect: str) -> Rules:
        """The rules in force for an account's dialect; permissive when it is gone."""
        return self._rules.get((account, dialect), _PERMISSIVE)

    def authorize(self, authorization: str, method: str) -> Admission | BadMethod | None:
        """The account behind an Authorization header; None when there is none or it is not valid.

        `method` is x-vaix-authentication-method: ``vaix`` (or empty) for opaque tokens, ``iam`` for
        JWTs, anything else is "bad method".
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if not token or scheme.lower() != "bearer":
            return None
        if method in ("", "vaix"):
            return self._tokens.get(hashlib.sha256(token.encode("latin-1", "replace")).digest())
        if method == "iam":
            for verifier, admission in self._iam:
                if verifier.accepts(token):
                    return admission
            return None
        return "bad method"


def _verifier(settings: IamSettings, clock: Clock) -> Verifier:
    # Every process judges accounts, few have JWTs: the libraries for them take 0.1 s to import.
    from headwater.accept.iam import Verifier  # noqa: PLC0415

    return Verifier(settings, clock=clock)
