"""Facts about a process from the operating system: start time, boot, memory."""

from __future__ import annotations

from pathlib import Path

# The index of the start time, which is field 22 of /proc/PID/stat, in the list of fields after the command's closing
# parenthesis. The first field in this list is field 3.
_START_TIME_INDEX = 22 - 3
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


def start_ticks(pid: int) -> int:
    """Return the time at which process `pid` started, in clock ticks since boot; 0 when it is unknown.

    Pid and start time together identify a process, because a later process with the same pid has another start time.
    Source: proc(5), /proc/PID/stat field 22. The command (field 2) can contain spaces and parentheses.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat[stat.rindex(b")") + 2 :].split()[_START_TIME_INDEX])
    except (OSError, ValueError, IndexError):
        return 0


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


def rss_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 when it is unknown."""
    return resident_bytes("self")


def resident_bytes(pid: int | str) -> int:
    """Return the resident memory of process `pid` in bytes; 0 when it is unknown. Source: proc(5), /proc/PID/statm
    field 2.
    """
    try:
        import resource

        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        return pages * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return 0
