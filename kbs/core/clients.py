"""Whom a network address stands for, where something is shared out among clients."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# RFC 4291, section 2.5.4: one subscriber has a network of this length to itself.
_NETWORK_BITS = 64


@lru_cache(4096)
def client_of(address: str) -> str:
    """Return whom an address stands for: itself, or its /64 network in IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _NETWORK_BITS), strict=False))
