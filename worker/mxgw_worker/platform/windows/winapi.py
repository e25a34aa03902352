"""The calls of kernel32, advapi32 and shell32 that the platform layer uses, with their types.

Each function here is one call, or a few that belong together, and raises OSError with the Windows error when it fails.
Handles and pointers are plain numbers.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_size_t, c_ulonglong, c_void_p, sizeof, wintypes

assert sys.platform == "win32"

GENERIC_READ, GENERIC_WRITE = 0x80000000, 0x40000000
FILE_READ_DATA, FILE_APPEND_DATA = 0x1, 0x4
FILE_READ_ATTRIBUTES = 0x80
READ_CONTROL, WRITE_DAC, WRITE_OWNER, SYNCHRONIZE = 0x20000, 0x40000, 0x80000, 0x100000
SHARE_READ, SHARE_WRITE, SHARE_DELETE = 0x1, 0x2, 0x4
CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING = 1, 2, 3, 4, 5
FLAG_OVERLAPPED, FLAG_BACKUP_SEMANTICS, FLAG_OPEN_REPARSE_POINT = 0x40000000, 0x02000000, 0x00200000
FLAG_FIRST_PIPE_INSTANCE, SECURITY_IDENTIFICATION = 0x00080000, 0x00100000 | 0x00010000
ATTRIBUTE_DIRECTORY, ATTRIBUTE_NORMAL, ATTRIBUTE_REPARSE_POINT = 0x10, 0x80, 0x400
PIPE_ACCESS_DUPLEX, PIPE_REJECT_REMOTE_CLIENTS, PIPE_UNLIMITED_INSTANCES = 0x3, 0x8, 255
PROCESS_TERMINATE, PROCESS_QUERY_LIMITED_INFORMATION = 0x1, 0x1000
EVENT_MODIFY_STATE = 0x2
LOCK_FAIL_IMMEDIATELY, LOCK_EXCLUSIVE = 0x1, 0x2

ERROR_INVALID_FUNCTION, ERROR_FILE_NOT_FOUND, ERROR_ACCESS_DENIED, ERROR_LOCK_VIOLATION = 1, 2, 5, 33
ERROR_NOT_SUPPORTED, ERROR_CALL_NOT_IMPLEMENTED = 50, 120
ERROR_INVALID_PARAMETER, ERROR_PIPE_BUSY, ERROR_IO_PENDING = 87, 231, 997

_WAIT_TIMEOUT, _WAIT_FAILED = 0x102, 0xFFFFFFFF
_INVALID_HANDLE = c_void_p(-1).value

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_shell = ctypes.WinDLL("shell32", use_last_error=True)


class SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES: the access list of a new object, and whether child processes inherit its handle."""

    _fields_ = (("length", wintypes.DWORD), ("descriptor", c_void_p), ("inherited", wintypes.BOOL))

    def __init__(self, descriptor: int = 0, *, inherited: bool = False) -> None:
        super().__init__(sizeof(type(self)), descriptor or None, inherited)


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", c_void_p),
        ("internal_high", c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", c_void_p),
    )


class _MemoryCounters(ctypes.Structure):
    _fields_ = (
        ("size", wintypes.DWORD),
        ("page_faults", wintypes.DWORD),
        ("peak_working_set", c_size_t),
        ("working_set", c_size_t),
        *((f"other_{number}", c_size_t) for number in range(6)),
    )


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("size", wintypes.DWORD),
        ("load", wintypes.DWORD),
        ("total", c_ulonglong),
        *((f"other_{number}", c_ulonglong) for number in range(6)),
    )


_ATTRIBUTES = POINTER(SecurityAttributes)
_H, _D, _B, _S = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR
for _name, _result, *_arguments in (
    ("CloseHandle", _B, _H),
    ("CreateDirectoryW", _B, _S, _ATTRIBUTES),
    ("CreateEventW", _H, _ATTRIBUTES, _B, _B, _S),
    ("CreateFileW", _H, _S, _D, _D, _ATTRIBUTES, _D, _D, _H),
    ("CreateNamedPipeW", _H, _S, _D, _D, _D, _D, _D, _D, _ATTRIBUTES),
    ("CreatePipe", _B, POINTER(_H), POINTER(_H), _ATTRIBUTES, _D),
    ("DisconnectNamedPipe", _B, _H),
    ("GetCurrentProcess", _H),
    ("GetExitCodeProcess", _B, _H, POINTER(_D)),
    ("GetFileInformationByHandleEx", _B, _H, ctypes.c_int, c_void_p, _D),
    ("GetNamedPipeClientProcessId", _B, _H, POINTER(_D)),
    ("GetProcessTimes", _B, _H, *(POINTER(wintypes.FILETIME),) * 4),
    ("GlobalMemoryStatusEx", _B, POINTER(_MemoryStatus)),
    ("LocalFree", c_void_p, c_void_p),
    ("K32GetProcessMemoryInfo", _B, _H, POINTER(_MemoryCounters), _D),
    ("LockFileEx", _B, _H, _D, _D, _D, _D, POINTER(_Overlapped)),
    ("OpenEventW", _H, _D, _B, _S),
    ("OpenProcess", _H, _D, _B, _D),
    ("ReOpenFile", _H, _H, _D, _D, _D),
    ("ResetEvent", _B, _H),
    ("SetEvent", _B, _H),
    ("TerminateProcess", _B, _H, wintypes.UINT),
    ("UnlockFileEx", _B, _H, _D, _D, _D, POINTER(_Overlapped)),
    ("WaitForSingleObject", _D, _H, _D),
):
    _call = getattr(_kernel, _name)
    _call.restype, _call.argtypes = _result, _arguments

# The byte of a file that is locked for the whole file. It is far behind the content, which therefore stays readable.
_LOCKED_BYTE = 1 << 40


def failure(path: str = "") -> OSError:
    """Return the error of the call that has just failed; `path` is the file that it was about."""
    return error_of(ctypes.get_last_error(), path)


def error_of(code: int, path: str = "") -> OSError:
    """Return the OSError of a Windows error code. Python chooses the class, for example FileNotFoundError."""
    # Without its period, because the text is shown inside sentences.
    return OSError(0, ctypes.FormatError(code).rstrip("."), path or None, code)


def close(handle: int) -> None:
    """Close a handle."""
    _kernel.CloseHandle(handle)


def free(address: int | None) -> None:
    """Free memory that the system has allocated for an answer."""
    _kernel.LocalFree(address)


# Processes


def open_process(pid: int, access: int) -> int:
    """Return a handle of process `pid`. The handle keeps the pid from being given to another process."""
    if not 0 < pid < 1 << 32:
        raise error_of(ERROR_INVALID_PARAMETER)
    handle: int | None = _kernel.OpenProcess(access, False, pid)
    if not handle:
        raise failure()
    return handle


def this_process() -> int:
    """Return a handle of this process, which need not be closed."""
    handle: int = _kernel.GetCurrentProcess()
    return handle


def created_at(process: int) -> int:
    """Return when a process was created, in units of 100 ns since 1601; 0 when it is unknown."""
    times = [wintypes.FILETIME() for _ in range(4)]
    if not _kernel.GetProcessTimes(process, *map(byref, times)):
        return 0
    return times[0].dwHighDateTime << 32 | times[0].dwLowDateTime


def exit_code(process: int) -> int | None:
    """Return the exit code of a process that has ended; None when it is unknown."""
    code = wintypes.DWORD()
    return code.value if _kernel.GetExitCodeProcess(process, byref(code)) else None


def terminate(process: int, code: int) -> None:
    """End a process at once, with this exit code. Nothing happens when it has ended."""
    if not _kernel.TerminateProcess(process, code) and not is_signalled(process):
        raise failure()


def working_set_bytes(process: int) -> int:
    """Return the resident memory of a process; 0 when it is unknown."""
    counters = _MemoryCounters()
    counters.size = sizeof(counters)
    if not _kernel.K32GetProcessMemoryInfo(process, byref(counters), counters.size):
        return 0
    return int(counters.working_set)


def memory_bytes() -> int:
    """Return the memory of the machine; 0 when it is unknown."""
    status = _MemoryStatus()
    status.size = sizeof(status)
    return int(status.total) if _kernel.GlobalMemoryStatusEx(byref(status)) else 0


def is_administrator() -> bool:
    """Return whether this process has the rights of an administrator."""
    return bool(_shell.IsUserAnAdmin())


# Events


def create_event(attributes: SecurityAttributes, name: str | None = None) -> int:
    """Create an event, which stays signalled until it is reset, or open the event that has this name."""
    handle: int | None = _kernel.CreateEventW(byref(attributes), True, False, name)
    if not handle:
        raise failure(name or "")
    return handle


def signal_named_event(name: str) -> bool:
    """Signal the event that has this name. Return False when there is none."""
    handle: int | None = _kernel.OpenEventW(EVENT_MODIFY_STATE, False, name)
    if not handle:
        if ctypes.get_last_error() == ERROR_FILE_NOT_FOUND:
            return False
        raise failure(name)
    _kernel.SetEvent(handle)
    _kernel.CloseHandle(handle)
    return True


def set_event(handle: int) -> None:
    """Signal an event."""
    _kernel.SetEvent(handle)


def reset_event(handle: int) -> None:
    """Make an event wait for the next signal."""
    _kernel.ResetEvent(handle)


def is_signalled(handle: int, timeout_s: float = 0.0) -> bool:
    """Wait until an event is signalled or a process has ended. Return False when this did not happen in time."""
    milliseconds = min(max(0, round(timeout_s * 1000)), 0xFFFFFFFE)
    result: int = _kernel.WaitForSingleObject(handle, milliseconds)
    if result == _WAIT_FAILED:
        raise failure()
    return result != _WAIT_TIMEOUT


# Files and pipes


def create_file(
    path: str,
    access: int,
    *,
    share: int = SHARE_READ | SHARE_WRITE | SHARE_DELETE,
    disposition: int = OPEN_EXISTING,
    flags: int = ATTRIBUTE_NORMAL,
    attributes: SecurityAttributes | None = None,
) -> int:
    """Open or create a file, open a directory, or connect to a named pipe; return its handle."""
    chosen = byref(attributes) if attributes is not None else None
    handle: int | None = _kernel.CreateFileW(path, access, share, chosen, disposition, flags, None)
    if handle is None or handle == _INVALID_HANDLE:
        raise failure(path)
    return handle


def create_directory(path: str, attributes: SecurityAttributes) -> None:
    """Create a directory."""
    if not _kernel.CreateDirectoryW(path, byref(attributes)):
        raise failure(path)


def attributes_of(handle: int) -> tuple[int, int]:
    """Return the attributes of an open file or directory, and the tag of the reparse point that it is (0: none)."""
    facts = (wintypes.DWORD * 2)()  # FILE_ATTRIBUTE_TAG_INFO, which is number 9
    if not _kernel.GetFileInformationByHandleEx(handle, 9, byref(facts), sizeof(facts)):
        raise failure()
    return facts[0], facts[1] if facts[0] & ATTRIBUTE_REPARSE_POINT else 0


def reopened(handle: int, access: int) -> int:
    """Return another handle of an open file or directory, with other rights, whatever its path leads to now."""
    share = SHARE_READ | SHARE_WRITE | SHARE_DELETE
    other: int | None = _kernel.ReOpenFile(handle, access, share, FLAG_BACKUP_SEMANTICS)
    if other is None or other == _INVALID_HANDLE:
        raise failure()
    return other


def create_pipe(name: str, attributes: SecurityAttributes, *, is_first: bool) -> int:
    """Create an instance of a named pipe for one client, for overlapped calls; return its handle.

    Clients of other machines are refused. With `is_first`, the call fails when there is a pipe of this name already.
    """
    mode = PIPE_ACCESS_DUPLEX | FLAG_OVERLAPPED | (FLAG_FIRST_PIPE_INSTANCE if is_first else 0)
    handle: int | None = _kernel.CreateNamedPipeW(
        name, mode, PIPE_REJECT_REMOTE_CLIENTS, PIPE_UNLIMITED_INSTANCES, 65536, 65536, 0, byref(attributes)
    )
    if handle is None or handle == _INVALID_HANDLE:
        raise failure(name)
    return handle


def disconnect_pipe(handle: int) -> None:
    """Free an instance of a named pipe from a client that has left, so that the next client can connect to it."""
    if not _kernel.DisconnectNamedPipe(handle):
        raise failure()


def create_anonymous_pipe(size_bytes: int) -> tuple[int, int]:
    """Return the handles of a new pipe for reading and for writing. Writing blocks when `size_bytes` are unread."""
    reading, writing = wintypes.HANDLE(), wintypes.HANDLE()
    if not _kernel.CreatePipe(byref(reading), byref(writing), None, size_bytes):
        raise failure()
    assert reading.value is not None
    assert writing.value is not None
    return reading.value, writing.value


def pipe_client(handle: int) -> int | None:
    """Return the process id of the client of a named pipe; None when it is unknown."""
    pid = wintypes.DWORD()
    return pid.value if _kernel.GetNamedPipeClientProcessId(handle, byref(pid)) else None


def lock(handle: int, *, exclusive: bool) -> bool:
    """Lock an open file against other handles that lock it. Return False when another one has locked it."""
    place = _Overlapped(offset_high=_LOCKED_BYTE >> 32)
    flags = LOCK_FAIL_IMMEDIATELY | (LOCK_EXCLUSIVE if exclusive else 0)
    if _kernel.LockFileEx(handle, flags, 0, 1, 0, byref(place)):
        return True
    if ctypes.get_last_error() in (ERROR_LOCK_VIOLATION, ERROR_IO_PENDING):
        return False
    raise failure()


def unlock(handle: int) -> None:
    """Unlock a file that `lock` has locked with this handle."""
    place = _Overlapped(offset_high=_LOCKED_BYTE >> 32)
    if not _kernel.UnlockFileEx(handle, 0, 1, 0, byref(place)):
        raise failure()
