"""Where one worker connects: a Unix socket in the private directory, short and the same through restarts.

On Windows this would be a named pipe; nothing else of the gateway knows what it is (docs/reattach.md).
"""

from __future__ import annotations

import asyncio
import logging
import weakref

from mxgw_core.api.workers import WorkerRefusal, WorkerSpawn
from mxgw_core.plugins import PluginHost
from mxgw_core.workers.expected import ExpectedWorker
from mxgw_core.workers.link import LinkOwner, WorkerLink

log = logging.getLogger(__name__)

_REMEMBERED_REFUSALS = 10


class Endpoint:
    """Takes connections for `owner`. Lives in the event loop; `close` may be called at any time."""

    def __init__(
        self, spawn: WorkerSpawn, owner: LinkOwner, expected: ExpectedWorker, plugins: PluginHost, *, frame_bytes: int
    ) -> None:
        self._spawn = spawn
        self._owner = owner
        self._expected = expected
        self._plugins = plugins
        self._frame_bytes = frame_bytes
        self._server: asyncio.AbstractServer | None = None
        # Also the refused ones, for as long as they take to close.
        self._links: weakref.WeakSet[WorkerLink] = weakref.WeakSet()
        # The reasons of the first few refusals.
        self._refusals: list[str] = []

    async def listen(self) -> None:
        """Begin to take connections; only this user's processes may.

        Raises:
            OSError: the socket cannot be made.
        """
        path = self._spawn.endpoint
        path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, str(path), backlog=8)
        path.chmod(0o600)

    def _accept(self) -> WorkerLink:
        link = WorkerLink(
            self._owner,
            self._expected.handshake,
            expected_pid=lambda: self._expected.identity.pid or None,
            frame_bytes=self._frame_bytes,
        )
        self._links.add(link)
        return link

    def refused(self, link: WorkerLink, reason: str, detail: str) -> None:
        """A connection was turned away: every single one is told to the log and the plugins."""
        session_id, peer = self._spawn.session_id, link.peer
        pid, uid = (peer.pid, peer.uid) if peer is not None else (None, None)
        log.warning(
            "session %s: refused a worker connection of process %s, user %s: %s: %s",
            session_id,
            "unknown" if pid is None else pid,
            "unknown" if uid is None else uid,
            reason,
            detail,
        )
        self._plugins.ask("mxgw_worker_refused", refusal=WorkerRefusal(session_id, reason, detail, pid, uid))
        if len(self._refusals) < _REMEMBERED_REFUSALS:
            self._refusals.append(reason)

    def told_refusals(self) -> str:
        """Return the first few refusals as the end of a sentence; "" when there were none."""
        return f"; refused connections: {', '.join(self._refusals)}" if self._refusals else ""

    def close(self) -> None:
        """Cut every connection, and leave no socket behind."""
        for link in tuple(self._links):
            link.abort()
        if self._server is not None:
            self._server.close()
        self._spawn.endpoint.unlink(missing_ok=True)
