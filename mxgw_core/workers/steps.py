"""The steps of a worker's life in their order, told to the plugins; a test may let us die at each of them."""

from __future__ import annotations

from mxgw_core.api.errors import GatewayError, WorkerStartFailed
from mxgw_core.api.types import INTERNAL, CloseReason
from mxgw_core.api.workers import WorkerExit, WorkerIdentity, WorkerSpawn
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost


def told_cause(error: Exception) -> str:
    """Return what a plugin says on purpose as the end of a sentence; "" for what it did not mean to raise."""
    return f": {error.message}" if isinstance(error, GatewayError) else ""


class WorkerSteps:
    """One worker's steps; `phase` is "hello" for one started here, "adopt" for one taken over."""

    def __init__(self, plugins: PluginHost, phase: str) -> None:
        self._plugins = plugins
        self._phase = phase
        # Whether plugins know of the worker, and so are to be told of its end.
        self._is_announced = phase == "adopt"

    def announce(self, spawn: WorkerSpawn) -> float:
        """A worker is to be started; return how many seconds it outlives this gateway.

        Raises:
            WorkerStartFailed: a plugin prevents it.
        """
        lifetime_s = 0.0
        for answer in self._plugins.ask("mxgw_orphan_lifetime", spawn=spawn):
            if isinstance(answer.value, int | float) and spawn.owner_kind != INTERNAL.kind:
                lifetime_s = max(0.0, float(answer.value))
        reach("spawn:before-manifest")
        self._is_announced = True
        self._require("mxgw_worker_spawning", spawn=spawn)
        reach("spawn:after-manifest")
        return lifetime_s

    def started(self, worker: WorkerIdentity) -> None:
        """Its process exists and knows nothing yet.

        Raises:
            WorkerStartFailed: a plugin prevents it.
        """
        reach("spawn:after-process")
        self._require("mxgw_worker_started", worker=worker)
        reach("spawn:after-pid")

    def told(self) -> None:
        """The process has its start-up message."""
        reach("spawn:after-startup")

    def welcomed(self) -> None:
        """The worker was told that it is taken."""
        reach(f"{self._phase}:after-welcome")

    def ready(self, worker: WorkerIdentity) -> None:
        """It can serve."""
        reach(f"{self._phase}:before-ready")
        self._plugins.ask("mxgw_worker_ready", worker=worker)
        reach(f"{self._phase}:after-ready")

    def stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """It is about to be told to leave."""
        reach("close:before-manifest")
        self._plugins.ask("mxgw_worker_stopping", worker=worker, reason=reason)
        reach("close:after-manifest")

    def exited(self, worker_exit: WorkerExit) -> None:
        """It is gone, or was never started."""
        if self._is_announced:
            reach("close:after-exit")
            self._plugins.ask("mxgw_worker_exited", worker_exit=worker_exit)
            reach("close:after-delete")

    def _require(self, hook: str, **arguments: object) -> None:
        for answer in self._plugins.ask(hook, **arguments):
            if answer.error is not None:
                raise WorkerStartFailed(
                    f"plugin {answer.plugin!r} prevented the start of the worker{told_cause(answer.error)}"
                )
