"""Where the gateway listens, read once and checked, so that a typing error is reported as one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway's address. `is_local` is true for loopback addresses and Unix sockets: nothing leaves the machine."""

    text: str
    is_local: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the target of `host:port`, `[ipv6]:port` or `unix:/path`.

        Raises:
            ValueError: the text is none of these; the message says what is missing.
        """
        if text.startswith("unix:"):
            if not text.removeprefix("unix:").startswith("/"):
                raise ValueError(f"the socket path of {text!r} must be absolute, for example unix:/run/mxgw.sock")
            return cls(text, is_local=True)
        if "://" in text:
            raise ValueError(f"{text!r} is a URL; give host:port or unix:/path (TLS is switched on with tls=)")
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} needs a host and a port, for example 127.0.0.1:50051, or unix:/path")
        bare = host.removeprefix("[").removesuffix("]")
        if ":" in host and bare == host:
            raise ValueError(f"write the IPv6 address of {text!r} in brackets, for example [::1]:50051")
        return cls(text, is_local=_is_loopback(bare))


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
