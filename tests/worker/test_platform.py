"""The platform layer keeps its promises on the platform of this machine. These tests also run under Windows Python."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mxgw_worker import platform
from mxgw_worker.platform.private_files import danger, read_private
from mxgw_worker.platform.watched import OpenProcess, WatchedChild

PATIENCE_S = 60
CYCLES = 60
CODE = "import sys; print('up', flush=True); sys.stdin.read(); sys.exit(7)"


# private files


def test_a_created_file_is_private_whatever_others_are(tmp_path: Path) -> None:
    descriptor = platform.open_private(tmp_path / "secret", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"12")

    assert platform.exposure(descriptor) == ""

    os.close(descriptor)

    assert platform.exposure(tmp_path / "secret") == ""
    assert platform.owner_of(tmp_path / "secret") == platform.current_user()
    assert read_private(tmp_path / "secret") == b"12"


def _public(path: Path) -> Path:
    path.write_bytes(b"all")
    if sys.platform == "win32":
        from mxgw_worker.platform.windows import security, winapi

        # Not with icacls: Wine's does nothing. WD is everyone.
        handle = winapi.create_file(str(path), winapi.READ_CONTROL | winapi.WRITE_DAC)
        security.set_access(handle, f"{security.private_file()}(A;;GR;;;WD)")
        winapi.close(handle)
    else:
        path.chmod(0o644)
    return path


def test_a_file_that_others_can_read_is_refused_with_the_cure_and_can_be_made_private(tmp_path: Path) -> None:
    path = _public(tmp_path / "file")

    assert platform.exposure(path)
    assert platform.privacy_command(path) in danger(path, path)
    with pytest.raises(PermissionError, match="other users may read it"):
        read_private(path)

    platform.make_private(path)

    assert platform.exposure(path) == ""
    assert read_private(path) == b"all"


def test_an_open_file_can_be_made_private(tmp_path: Path) -> None:
    descriptor = os.open(_public(tmp_path / "file"), os.O_RDWR)
    platform.make_private(descriptor)
    os.close(descriptor)

    assert platform.exposure(tmp_path / "file") == ""


def test_a_directory_is_private_from_the_start_and_its_parents_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    platform.make_directory(path, parents=True)

    assert platform.exposure(path) == ""

    platform.make_directory(path, parents=True, exist_ok=True)
    with pytest.raises(FileExistsError):
        platform.make_directory(path)


def test_flags_mean_what_they_mean_to_os_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        platform.open_private(path, os.O_RDONLY)
    for content in (b"one", b"two\r\n"):
        descriptor = platform.open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, content)
        os.close(descriptor)

    assert path.read_bytes() == b"onetwo\r\n"

    with pytest.raises(FileExistsError):
        platform.open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.close(platform.open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    assert path.read_bytes() == b""


def test_an_open_file_can_be_renamed_and_removed(tmp_path: Path) -> None:
    descriptor = platform.open_private(tmp_path / "before", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    (tmp_path / "before").replace(tmp_path / "after")
    os.write(descriptor, b"kept")

    assert (tmp_path / "after").read_bytes() == b"kept"

    (tmp_path / "after").unlink()
    os.close(descriptor)

    assert not list(tmp_path.iterdir())


def test_a_link_is_refused_where_it_is_not_to_be_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    try:
        (tmp_path / "link").symlink_to(tmp_path / "file")
        (tmp_path / "link").read_bytes()
    except OSError:
        pytest.skip("this user cannot make links that can be followed")
    os.close(platform.open_private(tmp_path / "link", os.O_RDONLY))
    with pytest.raises(OSError, match=r"."):
        platform.open_private(tmp_path / "link", os.O_RDONLY, follow=False)


def _link(path: Path, target: Path) -> Path:
    """Make a link that can be used, or skip the test."""
    try:
        path.symlink_to(target)
        path.read_bytes()
    except OSError:
        pytest.skip("this user cannot make links that can be followed")
    return path


def test_a_link_is_known_and_what_it_leads_to_is_never_made_private(tmp_path: Path) -> None:
    target = _public(tmp_path / "target")
    link = _link(tmp_path / "link", target)

    assert [platform.is_link(path) for path in (link, target, tmp_path, tmp_path / "none")] == [True, *[False] * 3]

    before = platform.exposure(target)
    with pytest.raises(OSError, match=r"."):
        platform.make_private(link)

    assert platform.exposure(target) == before


def test_a_command_for_administrators_names_a_path_with_spaces_as_one_word() -> None:
    assert platform.privacy_command(Path("a b")).count("'a b'" if sys.platform != "win32" else '"a b"') == 1


def test_a_file_is_published_once(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
    platform.publish(tmp_path / "first", tmp_path / "final")
    with pytest.raises(FileExistsError):
        platform.publish(tmp_path / "second", tmp_path / "final")

    assert (tmp_path / "final").read_text() == "first"
    assert not (tmp_path / "first").exists()
    assert (tmp_path / "second").exists()


# locks


def test_a_locked_file_is_locked_for_other_openings_until_it_is_unlocked(tmp_path: Path) -> None:
    first, second = (platform.open_private(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2))

    assert platform.lock_file(first)
    assert not platform.lock_file(second)

    os.write(second, b"the content is not locked")
    platform.unlock_file(first)

    assert platform.lock_file(second)

    os.close(first)
    os.close(second)


def test_a_directory_is_locked_once_and_its_holder_is_known(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()

    assert platform.holder_of(tmp_path) is None

    lock = platform.DirectoryLock(tmp_path, run)
    with pytest.raises(platform.DirectoryInUse) as refused:
        platform.DirectoryLock(tmp_path, run)

    assert refused.value.pid == platform.holder_of(tmp_path) == os.getpid()

    lock.close()

    assert platform.holder_of(tmp_path) is None

    again = platform.DirectoryLock(tmp_path, run)

    assert again.id == lock.id

    again.close()


def test_a_lock_that_is_a_link_is_refused_and_the_other_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other").write_text("precious")
    _link(tmp_path / "lock", tmp_path / "other")
    with pytest.raises(OSError, match=r"."):
        platform.DirectoryLock(tmp_path, tmp_path / "run")

    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize("content", [b"", b"no number", b"9" * 32, "\u0663".encode()])
def test_a_lock_without_a_process_id_has_an_unknown_holder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    lock = platform.DirectoryLock(tmp_path, tmp_path / "run")
    (tmp_path / "lock").write_bytes(content)

    assert platform.holder_of(tmp_path) == 0

    lock.close()


# processes


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", *arguments]


async def _code(process: OpenProcess | WatchedChild) -> int | None:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.shield(process.exited)


@pytest.mark.asyncio
async def test_a_child_gets_its_input_and_its_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    code = "import sys; print(sys.stdin.read(), flush=True); sys.exit(7)"
    child = WatchedChild(platform.spawn(_command(code), tmp_path / "log"))

    assert child.start_ticks == platform.start_ticks(child.pid) > 0

    child.send(b"the secret")

    assert await _code(child) == 7
    assert (tmp_path / "log").read_text().strip() == "the secret"
    assert platform.exposure(tmp_path / "log") == ""

    child.kill()  # nothing happens to a process that has ended
    child.terminate()


@pytest.mark.asyncio
async def test_a_start_up_message_is_written_before_the_child_reads(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; read = pathlib.Path(sys.argv[1])\n"
        "for _ in range(3000):\n"
        "    if read.exists(): sys.exit(len(sys.stdin.buffer.read()) != 60 * 1024)\n"
        "    time.sleep(0.01)\n"
        "sys.exit(9)"
    )
    child = WatchedChild(platform.spawn(_command(code, str(tmp_path / "read")), tmp_path / "log"))
    child.send(b"x" * 60 * 1024)
    (tmp_path / "read").touch()

    assert await _code(child) == 0, (tmp_path / "log").read_text()


@pytest.mark.asyncio
async def test_arguments_and_environment_arrive_as_they_were_given(tmp_path: Path) -> None:
    arguments = ["", "a b", 'say "x"', "%PATH%", "a^b", "back\\", "back slash\\", '\\"', "&|<>", "*", "grüße ☃"]
    code = "import os, sys; print(ascii([os.environ['WORDS'], *sys.argv[1:]]))"
    child = await platform.start_child(
        *_command(code, *arguments), env={**os.environ, "WORDS": "%X% ☃"}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        printed, _ = await child.communicate()

    assert printed.decode().strip() == ascii(["%X% ☃", *arguments])


def test_a_quoted_command_is_the_same_command_for_the_shell() -> None:
    arguments = ["a b", "a&b", "a|b", "(a)", "a<b>c", "a^b", "back\\", "a&b\\"]
    code = "import sys; print(ascii(sys.argv[1:]))"
    done = subprocess.run(platform.quoted(_command(code, *arguments)), shell=True, capture_output=True, text=True)

    assert done.stdout.strip() == ascii(arguments), done.stderr


@pytest.mark.asyncio
async def test_a_process_is_found_by_pid_and_start_time_only_and_can_be_killed(tmp_path: Path) -> None:
    popen = platform.spawn(_command(CODE), tmp_path / "log")
    child = WatchedChild(popen)
    child.leave()

    assert OpenProcess.open(child.pid, child.start_ticks + 1) is None
    assert OpenProcess.open(2**62, child.start_ticks) is None
    found = OpenProcess.open(child.pid, child.start_ticks)
    assert found is not None
    left = OpenProcess.open(child.pid, child.start_ticks)
    assert left is not None

    assert platform.resident_bytes(child.pid) > 0

    left.leave()
    found.kill()

    assert await _code(found) not in (0, None)
    assert not left.exited.done()
    assert not child.exited.done()
    assert OpenProcess.open(child.pid, child.start_ticks) is None

    assert popen.stdin is not None
    popen.stdin.close()


@pytest.mark.asyncio
async def test_a_process_that_is_left_goes_on(tmp_path: Path) -> None:
    popen = platform.spawn(_command(CODE), tmp_path / "log")
    child = WatchedChild(popen)
    child.leave()
    found = OpenProcess.open(child.pid, child.start_ticks)
    assert found is not None
    assert popen.stdin is not None
    popen.stdin.close()

    await _code(found)


def test_a_held_process_can_be_waited_for_without_an_event_loop(tmp_path: Path) -> None:
    popen = platform.spawn(_command(CODE), tmp_path / "log")
    held = platform.HeldProcess(popen.pid)

    assert not held.wait(0)

    assert popen.stdin is not None
    popen.stdin.close()

    assert held.wait(PATIENCE_S)

    held.terminate()
    held.close()

    assert popen.wait() == 7


@pytest.mark.asyncio
async def test_a_child_reports_that_it_is_ready(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(';'); from mxgw_worker.platform import report_ready\n"
        "report_ready(sys.argv[1]); sys.stdin.read()"
    )
    signal = platform.ReadySignal()
    command = _command(code, signal.argument, ";".join(sys.path))
    child = WatchedChild(platform.spawn(command, tmp_path / "log", ready=signal))
    async with asyncio.timeout(PATIENCE_S):
        await signal.ready

    assert not child.exited.done()

    child.send(b"")

    assert await _code(child) == 0, (tmp_path / "log").read_text()


@pytest.mark.asyncio
async def test_a_ready_signal_ends_with_its_child(tmp_path: Path) -> None:
    signal = platform.ReadySignal()
    child = WatchedChild(platform.spawn(_command("pass"), tmp_path / "log", ready=signal))
    child.exited.add_done_callback(lambda _: signal.ended())
    child.send(b"")
    await _code(child)
    async with asyncio.timeout(PATIENCE_S):
        await signal.ready


# requests to stop

LISTENING = """
import asyncio, sys
sys.path[:0] = sys.argv[1].split(";")
from mxgw_worker.platform import StopKind, on_stop
async def main():
    stopped = asyncio.Queue()
    on_stop(stopped.put_nowait, *StopKind)
    print("listening", flush=True)
    for _ in range(2):
        request = await stopped.get()
        print(request.kind.name, request.exit_code, flush=True)
    sys.exit(request.exit_code)
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_another_process_is_asked_to_stop_as_often_as_one_likes(tmp_path: Path) -> None:
    child = await platform.start_child(*_command(LISTENING, ";".join(sys.path)), stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    held = platform.HeldProcess(child.pid)
    async with asyncio.timeout(PATIENCE_S):
        assert (await child.stdout.readline()).strip() == b"listening"

        for _ in range(2):
            held.terminate()

            assert (await child.stdout.readline()).split() == [b"TERMINATE", b"143"]

        assert await child.wait() == 143
    held.close()


@pytest.mark.asyncio
async def test_a_process_can_ask_itself_to_stop_until_it_does_not_listen_any_more() -> None:
    stopped: asyncio.Queue[platform.StopRequest] = asyncio.Queue(2)
    undo = platform.on_stop(stopped.put_nowait, platform.StopKind.TERMINATE)
    platform.stop_this_process()
    async with asyncio.timeout(PATIENCE_S):
        request = await stopped.get()
    undo()

    assert request.kind is platform.StopKind.TERMINATE
    assert stopped.empty()


def test_requests_to_stop_arrive_while_the_event_loop_is_blocked() -> None:
    code = (
        "import asyncio, os, sys, threading; sys.path[:0] = sys.argv[1].split(';')\n"
        "from mxgw_worker.platform import at_stop, stop_this_process\n"
        "requests = []\n"
        "def stop(request):\n"
        "    requests.append(request.kind.name)\n"
        "    if len(requests) == 2: os.write(1, ' '.join(requests).encode()); os._exit(7)\n"
        "    stop_this_process()\n"
        "async def block(): stop_this_process(); threading.Event().wait()\n"
        "at_stop(stop)\n"
        "asyncio.run(block())"
    )
    done = subprocess.run(_command(code, ";".join(sys.path)), capture_output=True, text=True, timeout=PATIENCE_S)

    assert (done.stdout, done.returncode) == ("TERMINATE TERMINATE", 7), done.stderr


def test_code_without_an_event_loop_is_stopped_by_an_error() -> None:
    code = (
        "import sys, time; sys.path[:0] = sys.argv[1].split(';')\n"
        "from mxgw_worker.platform import raising_at_stop, stop_this_process\n"
        "try:\n"
        "    with raising_at_stop(LookupError('stopped')):\n"
        "        stop_this_process()\n"
        "        while True: time.sleep(0.01)\n"
        "except LookupError as error: print(error)"
    )
    done = subprocess.run(_command(code, ";".join(sys.path)), capture_output=True, text=True, timeout=PATIENCE_S)

    assert done.stdout.strip() == "stopped", done.stderr


def test_a_process_that_kills_itself_runs_no_more_code() -> None:
    code = "import sys; sys.path[:0] = sys.argv[1].split(';')\nfrom mxgw_worker.platform import kill_this_process\n"
    done = subprocess.run(
        _command(f"{code}\ntry: kill_this_process()\nfinally: print('more')", ";".join(sys.path)),
        capture_output=True,
        timeout=PATIENCE_S,
    )

    assert (done.returncode != 0, done.stdout) == (True, b"")


# endpoints


class Peer(asyncio.Protocol):
    """Collects what the other end sends."""

    def __init__(self, on_made: Callable[[Peer], None] = lambda _: None) -> None:
        self._on_made = on_made
        self.received = b""
        self.arrived = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Listening:
    """An endpoint, and the peers that have connected to it."""

    def __init__(self, directory: Path) -> None:
        self.endpoint = platform.endpoint_in(directory, "name")
        self.peers: asyncio.Queue[Peer] = asyncio.Queue(10)
        self.listener = platform.Listener(self.endpoint, lambda path: path.unlink(missing_ok=True))

    def make(self) -> Peer:
        return Peer(self.peers.put_nowait)

    async def connect(self) -> tuple[Peer, Peer]:
        """Return both ends of a new connection."""
        address = platform.EndpointAddress(str(self.endpoint))
        client = Peer()
        async with asyncio.timeout(PATIENCE_S):
            await address.connect(lambda: client)
            server = await self.peers.get()
        address.close()
        return client, server


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[Listening]:
    place = Listening(directory)
    await place.listener.listen(place.make)
    try:
        yield place
    finally:
        place.listener.close()


async def _until_set(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("p")


@pytest.mark.asyncio
async def test_several_peers_connect_and_talk_and_are_known(short_path: Path) -> None:
    async with listening(short_path) as place:
        for _ in range(3):
            client, server = await place.connect()
            peer = platform.peer_credentials(server.transport)

            assert (peer.pid, peer.same_user) == (os.getpid(), True)

            client.transport.write(b"x" * 1_000_000)
            server.transport.write(b"hello")
            await _until_set(client.arrived)
            while len(server.received) < 1_000_000:
                server.arrived.clear()
                await _until_set(server.arrived)

            assert client.received == b"hello"

            client.transport.close()
            await _until_set(server.lost)
            server.transport.close()


@pytest.mark.asyncio
async def test_an_endpoint_that_is_closed_takes_nobody_and_can_be_opened_again(short_path: Path) -> None:
    async with listening(short_path) as place:
        client, server = await place.connect()
    server.transport.write(b"still open")
    await _until_set(client.arrived)
    server.transport.abort()
    await _until_set(client.lost)
    with pytest.raises(OSError, match=r"."):
        await place.connect()

    async with listening(short_path) as again:
        other, accepted = await again.connect()
        other.transport.abort()
        await _until_set(accepted.lost)


@pytest.mark.asyncio
async def test_a_peer_of_another_process_is_known(short_path: Path) -> None:
    code = (
        "import asyncio, sys; sys.path[:0] = sys.argv[2].split(';')\n"
        "from mxgw_worker.platform import EndpointAddress\n"
        "async def main():\n"
        "    await EndpointAddress(sys.argv[1]).connect(asyncio.Protocol)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    async with listening(short_path) as place:
        child = await platform.start_child(*_command(code, str(place.endpoint), ";".join(sys.path)))
        async with asyncio.timeout(PATIENCE_S):
            server = await place.peers.get()
        peer = platform.peer_credentials(server.transport)
        child.kill()
        await _until_set(server.lost)
        await child.wait()

        assert (peer.pid, peer.same_user) == (child.pid, True)


def test_a_port_is_claimed_only_when_nobody_listens_on_it() -> None:
    with socket.socket() as listener, socket.socket() as probe:
        platform.claim_port(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        platform.claim_port(probe)
        with pytest.raises(OSError, match=r"."):
            probe.bind(listener.getsockname())


def test_the_memory_of_this_machine_and_process_is_known() -> None:
    assert platform.memory_bytes() > platform.resident_bytes() > 1_000_000


# resources


def _open_handles() -> int:
    """Return how many files and objects this process has open, or a number that grows with them."""
    if sys.platform != "win32":
        return len(list(Path("/proc/self/fd").iterdir()))
    from mxgw_worker.platform.windows import winapi

    event = winapi.create_event(winapi.SecurityAttributes())  # the lowest number that is free
    winapi.close(event)
    return event // 4


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="open files cannot be counted here")
async def test_nothing_stays_open_however_often_endpoints_locks_and_processes_are_used(short_path: Path) -> None:
    (short_path / "run").mkdir()
    lowest = _open_handles()
    for cycle in range(CYCLES):
        async with listening(short_path) as place:
            client, server = await place.connect()
        client.transport.abort()
        server.transport.abort()
        await _until_set(client.lost)
        await _until_set(server.lost)
        platform.DirectoryLock(short_path, short_path / "run").close()
        held = platform.HeldProcess(os.getpid())
        held.close()
        if cycle % 20 == 0:
            child = WatchedChild(platform.spawn(_command("pass"), short_path / "log"))
            found = OpenProcess.open(child.pid, child.start_ticks)
            child.send(b"")
            await _code(child)
            if found is not None:
                await _code(found)
    # Handles of processes are closed a moment after the wait for them has ended.
    async with asyncio.timeout(PATIENCE_S):
        while _open_handles() > lowest + 2:  # noqa: ASYNC110  nothing says when
            await asyncio.sleep(0.01)
