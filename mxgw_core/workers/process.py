"""A worker process: started with its secret on standard input, watched and signalled by pidfd, never by bare pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.process import start_ticks

# Writing the start-up frame must not block: it has to fit the pipe (Linux: 64 KiB, pipe(7)).
_STARTUP_BYTES = 60 * 1024


class StartupTooLarge(ValueError):
    """The backend's options do not fit the start-up frame."""


def startup_payload(startup: WorkerStartup) -> bytes:
    """Return the start-up frame for `WorkerProcess.tell`.

    Raises:
        StartupTooLarge: the backend options are larger than it may be.
    """
    payload = frame(startup.SerializeToString())
    if len(payload) > _STARTUP_BYTES:
        raise StartupTooLarge(
            f"the worker's start-up settings take {len(payload)} bytes, more than {_STARTUP_BYTES}: "
            "shorten the options of the backend"
        )
    return payload


class WorkerProcess:
    """A child process of this gateway. Create with `launch`, in the event loop; `close` releases its pidfd."""

    def __init__(self, popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.start_ticks = start_ticks(popen.pid)
        # Completed with the exit code when the process is gone.
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
        """Start a worker in its own process session, its output going to `log_file` (mode 0600). It waits for `tell`.

        Should this gateway end before, it sees the end of its input and leaves.

        Raises:
            OSError: the process could not be started.
        """
        log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                # Isolated: neither the environment nor the working directory decides which code runs.
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

    def tell(self, payload: bytes, on_started: Callable[[WorkerProcess], None] = lambda _: None) -> None:
        """Let the process become the worker that `startup_payload` is about.

        `on_started` is called first, while the process knows nothing: should this gateway end there, the process
        leaves. What it raises ends the process and is passed on.
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
            pass  # it is gone already; `exited` will tell

    def dismiss(self) -> None:
        """Let a process that was told nothing leave by itself."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def is_alive(self) -> bool:
        """Ask the system; `exited` only knows at the event loop's next turn."""
        self._reap()
        return not self.exited.done()

    def terminate(self) -> None:
        """Ask the process to leave (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process (SIGKILL)."""
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
        """Stop watching, and let the process live on after this one."""
        self.close()
        # Popen would warn, as it is forgotten, of a process that still runs; here that is the intention.
        self._popen.returncode = 0

    def close(self) -> None:
        """Stop watching; the process itself is left alone."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
