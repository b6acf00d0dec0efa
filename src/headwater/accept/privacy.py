"""What an account does not want to know: whole addresses, and requests that ask not to be tracked.

Both are settled here, in the collector, before a request is journaled: what is not to be kept is
never on a disk. The rate limiter sees the true address all the same, in memory only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from headwater.config import Account

_IPV4_BITS = 24  # 256 addresses: the usual measure, and country files are hardly finer
_IPV6_BITS = 48  # a /64 is one household, a /56 often one too (RFC 6177)


def _says_dnt(headers: Mapping[str, str]) -> bool:
    """``DNT: 1``, whatever extensions follow."""
    return headers.get("dnt", "").lstrip().startswith("1")


def _says_gpc(headers: Mapping[str, str]) -> bool:
    """``Sec-GPC: 1``; there is no other value."""
    return headers.get("sec-gpc", "").strip() == "1"


#: The signals that an account may honour, by their names in the configuration.
_SIGNALS: Mapping[str, Callable[[Mapping[str, str]], bool]] = {"dnt": _says_dnt, "gpc": _says_gpc}


class Privacy(msgspec.Struct, frozen=True):
    """An account's settings: `ip` and `privacy_signals` of the configuration."""

    ip: str = "keep"
    signals: tuple[str, ...] = ()

    def opted_out(self, headers: Mapping[str, str]) -> bool:
        """Whether a request carries a signal that the account honours."""
        return any(_SIGNALS[name](headers) for name in self.signals)

    def address(self, peer: str) -> str:
        """What is kept of a client's address."""
        if self.ip == "keep":
            return peer
        return truncated(peer) if self.ip == "truncate" else ""


def privacy_of(account: Account) -> Privacy | None:
    """None where everything is kept, so that the hot path asks a single question."""
    if account.ip == "keep" and not account.privacy_signals:
        return None
    return Privacy(account.ip, account.privacy_signals)


@lru_cache(maxsize=4_096)
def truncated(peer: str) -> str:
    """The network of an address, IPv4 /24 or IPv6 /48; "" for what is no address."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = _IPV4_BITS if address.version == 4 else _IPV6_BITS
    return str(ipaddress.ip_network((int(address), bits), strict=False).network_address)
