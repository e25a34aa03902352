"""The steps of a worker's life, in order. Most are reported to plugins; at each, a test can kill the gateway.

See `mxgw_core.failpoints` for the names of the steps.
"""

from __future__ import annotations

from mxgw_core.api.errors import GatewayError, WorkerStartFailed
from mxgw_core.api.types import INTERNAL, CloseReason
from mxgw_core.api.workers import WorkerExit, WorkerIdentity, WorkerSpawn
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost


def cause_in_words(error: BaseException) -> str:
    """Return the cause of an error as the end of a sentence.

    Only the text of a `GatewayError` is used, because plugins raise it on purpose. Return "" for any other error.
    """
    return f": {error.message}" if isinstance(error, GatewayError) else ""


class WorkerSteps:
    """Reports the steps of one worker to the plugins.

    `phase` is "hello" for a worker that this gateway starts, "adopt" for a worker that it adopts.
    """

    def __init__(self, plugins: PluginHost, phase: str) -> None:
        self._plugins = plugins
        self._phase = phase
        # Whether plugins know this worker. If so, its end must be reported to them.
        self._is_announced = phase == "adopt"

    def announce(self, spawn: WorkerSpawn) -> float:
        """Report that a worker will be started. Return how many seconds the worker can live on without a gateway.

        Raises:
            WorkerStartFailed: a plugin prevents the start.
        """
        lifetime_s = 0.0
        for answer in self._plugins.ask("mxgw_orphan_lifetime", spawn=spawn):
            if answer.error is None and spawn.owner_kind != INTERNAL.kind:
                lifetime_s = float(answer.value)
        reach("spawn:before-manifest")
        self._is_announced = True
        self._require("mxgw_worker_spawning", spawn=spawn)
        reach("spawn:after-manifest")
        return lifetime_s

    def started(self, worker: WorkerIdentity) -> None:
        """Report that the process of the worker exists. It has not got the start-up message yet.

        Raises:
            WorkerStartFailed: a plugin prevents the start.
        """
        reach("spawn:after-process")
        self._require("mxgw_worker_started", worker=worker)
        reach("spawn:after-pid")

    def startup_sent(self) -> None:
        """Call this when the process was sent the start-up message. No plugin is called: only tests use this step."""
        reach("spawn:after-startup")

    def welcomed(self) -> None:
        """Call this when the worker's connection was accepted. No plugin is called: only tests use this step."""
        reach(f"{self._phase}:after-welcome")

    def ready(self, worker: WorkerIdentity) -> None:
        """Report that the worker is ready to serve commands."""
        reach(f"{self._phase}:before-ready")
        self._plugins.ask("mxgw_worker_ready", worker=worker)
        reach(f"{self._phase}:after-ready")

    def stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """Report that the worker will be asked to exit now."""
        reach("close:before-manifest")
        self._plugins.ask("mxgw_worker_stopping", worker=worker, reason=reason)
        reach("close:after-manifest")

    def exited(self, worker_exit: WorkerExit) -> None:
        """Report that the worker process has ended, or was never started. Nothing is reported when plugins do not know
        the worker.
        """
        if self._is_announced:
            reach("close:after-exit")
            self._plugins.ask("mxgw_worker_exited", worker_exit=worker_exit)
            reach("close:after-delete")

    def _require(self, hook: str, **arguments: object) -> None:
        for answer in self._plugins.ask(hook, **arguments):
            if answer.error is not None:
                raise WorkerStartFailed(
                    f"plugin {answer.plugin!r} prevented the start of the worker{cause_in_words(answer.error)}"
                )
