"""A program for Windows that pretends to be the worker of a session, in several ways, and looks for its secret.

    python windows_impostors.py DATA_DIRECTORY SESSION       each line of input begins a round, see `main`
    python windows_impostors.py --connect DATA_DIRECTORY SESSION     two silent connections, and the outcome of each

It prints one JSON document for each round.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import msvcrt
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from ctypes import byref, wintypes
from pathlib import Path

import psutil

from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.data_directory import DataDirectory
from mxgw_worker import platform
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.platform.windows import security

# A user that does not exist, and groups that everybody has.
_USER, _GROUPS = "S-1-5-21-1-2-3-4242", ("S-1-5-32-545", "S-1-1-0")
_PRIMARY, _ALL_ACCESS, _ENABLED = 1, 0xF01FF, 7
_USE_HANDLES, _LONG_MS = 0x100, 120_000
_Handle, _Dword, _Pointer = wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p

# What each impostor says.
SENT = {
    "silent": b"",
    "empty": bytes(4),
    "hello": frame(w.WorkerEnvelope(hello=w.Hello(session_id="x", pid=4)).SerializeToString()),
    "garbage": b"\xff" * 4096,
    "half a frame": frame(bytes(100))[:50],
}


class _Impostor(asyncio.Protocol):
    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._frames = FrameDecoder(1 << 20)
        self.said: list[str] = []
        # Completed when the gateway has ended the connection.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self.said += [w.WorkerEnvelope.FromString(payload).reject.reason for payload in self._frames.feed(data)]

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


async def refusals(endpoint: Path, *sent: bytes) -> list[list[str]]:
    """Connect once for each of `sent`, and return the reasons of the Rejects that each connection got until its end."""
    address = platform.EndpointAddress(str(endpoint))
    impostors = [_Impostor(data) for data in sent]
    for impostor in impostors:
        await address.connect(lambda made=impostor: made)  # type: ignore[misc]
    for impostor in impostors:
        await impostor.ended
    return [impostor.said for impostor in impostors]


def secrets_of(manifest: Path) -> Iterator[bytes]:
    """Yield the secrets of workers in every spelling in which they could be written somewhere."""
    with closing(sqlite3.connect(f"file:{manifest.as_posix()}?mode=ro", uri=True)) as db:
        for row in db.execute("SELECT secret, former_secret FROM worker"):
            for secret in filter(None, row):
                yield from (secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode())


def shown(logs: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each log below `logs`, and of each process its name with "command line" or
    "environment" and what can be read there.
    """
    for log in logs.rglob("*.log"):
        yield log.name, log.read_bytes()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            yield f"{process.name()} command line", repr(process.cmdline()).encode()
            yield f"{process.name()} environment", repr(process.environ()).encode()


class _SidAndAttributes(ctypes.Structure):
    _fields_ = (("sid", _Pointer), ("attributes", _Dword))


class _Groups(ctypes.Structure):
    _fields_ = (("count", _Dword), ("groups", _SidAndAttributes * len(_GROUPS)))


class _Source(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 8), ("luid", ctypes.c_ulonglong))


class _ObjectAttributes(ctypes.Structure):
    _fields_ = (
        ("length", wintypes.ULONG),
        ("root", _Handle),
        ("name", _Pointer),
        ("attributes", wintypes.ULONG),
        ("descriptor", _Pointer),
        ("quality", _Pointer),
    )


class _Startup(ctypes.Structure):
    _fields_ = (
        ("size", _Dword),
        ("names", wintypes.LPWSTR * 3),
        ("numbers", _Dword * 7),
        ("flags", _Dword),
        ("words", wintypes.WORD * 2),
        ("reserved", _Pointer),
        ("standard", _Handle * 3),
    )


class _Started(ctypes.Structure):
    _fields_ = (("process", _Handle), ("thread", _Handle), ("pid", _Dword), ("thread_id", _Dword))


def run_as_another_user(*arguments: str) -> None:
    """Run this Python as a user that does not exist, with the standard output of this process.

    A token for any user can be made in Wine; on Windows only the system may do that.
    """
    advapi, ntdll = ctypes.WinDLL("advapi32", use_last_error=True), ctypes.WinDLL("ntdll")
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.WaitForSingleObject.argtypes = (_Handle, _Dword)

    def sid(text: str) -> _Pointer:
        found = _Pointer()
        assert advapi.ConvertStringSidToSidW(text, byref(found)), ctypes.get_last_error()
        return found

    user, groups = sid(_USER), [sid(group) for group in _GROUPS]
    every = _Groups(len(groups), (_SidAndAttributes * len(groups))(*((g.value, _ENABLED) for g in groups)))
    attributes = _ObjectAttributes(ctypes.sizeof(_ObjectAttributes))
    token = _Handle()
    code = ntdll.NtCreateToken(
        *(byref(token), _Dword(_ALL_ACCESS), byref(attributes), _Dword(_PRIMARY)),
        *(byref(ctypes.c_ulonglong(0x3E7)), byref(ctypes.c_longlong(2**63 - 1))),
        *(byref(_SidAndAttributes(user.value, 0)), byref(every), byref(_Dword(0)), byref(user)),
        *(byref(groups[0]), byref(_Pointer()), byref(_Source(b"mxgwtest", 0))),
    )
    assert code == 0, hex(code & 0xFFFFFFFF)

    output = msvcrt.get_osfhandle(sys.stdout.fileno())
    os.set_handle_inheritable(output, True)
    startup = _Startup(ctypes.sizeof(_Startup), flags=_USE_HANDLES, standard=(None, output, output))
    started = _Started()
    line = ctypes.create_unicode_buffer(subprocess.list2cmdline([sys.executable, *arguments]))
    sys.stdout.flush()
    assert advapi.CreateProcessAsUserW(
        token, None, line, None, None, True, 0, None, None, byref(startup), byref(started)
    ), ctypes.get_last_error()
    assert kernel.WaitForSingleObject(started.process, _LONG_MS) == 0


def main() -> None:
    """At the first line of input, each impostor connects, also as another user. At the second line, one more connects,
    and the secret is looked for: not earlier, because the memory of a stopped process cannot be read.
    """
    arguments = sys.argv[1:]
    directory, session_id = Path(arguments[-2]), arguments[-1]
    endpoint = DataDirectory(directory).socket_of(session_id)
    if arguments[0] == "--connect":
        own = "connects"
        try:
            asyncio.run(refusals(endpoint, b""))
        except PermissionError:
            own = "refuses"
        # An impostor has no such check.
        security.owner_of = lambda *_: security.current_user()
        _print({"another user": asyncio.run(refusals(endpoint, b""))[0], "its worker": own})
        return
    sys.stdin.readline()
    _print(dict(zip(SENT, asyncio.run(refusals(endpoint, *SENT.values())), strict=True)))
    run_as_another_user(__file__, "--connect", *arguments)
    sys.stdin.readline()
    late = asyncio.run(refusals(endpoint, b""))[0]
    secrets, places = list(secrets_of(directory / "manifest.sqlite3")), list(shown(directory.parent))
    _print(
        {
            "late": late,
            "secrets": len(secrets),
            "workers": [p for p, text in places if p.endswith("command line") and b"mxgw_worker" in text],
            "logs": sum(place.endswith(".log") and session_id.encode() in text for place, text in places),
            "environments": sum(b"WINEPREFIX" in text for _, text in places),
            "exposed": [place for place, text in places if any(secret in text for secret in secrets)],
        }
    )


def _print(document: object) -> None:
    sys.stdout.write(f"{json.dumps(document)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
