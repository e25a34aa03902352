"""Processes on POSIX systems: starting, watching, signalling, and reporting that one is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

assert sys.platform != "win32"

from mxgw_worker.platform.posix.facts import start_ticks
from mxgw_worker.platform.posix.files import open_private


def can_hold_processes() -> bool:
    """Return whether `HeldProcess` works on this system."""
    return hasattr(os, "pidfd_open")


class HeldProcess:
    """A running process, held by a pidfd: signals reach this process, never a later one with the same pid.

    Raises:
        ProcessLookupError: there is no such process.
        OSError, OverflowError: the process cannot be held.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd: int | None = os.pidfd_open(pid)
        self._loop: asyncio.AbstractEventLoop | None = None  # set while the process is watched

    def runs_since(self, ticks: int) -> bool:
        """Return whether the process was started at this time, see `start_ticks`, and is still known to the system."""
        return start_ticks(self.pid) == ticks

    def terminate(self) -> None:
        """Ask the process to stop. Nothing happens when it has ended.

        Raises:
            PermissionError: the process belongs to another user.
        """
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once. Nothing happens when it has ended."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as the process has ended, and False when it has not ended in time. This blocks."""
        return self._pidfd is None or bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def watch(self, loop: asyncio.AbstractEventLoop, on_ended: Callable[[], None]) -> None:
        """Call `on_ended` in the event loop when the process has ended. `close` ends the watching."""
        assert self._pidfd is not None
        self._loop = loop
        loop.add_reader(self._pidfd, on_ended)

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, if this process can learn it; otherwise None.

        The process is a child of this process only when two gateways run one after the other in this process. Then this
        process has to reap it; in all other cases waitid raises ChildProcessError.
        """
        assert self._pidfd is not None
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        """Let the process go, without ending it."""
        if self._pidfd is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def spawn(
    command: Sequence[str],
    log_file: Path,
    *,
    ready: ReadySignal | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that goes on when this process ends, with a pipe (64 KiB on Linux) as its standard input.

    The process belongs to an operating system session of its own, so that no terminal reaches it, and works in the root
    directory. Its output is appended to `log_file`, which only the present user can read. `ready` is passed on to it.
    `environment` has variables that it gets besides those of this process.

    Raises:
        OSError: the process could not be started.
    """
    log_fd = open_private(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **(environment or {})},
            pass_fds=() if ready is None else (ready.inherited,),
        )
    finally:
        os.close(log_fd)
        if ready is not None:
            ready.passed_on()


class ReadySignal:
    """A signal with which a child process reports once that it is ready: it calls `report_ready(argument)`.

    Make it in the event loop, pass it to `spawn`, and give the child `argument` on its command line.

    Attributes:
        ready: completed when the child has reported, or has ended.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Completed when the child closes its end of the pipe.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._ours: int | None
        self._ours, self.inherited = os.pipe()
        self.argument = str(self.inherited)
        self._is_passed_on = False
        self._loop.add_reader(self._ours, self._became_ready)

    def passed_on(self) -> None:
        """Close the child's end in this process; `spawn` calls this."""
        if not self._is_passed_on:
            self._is_passed_on = True
            os.close(self.inherited)

    def close(self) -> None:
        """Release the signal. `ready` is not completed any more by the child."""
        self.passed_on()
        if self._ours is not None:
            self._loop.remove_reader(self._ours)
            os.close(self._ours)
            self._ours = None

    def ended(self) -> None:
        """Complete `ready`, because the child has ended."""
        self._became_ready()

    def _became_ready(self) -> None:
        self.close()
        if not self.ready.done():
            self.ready.set_result(None)


def report_ready(argument: str) -> None:
    """Report that this child process is ready; `argument` comes from its command line, see `ReadySignal`."""
    os.close(int(argument))


async def start_child(
    *command: str,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start a child process that a Ctrl-C at the terminal of this process does not reach.

    Raises:
        OSError: the process could not be started.
    """
    return await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True
    )


def ask_to_stop(child: asyncio.subprocess.Process) -> None:
    """Ask a child process to stop. Nothing happens when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()


def quoted(command: Sequence[str]) -> str:
    """Return a command as one text from which the shell of this platform makes the same command."""
    return shlex.join(command)
