"""Worker processes: starting, watching, signalling and ending them.

A worker process is a child of this gateway, or an earlier gateway started it. A child reads the start-up message from
its standard input. A worker of an earlier gateway is found again by its pid, its start time and the id of the boot;
after that a pidfd identifies the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mxgw.worker.v1.worker_pb2 import Goodbye
from mxgw_core.api.workers import WorkerIdentity
from mxgw_core.printable import printable
from mxgw_worker.ipc.process import boot_id, pid_scope, start_ticks

log = logging.getLogger(__name__)


class ProcessHandle(Protocol):
    """A worker process, whether this gateway started it or an earlier one did.

    On Windows an implementation would use a process handle in place of a pidfd (docs/reattach.md).
    """

    @property
    def pid(self) -> int:
        """The process id. Do not send signals to this id: after the end of the worker another process can get it."""

    @property
    def start_ticks(self) -> int:
        """When the process was started, see `mxgw_worker.ipc.process.start_ticks`."""

    @property
    def exited(self) -> asyncio.Future[int | None]:
        """Completed when the process has ended. The result is the exit code, or None when the code is not known."""

    def terminate(self) -> None:
        """Ask the process to exit (SIGTERM)."""

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""

    def leave(self) -> None:
        """Stop watching the process without ending it."""


class WorkerProcess:
    """A worker process that this gateway started. Make one with `launch`, in the event loop.

    `close` releases the pidfd of the process.
    """

    def __init__(self, popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.start_ticks = start_ticks(popen.pid)
        # Completed with the exit code when the process has ended.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(popen.pid)
            loop.add_reader(self._pidfd, self._reap)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"worker-wait:{popen.pid}", daemon=True).start()

    @classmethod
    def launch(cls, log_file: Path, *arguments: str, pass_fds: Sequence[int] = ()) -> WorkerProcess:
        """Start a process that becomes a worker when `send_startup` is called.

        The process belongs to an operating system session of its own, and its output is appended to `log_file` (mode
        0600). When this gateway ends before it sends the start-up message, the standard input of the process is closed
        and the process exits.

        Raises:
            OSError: the process could not be started.
        """
        log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                # -I: neither environment variables nor the working directory can change which code is imported.
                [sys.executable, "-I", "-m", "mxgw_worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                cwd="/" if os.name == "posix" else None,
                pass_fds=pass_fds,
            )
        finally:
            os.close(log_fd)
        return cls(popen, asyncio.get_running_loop())

    def send_startup(self, payload: bytes, on_started: Callable[[WorkerProcess], None] = lambda _: None) -> None:
        """Send the start-up message, which makes the process a worker. `payload` comes from `startup_payload`.

        `on_started` is called before the message is sent. So if this gateway dies during `on_started`, the process gets
        no message and exits. When `on_started` raises an error, the process is killed and the error is raised again.
        """
        stdin = self._popen.stdin
        assert stdin is not None
        try:
            on_started(self)
        except BaseException:
            self.kill()
            stdin.close()
            self._popen.wait()
            self.close()
            raise
        try:
            stdin.write(payload)
            stdin.close()
        except BrokenPipeError:
            pass  # the process has ended already; `exited` reports this

    def dismiss(self) -> None:
        """Close the standard input of a process that got no start-up message. The process then exits by itself."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def is_alive(self) -> bool:
        """Return whether the process runs. This asks the system, because `exited` is completed only after the event
        loop has run again.
        """
        self._reap()
        return not self.exited.done()

    def terminate(self) -> None:
        """Ask the process to exit (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.exited.done():
            return
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._popen.send_signal(number)
        except ProcessLookupError:
            pass

    def _reap(self) -> None:
        code = self._popen.poll()
        if code is not None:
            self.close()
            if not self.exited.done():
                self.exited.set_result(code)

    def _wait_in_thread(self) -> None:
        self._popen.wait()
        self._loop.call_soon_threadsafe(self._reap)

    def leave(self) -> None:
        """Stop watching the process. The process goes on when this gateway ends."""
        self.close()
        # When a Popen object is deleted while its process runs, Python prints a warning. An object that has a return
        # code counts as ended and causes no warning.
        self._popen.returncode = 0

    def close(self) -> None:
        """Stop watching the process. The process itself is not changed."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


class AdoptedProcess:
    """A worker process that an earlier gateway started. Make one with `find`, in the event loop."""

    def __init__(self, pid: int, ticks: int, pidfd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self.start_ticks = ticks
        # Completed when the pidfd reports that the process has ended.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = pidfd
        loop.add_reader(pidfd, self._gone)

    @classmethod
    def find(cls, worker: WorkerIdentity) -> AdoptedProcess | None:
        """Return the process with this identity. Return None when the process has ended, also when another process has
        its pid now, or when the platform has no pidfd.

        The pidfd is opened before the identity is checked, so that all later signals go to exactly the checked process.
        """
        if worker.pid <= 0 or not worker.start_ticks or worker.boot_id not in (pid_scope(), boot_id()):
            return None
        if not hasattr(os, "pidfd_open"):
            log.warning("cannot find worker %d again: this platform has no pidfd", worker.pid)
            return None
        try:
            pidfd = os.pidfd_open(worker.pid)
        except (OSError, OverflowError):  # OverflowError: the pid is larger than any process id can be
            return None
        if start_ticks(worker.pid) != worker.start_ticks:
            os.close(pidfd)
            log.warning("process %d is not the worker of session %s: left alone", worker.pid, worker.session_id)
            return None
        return cls(worker.pid, worker.start_ticks, pidfd, asyncio.get_running_loop())

    def terminate(self) -> None:
        """Ask the process to exit (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def leave(self) -> None:
        """Stop watching the process without ending it."""
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
            # The worker is a child of this process only when two gateways run one after the other in this process. Then
            # this process has to reap the worker; in all other cases waitid raises ChildProcessError.
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            if result is not None:
                code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self.leave()
        if not self.exited.done():
            self.exited.set_result(code)


async def end_process(
    process: ProcessHandle, *, ask: Callable[[], None] | None, grace_s: float, is_stuck: bool
) -> None:
    """End the process, and return when it has ended.

    The process is asked to exit by calling `ask`, which sends a message over the worker's connection. When `ask` is
    None because there is no connection, the process gets SIGTERM. It is killed when it has not exited after `grace_s`
    seconds, and at once when `is_stuck` is true.
    """
    if process.exited.done():
        return
    try:
        if not is_stuck:
            if ask is not None:
                ask()
            else:
                process.terminate()
            await asyncio.wait((process.exited,), timeout=grace_s)
            if not process.exited.done():
                log.warning("worker %d did not leave within %.1f s and is killed", process.pid, grace_s)
        process.kill()
        await asyncio.wait((process.exited,))
    finally:
        if not process.exited.done():
            process.kill()  # the wait was cancelled, but the process must end all the same


def end_in_words(code: int | None, goodbye: Goodbye | None) -> str:
    """Return a sentence that says how a worker process ended.

    `code` is the exit code; None when it is not known. When a signal ended the process, `code` is the negative number
    of the signal. `goodbye` is the worker's last message; None when there was no such message.
    """
    said = f" ({printable(goodbye.detail or goodbye.reason, 300)})" if goodbye is not None else ""
    if code is None:
        how = "ended; with which exit code, only the gateway that started it could have known"
    else:
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
    return f"the worker process {how}{said}"
