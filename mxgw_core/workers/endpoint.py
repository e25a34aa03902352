"""The endpoint to which one worker connects, and the checks that a connection must pass to count as this worker's.

The endpoint is a Unix socket in the data directory, on Windows a named pipe. Its name is short, and stays the same when
the gateway restarts.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mxgw.worker.v1.worker_pb2 import Hello
from mxgw_core.api.workers import Orphan, WorkerIdentity, WorkerProof, WorkerRefusal, WorkerSpawn
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost
from mxgw_core.workers.connection import ConnectionOwner, Refused, WorkerConnection
from mxgw_core.workers.steps import cause_in_words
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, GatewayHandshake
from mxgw_worker.platform import Listener, pid_scope

log = logging.getLogger(__name__)


class ExpectedWorker:
    """The worker that should connect: what is known of it, and the secret that it must prove.

    `orphan` is None for a worker that this gateway starts.

    Attributes:
        identity: what is known of the worker process so far.
        phase: "hello" for a new worker, "adopt" for an orphan. The names of the steps at which a test can kill the
            gateway begin with this word (see `mxgw_core.failpoints`).
    """

    def __init__(self, spawn: WorkerSpawn, orphan: Orphan | None, plugins: PluginHost) -> None:
        self._spawn = spawn
        self._orphan = orphan
        self._plugins = plugins
        self.phase = "hello" if orphan is None else "adopt"
        self.identity = (
            orphan.worker if orphan is not None else WorkerIdentity(spawn.session_id, 0, 0, b"", 0, pid_scope())
        )

    def started(self, pid: int, ticks: int) -> None:
        """Store the process that was started. From now on connections of other processes are refused."""
        self.identity = replace(self.identity, pid=pid, start_ticks=ticks)

    def handshake(self) -> GatewayHandshake:
        """Return an object that checks whether the peer of a new connection knows the secret."""
        return GatewayHandshake(
            session_id=self._spawn.session_id,
            secret=self._spawn.secret,
            former_secret=self._orphan.former_secret if self._orphan is not None else None,
        )

    def proved(self, handshake: GatewayHandshake) -> None:
        """Accept a peer that has proved that it knows the secret: store its identity, and make plugins store the next
        secret.

        Raises:
            Refused: the peer has another epoch or start time than the orphan; or a plugin could not store the secret of
                a new worker.
        """
        hello = handshake.hello
        if self._orphan is not None:
            self._compare(hello)
        self.identity = replace(
            self.identity,
            pid=hello.pid,
            start_ticks=hello.start_ticks or self.identity.start_ticks,
            epoch=hello.epoch,
            protocol_version=PROTOCOL_VERSION,
        )
        reach(f"{self.phase}:before-manifest")
        proof = WorkerProof(self.identity, handshake.next_secret, handshake.proved_secret)
        for answer in self._plugins.ask("mxgw_worker_proved", proof=proof):
            if answer.error is None:
                continue
            if self._orphan is None:
                raise Refused(
                    "NOT_RECORDED",
                    f"plugin {answer.plugin!r} could not record the worker{cause_in_words(answer.error)}",
                )
            log.error(
                "session %s: plugin %s could not record the adopted worker%s: it serves, but unless that is made good "
                "it will not be adopted again",
                self._spawn.session_id,
                answer.plugin,
                cause_in_words(answer.error),
            )
        reach(f"{self.phase}:after-manifest")

    def _compare(self, hello: Hello) -> None:
        known = self.identity
        if hello.epoch != known.epoch:
            raise Refused("WRONG_EPOCH", "the worker counts in another epoch than the session's")
        if hello.start_ticks != known.start_ticks:
            raise Refused("WRONG_PROCESS", "the worker says that it started at another time than the session's")


_REMEMBERED_REFUSALS = 10


class Endpoint:
    """Accepts connections. Passes each connection, and the messages that arrive on it, to `owner`, the `SessionWorker`.

    Use it in the event loop only. `close` can be called at any time. `remove` removes the file of the endpoint, now or
    later, and raises no error.
    """

    def __init__(
        self,
        spawn: WorkerSpawn,
        owner: ConnectionOwner,
        expected: ExpectedWorker,
        plugins: PluginHost,
        frame_bytes: int,
        remove: Callable[[Path], None],
    ) -> None:
        self._spawn = spawn
        self._owner = owner
        self._expected = expected
        self._plugins = plugins
        self._frame_bytes = frame_bytes
        self._listener = Listener(spawn.endpoint, remove)
        # All connections that are not closed yet, also connections that were refused.
        self._connections: weakref.WeakSet[WorkerConnection] = weakref.WeakSet()
        # The reasons of the first refusals, at most `_REMEMBERED_REFUSALS`.
        self._refusals: list[str] = []

    async def listen(self) -> None:
        """Begin to accept connections. Only processes of the gateway's user can connect.

        Raises:
            OSError: the endpoint cannot be created.
        """
        await self._listener.listen(self._accept)

    def _accept(self) -> WorkerConnection:
        connection = WorkerConnection(
            self._owner,
            self._expected.handshake,
            expected_pid=lambda: self._expected.identity.pid or None,
            frame_bytes=self._frame_bytes,
        )
        self._connections.add(connection)
        return connection

    def refused(self, connection: WorkerConnection, reason: str, detail: str) -> None:
        """Log that a connection was refused, and report this to the plugins."""
        session_id, peer = self._spawn.session_id, connection.peer
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

    def refusals_in_words(self) -> str:
        """Return why the first connections were refused, as the end of a sentence; "" if none was."""
        return f"; refused connections: {', '.join(self._refusals)}" if self._refusals else ""

    def close(self) -> None:
        """Close every connection at once, and remove the endpoint."""
        for connection in tuple(self._connections):
            connection.abort()
        self._listener.close()
