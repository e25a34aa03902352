"""Facts about processes and about this machine, on POSIX systems."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

assert sys.platform != "win32"

from mxgw_worker.platform.shared import ThreadUse

# By how much the difference of two processor times of a thread can be wrong, in seconds.
THREAD_TIME_STEP_S = 0.0

# The index of the start time, which is field 22 of /proc/PID/stat, in the list of fields after the command's closing
# parenthesis. The first field in this list is field 3.
_START_TIME_INDEX = 22 - 3
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_CONTROL_GROUP = Path("/proc/self/cgroup")
_CLOCK_UNSYNCHRONISED = 0x0040  # the flag STA_UNSYNC of the kernel. Source: adjtimex(2)


def start_ticks(pid: int) -> int:
    """Return the time at which process `pid` started, in the platform's own unit; 0 when it is unknown.

    Pid and start time together identify a process, because a later process with the same pid has another start time.
    The unit is clock ticks since boot. Source: proc(5), /proc/PID/stat field 22. The command (field 2) can contain
    spaces and parentheses.
    """
    try:
        found = Path(f"/proc/{pid}/stat").read_bytes()
        return int(found[found.rindex(b")") + 2 :].split()[_START_TIME_INDEX])
    except (OSError, ValueError, IndexError):
        return 0


def process_ids() -> Sequence[int]:
    """Return the ids of all processes; none where the platform does not tell to which file a process writes."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def output_of(pid: int) -> Path:
    """Return the file to which a process writes its output. Of a process that has ended, or of another user, return an
    empty path, also where the platform does not tell.
    """
    try:
        return Path(f"/proc/{pid}/fd/1").readlink()
    except OSError:
        return Path()


def boot_id() -> str:
    """Return an id of this boot of the machine; "" when it is unknown.

    Start times are counted from the boot. So pid and start time identify a process only together with this id.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def pid_scope() -> str:
    """Return an id of this boot and of the pid namespace of this process; without a namespace, only the id of the boot.

    A container has pids of its own, so one pid can mean two processes within one boot.
    Source: pid_namespaces(7).
    """
    try:
        return f"{boot_id()} {_PID_NAMESPACE.readlink()}"
    except OSError:
        return boot_id()


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of process `pid`, by default of this process, in bytes; 0 when it is unknown.

    Source: proc(5), /proc/PID/statm field 2.
    """
    try:
        pages = int(Path(f"/proc/{'self' if pid is None else pid}/statm").read_bytes().split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def exact_thread_use() -> ThreadUse:
    """Return what this thread has used so far; see `ThreadUse`."""
    cpu_s = time.thread_time()
    if not hasattr(resource, "RUSAGE_THREAD"):
        return cpu_s, None, 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_s, used.ru_nvcsw, used.ru_nivcsw


def thread_use() -> ThreadUse:
    """Return what this thread has used so far, with a processor time that is right to a few milliseconds.

    This asks the system once, where `exact_thread_use` asks it twice. Interruptions are not counted.
    """
    if not hasattr(resource, "RUSAGE_THREAD"):
        return time.thread_time(), None, 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw, 0


def open_file_limit() -> int | None:
    """Return how many files this process can have open; -1 when there is no limit, None when the platform has none."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return -1 if limit == resource.RLIM_INFINITY else limit


def clock_is_synchronised() -> bool | None:
    """Return what the kernel says about whether a time service keeps the clock right; None when it does not say.

    Source: adjtimex(2); `status` is the sixth field of struct timex.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # imported here, because workers do not need it

    # Zeros, with more than the 208 bytes of struct timex. The field `modes` is 0, so the call only reads the clock.
    fields = (ctypes.c_long * 64)()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.adjtimex(ctypes.byref(fields)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    # The fields are: int modes (padded to the size of a long), long offset, freq, maxerror, esterror, int status.
    status = ctypes.c_int.from_buffer(fields, 5 * ctypes.sizeof(ctypes.c_long)).value
    return not status & _CLOCK_UNSYNCHRONISED


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process can use at most; 0 when it is unknown.

    This is the memory of the machine, or a smaller limit of the process's control group or of a group above that.
    Source: proc(5), /proc/meminfo; `memory.max` in the kernel's cgroup-v2.rst.
    """
    try:
        words = (root / "proc/meminfo").read_text(encoding="ascii").split()
        least = int(words[words.index("MemTotal:") + 1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if not line.startswith("0::/"):
            continue
        group = base / line.removeprefix("0::/")
        for place in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # the word "max" or a missing file means: no limit
                least = min(least, int((place / "memory.max").read_text(encoding="ascii")))
            if place == base:
                break
    return least


def control_group() -> str:
    """Return the text of /proc/self/cgroup; "" when there is none."""
    try:
        return _CONTROL_GROUP.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
