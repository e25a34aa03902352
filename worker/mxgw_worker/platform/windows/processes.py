"""Processes on Windows: starting, watching, stopping, and reporting that one is ready."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import msvcrt
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

assert sys.platform == "win32"

from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.files import open_private
from mxgw_worker.platform.windows.interpreters import python_program
from mxgw_worker.platform.windows.proactor import HandleWait
from mxgw_worker.platform.windows.stop_events import stop_event_of
from mxgw_worker.platform.windows.winapi import SecurityAttributes

log = logging.getLogger(__name__)

# The exit code of a process that was killed: the one that shells show for SIGKILL. Windows has no signals.
KILLED = 137

# How much can be written to the standard input of a process before it reads: as much as on Linux, see pipe(7). By
# default it would be 4 KiB, and a gateway that writes more would stand still until the process has started.
_INPUT_BYTES = 64 * 1024

_RIGHTS = winapi.SYNCHRONIZE | winapi.PROCESS_QUERY_LIMITED_INFORMATION
# Characters that the shell does not pass on outside of quotation marks.
_MEANT_FOR_SHELL = frozenset("&|<>()^,;=")
_DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW


def can_hold_processes() -> bool:
    """Return whether `HeldProcess` works on this system."""
    return True


class HeldProcess:
    """A running process, held by a handle: requests reach this process, never a later one with the same pid.

    Raises:
        ProcessLookupError: there is no such process.
        OSError, OverflowError: the process cannot be held.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._may_end = True
        try:
            handle = winapi.open_process(pid, _RIGHTS | winapi.PROCESS_TERMINATE)
        except PermissionError:
            self._may_end = False
            handle = winapi.open_process(pid, _RIGHTS)
        except OSError as error:
            if error.winerror == winapi.ERROR_INVALID_PARAMETER:
                raise ProcessLookupError(f"there is no process {pid}") from None
            raise
        self._handle: int | None = handle
        self._wait: HandleWait | None = None
        self._start_ticks = winapi.created_at(handle)

    def runs_since(self, ticks: int) -> bool:
        """Return whether the process was started at this time, see `start_ticks`, and runs.

        The system knows a process that has ended until the last handle of it is closed, here or anywhere.
        """
        return self._start_ticks == ticks and not self.wait(0)

    def terminate(self) -> None:
        """Ask the process to stop. Nothing happens when it has ended.

        A process that has not begun to listen to such requests is ended at once.

        Raises:
            PermissionError: the process belongs to another user, or another user has taken the name of its stop event.
        """
        if self.wait(0):
            return
        if not winapi.signal_named_event(stop_event_of(self.pid, self._start_ticks)):
            self.kill()

    def kill(self) -> None:
        """End the process at once. Nothing happens when it has ended."""
        if self._handle is not None and not self.wait(0):
            if not self._may_end:
                raise winapi.error_of(winapi.ERROR_ACCESS_DENIED)
            winapi.terminate(self._handle, KILLED)

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as the process has ended, and False when it has not ended in time. This blocks."""
        return self._handle is None or winapi.is_signalled(self._handle, timeout_s)

    def watch(self, loop: asyncio.AbstractEventLoop, on_ended: Callable[[], None]) -> None:
        """Call `on_ended` in the event loop when the process has ended. `close` ends the watching."""
        del loop
        assert self._handle is not None
        self._wait = HandleWait(self._handle, on_ended)

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, if this process can learn it; otherwise None."""
        return winapi.exit_code(self._handle) if self._handle is not None else None

    def close(self) -> None:
        """Let the process go, without ending it."""
        handle, self._handle = self._handle, None
        if self._wait is not None:
            self._wait.close()  # it closes the handle as well
        elif handle is not None:
            winapi.close(handle)


def spawn(
    command: Sequence[str],
    log_file: Path,
    *,
    ready: ReadySignal | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that goes on when this process ends, with a pipe of 64 KiB as its standard input.

    A Python of a virtual environment is started without its launcher, see `python_program`. The process has no console,
    and leaves the job of this process if the job allows it; otherwise a warning says so, because the process may then
    be ended together with this one. Its output is appended to `log_file`, which only the present user can read. `ready`
    is passed on to it. `environment` has variables that it gets besides those of this process.

    Raises:
        OSError: the process could not be started.
    """
    program, told = python_program(Path(command[0]))
    log_fd = open_private(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [] if ready is None else [ready.inherited]})

    def start(flags: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(program), *command[1:]],
            stdin=stdin,
            stdout=log_fd,
            stderr=log_fd,
            creationflags=flags,
            startupinfo=startup,
            env={**os.environ, **(environment or {}), **told},
            cwd=program.anchor,  # a directory in which a process works cannot be removed
        )

    with contextlib.ExitStack() as passed_on:
        passed_on.callback(os.close, log_fd)
        if ready is not None:
            passed_on.callback(ready.passed_on)
        reading, writing = winapi.create_anonymous_pipe(_INPUT_BYTES)
        stdin = msvcrt.open_osfhandle(reading, os.O_RDONLY | os.O_NOINHERIT)
        passed_on.callback(os.close, stdin)
        writer = os.fdopen(msvcrt.open_osfhandle(writing, os.O_NOINHERIT), "wb")
        try:
            try:
                process = start(_DETACHED | subprocess.CREATE_BREAKAWAY_FROM_JOB)
            except PermissionError:
                process = start(_DETACHED)
                _warn_of_job()
        except BaseException:
            writer.close()
            raise
        process.stdin = writer
        return process


@functools.cache
def _warn_of_job() -> None:
    log.warning(
        "workers cannot leave the job object in which this process runs: when the job is closed, they end together "
        "with this process, and no later gateway can take their sessions back"
    )


class ReadySignal:
    """A signal with which a child process reports once that it is ready: it calls `report_ready(argument)`.

    Make it in the event loop, pass it to `spawn`, and give the child `argument` on its command line.

    Attributes:
        ready: completed when the child has reported, or has ended.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Completed when the child signals the event, and by `ended`.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.inherited = winapi.create_event(SecurityAttributes(inherited=True))
        self.argument = str(self.inherited)
        self._wait = HandleWait(self.inherited, self._became_ready)

    def passed_on(self) -> None:
        """Close the child's end in this process; `spawn` calls this."""
        os.set_handle_inheritable(self.inherited, False)

    def close(self) -> None:
        """Release the signal. `ready` is not completed any more by the child."""
        self._wait.close()

    def ended(self) -> None:
        """Complete `ready`, because the child has ended."""
        self._became_ready()

    def _became_ready(self) -> None:
        self.close()
        if not self.ready.done():
            self.ready.set_result(None)


def report_ready(argument: str) -> None:
    """Report that this child process is ready; `argument` comes from its command line, see `ReadySignal`."""
    winapi.set_event(int(argument))
    winapi.close(int(argument))


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
    program, told = python_program(Path(command[0]))
    return await asyncio.create_subprocess_exec(
        str(program),
        *command[1:],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**(os.environ if env is None else env), **told},
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    )


def ask_to_stop(child: asyncio.subprocess.Process) -> None:
    """Ask a child process to stop. Nothing happens when it has ended."""
    with contextlib.suppress(OSError):
        held = HeldProcess(child.pid)
        try:
            held.terminate()
        finally:
            held.close()


def quoted(command: Sequence[str]) -> str:
    """Return a command as one text from which the shell of this platform makes the same command."""
    return " ".join(map(_quoted, command))


def _quoted(argument: str) -> str:
    text = subprocess.list2cmdline([argument])
    if text.startswith('"') or not set(text) & _MEANT_FOR_SHELL:
        return text
    doubled = "\\" * (len(text) - len(text.rstrip("\\")))  # otherwise the last one would belong to the quotation mark
    return f'"{text}{doubled}"'
