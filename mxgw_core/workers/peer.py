"""Who is at the other end of a Unix socket, as the kernel says."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import dataclass

# struct ucred: pid, uid, gid (unix(7)).
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Process and user of a peer; None where the platform does not tell."""

    pid: int | None
    uid: int | None

    def is_same_user(self) -> bool:
        """Whether the peer runs as this user; true where the platform does not tell (the proof decides there)."""
        return self.uid is None or self.uid == os.getuid()


def peer_credentials(transport: asyncio.BaseTransport) -> PeerCredentials:
    """Return the credentials of a Unix socket's peer."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return PeerCredentials(None, None)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return PeerCredentials(pid, uid)
