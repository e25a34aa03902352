"""What a connection must prove to be taken for the worker of one session, and what is kept of the proof."""

from __future__ import annotations

import logging
from dataclasses import replace

from mxgw.worker.v1.worker_pb2 import Hello
from mxgw_core.api.workers import Orphan, WorkerIdentity, WorkerProof, WorkerSpawn
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost
from mxgw_core.workers.link import Refused
from mxgw_core.workers.steps import told_cause
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, GatewayHandshake
from mxgw_worker.ipc.process import pid_scope

log = logging.getLogger(__name__)


class ExpectedWorker:
    """The worker of one session, started by this gateway or (`orphan`) by an earlier one.

    Attributes:
        identity: what is known of the process so far.
        phase: "hello" or "adopt", for the names of steps.
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
        """A process was started: it is the one that must connect."""
        self.identity = replace(self.identity, pid=pid, start_ticks=ticks)

    def handshake(self) -> GatewayHandshake:
        """Return the handshake for a new connection."""
        return GatewayHandshake(
            session_id=self._spawn.session_id,
            secret=self._spawn.secret,
            former_secret=self._orphan.former_secret if self._orphan is not None else None,
        )

    def proved(self, handshake: GatewayHandshake) -> None:
        """A peer knew the secret: compare the rest of what it said, and let the plugins keep the next secret.

        Raises:
            Refused: it is another process or counts in another epoch, or a new worker could not be recorded.
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
                    "NOT_RECORDED", f"plugin {answer.plugin!r} could not record the worker{told_cause(answer.error)}"
                )
            log.error(
                "session %s: plugin %s could not record the adopted worker%s: it serves, but unless that is made good "
                "it will not be adopted again",
                self._spawn.session_id,
                answer.plugin,
                told_cause(answer.error),
            )
        reach(f"{self.phase}:after-manifest")

    def _compare(self, hello: Hello) -> None:
        known = self.identity
        if hello.epoch != known.epoch:
            raise Refused("WRONG_EPOCH", "the worker counts in another epoch than the session's")
        if hello.start_ticks != known.start_ticks:
            raise Refused("WRONG_PROCESS", "the worker says that it started at another time than the session's")
