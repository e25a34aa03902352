"""The platform layer on Windows keeps unfriendly neighbours and unlucky moments out. These tests run there only."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mxgw_worker import platform
from mxgw_worker.platform.watched import OpenProcess, WatchedChild

if sys.platform != "win32":
    pytest.skip("for Windows", allow_module_level=True)

from mxgw_worker.platform.windows import proactor, security, stop_events, winapi
from mxgw_worker.platform.windows.winapi import SecurityAttributes

pytestmark = pytest.mark.asyncio

PATIENCE_S = 60
WAITING = "import sys; sys.stdin.read()"


class Peer(asyncio.Protocol):
    """Knows when it is connected."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connected.set()


async def _connected(peer: Peer) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await peer.connected.wait()
    peer.transport.abort()


# named pipes


@pytest.mark.parametrize("leaving", [1, 2])
async def test_a_client_that_leaves_at_once_does_not_end_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaving: int
) -> None:
    created: list[int] = []

    def create_pipe(name: str, attributes: SecurityAttributes, *, is_first: bool) -> int:
        handle = original(name, attributes, is_first=is_first)
        created.append(handle)
        if len(created) == leaving:
            # As soon as there is an instance, and before the endpoint waits for a client.
            winapi.close(winapi.create_file(name, winapi.GENERIC_READ | winapi.GENERIC_WRITE, share=0))
        return handle

    original = winapi.create_pipe
    monkeypatch.setattr(winapi, "create_pipe", create_pipe)
    listener = platform.Listener(platform.endpoint_in(tmp_path, "name"), lambda _: None)
    accepted: list[Peer] = []
    await listener.listen(lambda: accepted.append(Peer()) or accepted[-1])  # type: ignore[func-returns-value]
    for _ in range(3):
        peer = Peer()
        async with asyncio.timeout(PATIENCE_S):
            await platform.EndpointAddress(str(platform.endpoint_in(tmp_path, "name"))).connect(lambda: peer)  # noqa: B023
        await _connected(peer)
    listener.close()

    assert len(accepted) == 3

    for peer in accepted:
        await _connected(peer)


async def test_a_pipe_that_another_user_has_made_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    endpoint = str(platform.endpoint_in(tmp_path, "name"))
    with security.attributes(f"O:{security.EVERYONE}D:P(A;;GA;;;{security.EVERYONE})") as attributes:
        handle = winapi.create_pipe(endpoint, attributes, is_first=True)
    with pytest.raises(PermissionError):
        await platform.EndpointAddress(endpoint).connect(Peer)
    winapi.close(handle)


class _OfPython312(type(Path())):  # type: ignore[misc]
    """A path whose numbers are as long as since Python 3.12."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        status = super().stat(follow_symlinks=follow_symlinks)
        return os.stat_result((status[0], status[1] | 9 << 64, status[2] | 9 << 32, *status[3:10]))


async def test_the_name_of_an_endpoint_does_not_depend_on_the_version_of_python(tmp_path: Path) -> None:
    assert platform.endpoint_in(_OfPython312(tmp_path), "name") == platform.endpoint_in(tmp_path, "name")


# private parts of asyncio


async def test_the_private_parts_of_asyncio_are_as_needed() -> None:
    await platform.self_test()


async def test_an_asyncio_without_a_private_part_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "_make_duplex_pipe_transport", None)
    with pytest.raises(OSError, match=r"has no _make_duplex_pipe_transport\): run mxgw with Python 3\.11 to 3\.14"):
        await platform.self_test()


async def test_an_asyncio_whose_private_part_changed_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "_make_duplex_pipe_transport", lambda *_: None)
    with pytest.raises(OSError, match=r"as mxgw needs it \(TypeError: .*: run mxgw with Python 3\.11 to 3\.14"):
        await platform.self_test()


async def test_an_asyncio_that_does_nothing_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proactor, "_TEST_S", 0.0)
    with pytest.raises(OSError, match=r"nothing happened within 0 s\): run mxgw with Python 3\.11 to 3\.14"):
        await platform.self_test()


# stop events, and handles


@contextmanager
def _taken(process: WatchedChild | OpenProcess) -> Iterator[None]:
    """Make the stop event of a process before it does, in such a way that nobody may use it."""
    with security.attributes(f"O:{security.current_user()}D:P(A;;0x{winapi.SYNCHRONIZE:x};;;SY)") as attributes:
        name = stop_events.stop_event_of(process.pid, process.start_ticks)
        event = winapi.create_event(attributes, name)
    try:
        yield
    finally:
        winapi.close(event)


async def test_a_child_whose_stop_event_is_taken_is_ended_all_the_same(tmp_path: Path) -> None:
    for watch in ("child", "open"):
        popen = platform.spawn([sys.executable, "-c", WAITING], tmp_path / "log")
        process: WatchedChild | OpenProcess | None = WatchedChild(popen)
        assert process is not None
        if watch == "open":
            process.leave()
            process = OpenProcess.open(popen.pid, process.start_ticks)
            assert process is not None
        held = platform.HeldProcess(popen.pid)
        with _taken(process):
            with pytest.raises(PermissionError):
                held.terminate()
            process.terminate()
            async with asyncio.timeout(PATIENCE_S):
                await process.exited
        held.close()
        assert popen.stdin is not None
        popen.stdin.close()


async def test_a_wait_for_what_is_no_handle_is_an_error_and_not_an_end() -> None:
    with pytest.raises(OSError, match=r"."):
        winapi.is_signalled(0x7FFFF0)


# processes


async def test_a_python_of_a_virtual_environment_is_started_without_its_launcher(tmp_path: Path) -> None:
    program = tmp_path / "env with spaces" / "Scripts" / Path(sys.executable).name
    program.parent.mkdir(parents=True)
    program.write_text("a launcher, which would start the Python of the environment in a second process")
    home = Path(sys.executable).parent
    (program.parent.parent / "pyvenv.cfg").write_text(f"include-system-site-packages = false\nhome = {home}\n")
    code = "import os, sys; print(os.getpid(), '__PYVENV_LAUNCHER__' in os.environ, sys.prefix)"
    child = WatchedChild(platform.spawn([str(program), "-I", "-c", code], tmp_path / "log"))
    async with asyncio.timeout(PATIENCE_S):
        assert await child.exited == 0, (tmp_path / "log").read_text()

    expected = f"{child.pid} False {program.parent.parent}"

    assert (tmp_path / "log").read_text().strip() == expected

    other = await platform.start_child(str(program), "-I", "-c", code, stdout=asyncio.subprocess.PIPE)
    printed, _ = await other.communicate()

    assert printed.decode().strip() == expected.replace(str(child.pid), str(other.pid))

    child.send(b"")


# files


async def test_a_file_system_without_locks_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(_handle: int, *, exclusive: bool) -> bool:
        del exclusive
        raise winapi.error_of(winapi.ERROR_NOT_SUPPORTED)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(winapi, "lock", lock)
    with pytest.raises(platform.LocksUnsupported):
        platform.DirectoryLock(tmp_path, tmp_path / "run")
    monkeypatch.undo()
    platform.DirectoryLock(tmp_path, tmp_path / "run").close()


async def test_the_text_of_an_error_can_stand_inside_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        platform.open_private(tmp_path / "none" / "file", os.O_RDONLY)

    assert refused.value.strerror
    assert not refused.value.strerror.endswith(".")
