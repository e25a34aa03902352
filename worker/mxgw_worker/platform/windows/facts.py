"""Facts about processes and about this machine, on Windows."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.shared import ThreadUse
from mxgw_worker.platform.windows import winapi

# By how much the difference of two processor times of a thread can be wrong, in seconds: the thread that runs when the
# system clock ticks is charged with the whole tick. Source: GetThreadTimes; 64 ticks per second is the default.
THREAD_TIME_STEP_S = 1 / 64


def start_ticks(pid: int) -> int:
    """Return the time at which process `pid` started, in the platform's own unit; 0 when it is unknown.

    Pid and start time together identify a process, because a later process with the same pid has another start time.
    The unit is 100 ns since 1601. Source: GetProcessTimes.
    """
    try:
        process = winapi.open_process(pid, winapi.PROCESS_QUERY_LIMITED_INFORMATION)
    except OSError:
        return 0
    try:
        return winapi.created_at(process)
    finally:
        winapi.close(process)


def process_ids() -> Sequence[int]:
    """Return the ids of all processes; none where the platform does not tell to which file a process writes."""
    return ()


def output_of(pid: int) -> Path:
    """Return the file to which a process writes its output. Of a process that has ended, or of another user, return an
    empty path, also where the platform does not tell.
    """
    del pid
    return Path()


def boot_id() -> str:
    """Return an id of this boot of the machine; "" when it is unknown.

    It is not needed: start times are points in time, so that pid and start time identify a process by themselves.
    """
    return ""


def pid_scope() -> str:
    """Return an id of the processes among which a pid is unique; it is the same as `boot_id`."""
    return boot_id()


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of process `pid`, by default of this process, in bytes; 0 when it is unknown.

    Source: GetProcessMemoryInfo, the working set.
    """
    if pid is None:
        return winapi.working_set_bytes(winapi.this_process())
    try:
        process = winapi.open_process(pid, winapi.PROCESS_QUERY_LIMITED_INFORMATION)
    except OSError:
        return 0
    try:
        return winapi.working_set_bytes(process)
    finally:
        winapi.close(process)


def exact_thread_use() -> ThreadUse:
    """Return what this thread has used so far; see `ThreadUse`.

    Windows counts no waits. It does count the cycles of a thread (QueryThreadCycleTime), but its documentation says
    that they must not be converted to a time.
    """
    return time.thread_time(), None, 0


def thread_use() -> ThreadUse:
    """Return the same as `exact_thread_use`, at less cost where the platform has something cheaper."""
    return time.thread_time(), None, 0


def open_file_limit() -> int | None:
    """Return how many files this process can have open; -1 when there is no limit, None when the platform has none."""
    return None


def clock_is_synchronised() -> bool | None:
    """Return what the kernel says about whether a time service keeps the clock right; None when it does not say."""
    return None


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process can use at most; 0 when it is unknown.

    This is the memory of the machine. A limit of a job object is not looked at, and `root` is not used.
    """
    del root
    return winapi.memory_bytes()


def control_group() -> str:
    """Return the text of /proc/self/cgroup; "" when there is none."""
    return ""
