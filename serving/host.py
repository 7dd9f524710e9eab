"""Which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress


def is_local(host: str) -> bool:
    """Whether a server on `host`, an address or a name, can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
