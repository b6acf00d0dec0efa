"""Who sent a request: the socket's other end, or what a trusted proxy says about it.

X-Forwarded-For is a list that every proxy appends to, so only its right end can be believed: it is
read from right to left, past addresses that are trusted proxies themselves, up to the first that
is not. Whatever a client forged stands to the left of that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


class Proxies:
    """The trusted networks, as CIDRs. Raises ValueError for text that is none."""

    def __init__(self, cidrs: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]

    def trusts(self, peer: str) -> bool:
        """Whether the address is a trusted proxy's."""
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The client's address, given the socket's peer and the joined X-Forwarded-For lines."""
        if not self.trusts(peer):
            return peer
        client = peer
        for entry in reversed(forwarded_for.split(",")):
            address = _address(_without_port(entry.strip()))
            if address is None:
                break
            client = str(address)
            if not self.trusts(client):
                break
        return client


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(entry: str) -> str:
    """``1.2.3.4:5``, ``[::1]:5`` and ``[::1]`` without port and brackets (Azure and some load
    balancers write them so)."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    if entry.count(":") == 1:
        return entry.partition(":")[0]
    return entry
