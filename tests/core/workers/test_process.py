"""A worker process: its secret stays off the command line, its end is noticed, its log is private."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.peers import SECRET, SESSION

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_core.workers.process import WorkerProcess
from mxgw_core.workers.startup import StartupTooLarge, startup_payload
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION
from mxgw_worker.platform import Listener, endpoint_in, exposure, start_ticks

pytestmark = pytest.mark.asyncio


def _startup(endpoint: Path, **changes: object) -> WorkerStartup:
    fields: dict[str, object] = {
        "protocol_version": PROTOCOL_VERSION,
        "session_id": SESSION,
        "endpoint": str(endpoint),
        "secret": SECRET,
        "backend_kind": "sim",
        "outbox_events": 100,
        "outbox_bytes": 100_000,
        "maximum_frame_bytes": 100_000,
        "heartbeat_interval_ms": 1000,
        "write_completion_timeout_ms": 1000,
        "read_timeout_ms": 1000,
        "log_level": "INFO",
        "maximum_items": 10,
        "maximum_reference_bytes": 100_000,
    }
    return WorkerStartup(**{**fields, **changes})  # type: ignore[arg-type]


def _spawn(startup: WorkerStartup, log_file: Path) -> WorkerProcess:
    payload = startup_payload(startup)
    process = WorkerProcess.launch(log_file)
    process.send_startup(payload)
    return process


class Listening:
    """An endpoint that takes the worker's connection and says nothing, so that the worker stays."""

    def __init__(self, directory: Path) -> None:
        self.path = endpoint_in(directory, "w")
        self._listener = Listener(self.path, lambda path: path.unlink(missing_ok=True))
        self._transport: asyncio.BaseTransport | None = None
        self.connected = asyncio.Event()

    async def __aenter__(self) -> Listening:
        await self._listener.listen(lambda: _Silent(self._accept))
        return self

    def _accept(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.connected.set()

    async def __aexit__(self, *exc_info: object) -> None:
        if self._transport is not None:
            self._transport.close()
        self._listener.close()


class _Silent(asyncio.Protocol):
    def __init__(self, on_connected: Callable[[asyncio.BaseTransport], None]) -> None:
        self.connection_made = on_connected  # type: ignore[method-assign]


def _command_line_and_environment(pid: int) -> bytes:
    process = psutil.Process(pid)
    return repr((process.cmdline(), process.environ())).encode()


async def _exit_code(process: WorkerProcess) -> int:
    async with asyncio.timeout(60):
        return await process.exited


async def test_a_worker_is_started_in_its_own_session_and_its_end_is_noticed(tmp_path: Path) -> None:
    async with Listening(tmp_path) as endpoint:
        process = _spawn(_startup(endpoint.path), tmp_path / "log")
        async with asyncio.timeout(60):
            await endpoint.connected.wait()

        if sys.platform != "win32":
            assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert process.start_ticks == start_ticks(process.pid) > 0

        process.kill()

        assert await _exit_code(process) == (137 if sys.platform == "win32" else -signal.SIGKILL)

        process.kill()  # who is gone is signalled no more
        process.terminate()


async def test_neither_command_line_nor_environment_nor_log_has_the_secret(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Listening(tmp_path) as endpoint:
        startup = _startup(endpoint.path, backend_options_json='{"seed": 4711}', log_level="DEBUG")
        process = _spawn(startup, log)
        async with asyncio.timeout(60):
            await endpoint.connected.wait()
        shown = _command_line_and_environment(process.pid)
        process.kill()
        await _exit_code(process)
    shown += log.read_bytes()

    assert b"mxgw_worker" in shown
    for secret in (SECRET, SECRET.hex().encode(), repr(SECRET).encode(), b"4711"):
        assert secret not in shown


async def test_the_log_is_private_from_its_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        process = _spawn(_startup(tmp_path / "nobody.sock"), tmp_path / "log")
    finally:
        os.umask(before)

    assert exposure(tmp_path / "log") == ""

    process.kill()
    await _exit_code(process)


async def test_a_worker_that_cannot_start_leaves_an_exit_code_and_its_reason_in_the_log(tmp_path: Path) -> None:
    process = _spawn(_startup(tmp_path / "w.sock", maximum_items=0), tmp_path / "log")

    assert await _exit_code(process) > 0
    assert "maximum_items is 0" in (tmp_path / "log").read_text()


async def test_a_worker_without_a_gateway_leaves_by_itself(tmp_path: Path) -> None:
    process = _spawn(_startup(tmp_path / "nobody.sock"), tmp_path / "log")

    assert await _exit_code(process) != 0


async def test_terminate_lets_a_worker_leave_in_order(tmp_path: Path) -> None:
    async with Listening(tmp_path) as endpoint:
        process = _spawn(_startup(endpoint.path), tmp_path / "log")
        async with asyncio.timeout(60):
            await endpoint.connected.wait()
        process.terminate()

        assert await _exit_code(process) >= 0


async def test_options_that_do_not_fit_the_pipe_are_refused_before_a_process_exists(tmp_path: Path) -> None:
    startup = _startup(tmp_path / "w.sock", backend_options_json='{"a": "%s"}' % ("x" * 70_000))
    with pytest.raises(StartupTooLarge, match="shorten the options"):
        _spawn(startup, tmp_path / "log")

    assert not (tmp_path / "log").exists()


async def test_the_environment_cannot_put_other_code_into_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mxgw_worker").mkdir()
    (tmp_path / "mxgw_worker" / "__main__.py").write_text("raise SystemExit(77)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    process = _spawn(_startup(tmp_path / "nobody.sock"), tmp_path / "log")

    assert await _exit_code(process) != 77
