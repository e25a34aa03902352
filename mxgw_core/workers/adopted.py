"""A worker process that an earlier gateway started: found again by pid, start time and boot, then held by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Protocol

from mxgw_core.api.workers import WorkerIdentity
from mxgw_worker.ipc.process import boot_id, pid_scope, start_ticks

log = logging.getLogger(__name__)


class ProcessHandle(Protocol):
    """A worker process, own child or not; on Windows this would be a process handle (docs/reattach.md)."""

    @property
    def pid(self) -> int:
        """The process id; never a reason to signal anything by itself."""

    @property
    def start_ticks(self) -> int:
        """Its start time, see `mxgw_worker.ipc.process.start_ticks`."""

    @property
    def exited(self) -> asyncio.Future[int | None]:
        """Completed when the process is gone: with its exit code, or None when that cannot be known."""

    def terminate(self) -> None:
        """Ask the process to leave."""

    def kill(self) -> None:
        """End the process."""

    def leave(self) -> None:
        """Stop watching, and let the process live on."""


class AdoptedProcess:
    """A process that is most likely no child of this one. Made by `find`, in the event loop."""

    def __init__(self, pid: int, ticks: int, pidfd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self.start_ticks = ticks
        # Completed when the pidfd says that the process is gone.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = pidfd
        loop.add_reader(pidfd, self._gone)

    @classmethod
    def find(cls, worker: WorkerIdentity) -> AdoptedProcess | None:
        """Return the process of this identity; None when it is gone, or its pid is another process's by now.

        The pidfd is opened before the identity is checked, so whatever is signalled later is what was checked.
        """
        if worker.pid <= 0 or not worker.start_ticks or worker.boot_id not in (pid_scope(), boot_id()):
            return None
        if not hasattr(os, "pidfd_open"):
            log.warning("cannot find worker %d again: this platform has no pidfd", worker.pid)
            return None
        try:
            pidfd = os.pidfd_open(worker.pid)
        except (OSError, OverflowError):  # the latter for a number that no process can have
            return None
        if start_ticks(worker.pid) != worker.start_ticks:
            os.close(pidfd)
            log.warning("process %d is not the worker of session %s: left alone", worker.pid, worker.session_id)
            return None
        return cls(worker.pid, worker.start_ticks, pidfd, asyncio.get_running_loop())

    def terminate(self) -> None:
        """Ask the process to leave (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def leave(self) -> None:
        """Stop watching, and let the process live on."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _gone(self) -> None:
        assert self._pidfd is not None
        code: int | None = None
        try:
            # Only a gateway that runs again within the same process is the parent; then the child is to be reaped.
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            if result is not None:
                code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self.leave()
        if not self.exited.done():
            self.exited.set_result(code)
