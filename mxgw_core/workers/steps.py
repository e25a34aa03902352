"""The steps of a worker's life, in order: each is reported to the plugins, and is a failpoint for tests."""

from __future__ import annotations

from mxgw_core.api.errors import GatewayError, WorkerStartFailed
from mxgw_core.api.types import INTERNAL, CloseReason
from mxgw_core.api.workers import WorkerExit, WorkerIdentity, WorkerSpawn
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost


def cause_in_words(error: Exception) -> str:
    """Return the message of a `GatewayError`, which a plugin raises on purpose, as the end of a sentence; "" for other
    errors.
    """
    return f": {error.message}" if isinstance(error, GatewayError) else ""


class WorkerSteps:
    """Reports the steps of one worker. `phase` is "hello" for a worker started here, "adopt" for an adopted one."""

    def __init__(self, plugins: PluginHost, phase: str) -> None:
        self._plugins = plugins
        self._phase = phase
        # Whether plugins know of the worker, so that its end must be reported to them.
        self._is_announced = phase == "adopt"

    def announce(self, spawn: WorkerSpawn) -> float:
        """A worker will be started. Return for how many seconds it may outlive this gateway.

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
        """Its process exists, and has not got its start-up message.

        Raises:
            WorkerStartFailed: a plugin prevents it.
        """
        reach("spawn:after-process")
        self._require("mxgw_worker_started", worker=worker)
        reach("spawn:after-pid")

    def startup_sent(self) -> None:
        """The start-up message was sent to the process."""
        reach("spawn:after-startup")

    def welcomed(self) -> None:
        """The Welcome was sent: the worker is accepted."""
        reach(f"{self._phase}:after-welcome")

    def ready(self, worker: WorkerIdentity) -> None:
        """The worker can serve commands."""
        reach(f"{self._phase}:before-ready")
        self._plugins.ask("mxgw_worker_ready", worker=worker)
        reach(f"{self._phase}:after-ready")

    def stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """The worker is about to be asked to leave."""
        reach("close:before-manifest")
        self._plugins.ask("mxgw_worker_stopping", worker=worker, reason=reason)
        reach("close:after-manifest")

    def exited(self, worker_exit: WorkerExit) -> None:
        """The worker process has ended, or was never started."""
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
