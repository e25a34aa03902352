"""`mxgw serve` as a process: ready, draining, refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mxgw_client

MXGW = [sys.executable, "-m", "mxgw_cli"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory: a Unix socket's path has little room."""
    with tempfile.TemporaryDirectory(prefix="mxgw-cli-", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `mxgw serve` and yield it with the line it wrote when it was ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
    with subprocess.Popen(
        [*MXGW, "serve", "--set", f"gateway.data_dir={directory / 'data'}", *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_one_line_says_where_it_really_listens(directory: Path) -> None:
    with serving(directory, "--listen", "127.0.0.1:0", "--listen", f"unix:{directory}/g.sock") as (_, line):
        assert line.startswith("mxgw 0.1.0 ready on 127.0.0.1:")
        assert f"unix:{directory}/g.sock" in line
        port = int(line.split("127.0.0.1:")[1].split(",")[0])
        assert port > 0
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            pass


@pytest.mark.parametrize("loop", ["--uvloop", "--no-uvloop"])
def test_a_signal_drains_reports_and_ends_with_0(directory: Path, loop: str) -> None:
    with serving(directory, "--json", loop, "--listen", f"unix:{directory}/g.sock") as (process, line):
        document = json.loads(line)
        process.terminate()
        rest, errors = process.communicate(timeout=60)

    assert document == {"ready": True, "addresses": [f"unix:{directory}/g.sock"], "pid": process.pid}
    assert process.returncode == 0
    assert rest == ""
    assert "SIGTERM: draining for up to 5 s" in errors
    assert "everything is closed" in errors
    assert not (directory / "g.sock").exists()


@pytest.mark.asyncio
async def test_a_second_signal_ends_it_at_once(directory: Path) -> None:
    target = f"unix:{directory}/g.sock"
    with serving(directory, "--listen", target, "--set", "gateway.drain_timeout_s=600") as (process, _):
        async with mxgw_client.connect(target) as gateway, gateway.open_session() as session:
            stream = session.events()
            await stream.open()
            process.send_signal(signal.SIGINT)
            async for frame in stream:
                if isinstance(frame, mxgw_client.Draining):
                    break
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)

    assert code == 130


@pytest.mark.asyncio
async def test_the_end_of_a_streams_gateway_is_an_orderly_one(directory: Path) -> None:
    target = f"unix:{directory}/g.sock"
    with serving(directory, "--listen", target, "--set", "gateway.drain_timeout_s=0.5") as (process, _):
        async with (
            mxgw_client.connect(target) as gateway,
            gateway.open_session() as session,
            session.events(resume=None) as stream,
        ):
            process.send_signal(signal.SIGINT)
            with pytest.raises(mxgw_client.StreamEnded):
                async for _ in stream:
                    pass
        code = process.wait(timeout=60)

    assert code == 0


def test_a_stdout_that_nobody_reads_does_not_end_it(directory: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "w") as stdout,
        subprocess.Popen(
            [*MXGW, "serve", "--listen", f"unix:{directory}/g.sock", "--set", f"gateway.data_dir={directory}/data"],
            cwd=directory,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        assert "serving on" in process.stderr.readline()
        process.terminate()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0

    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "127.0.0.1:{port}"], "{port}"),
        (["--listen", "0.0.0.0:0"], "other machines"),
        (["--listen", "nonsense"], "must be host:port"),
        (["--set", "limits.sessions=0"], "limits.sessions"),
        (["--settings", "missing.toml"], "missing.toml"),
        (["--set", "plugins.enabled=none_such", "--set", "plugins.required=none_such"], "none_such"),
    ],
    ids=["port in use", "exposed", "malformed", "setting", "file", "plugin"],
)
def test_what_keeps_it_from_starting_is_a_sentence_and_exit_code_1(
    directory: Path, arguments: list[str], says: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*MXGW, "serve", *(argument.replace("{port}", port) for argument in arguments)],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert done.returncode == 1
    assert done.stdout == ""
    assert says.replace("{port}", port) in done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


STUCK = """
import asyncio, contextlib, os, signal, threading, time
from mxgw_core.api import hookimpl

class Plugin:
    @hookimpl
    @contextlib.asynccontextmanager
    async def mxgw_gateway_context(self, gateway):
        threading.Thread(target=time.sleep, args=(600,), name="stuck-thread").start()
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        yield
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)
"""


BLOCKING = """
import contextlib, sys, time
from mxgw_core.api import hookimpl

class Plugin:
    @hookimpl
    @contextlib.asynccontextmanager
    async def mxgw_gateway_context(self, gateway):
        yield
        print("leaving", file=sys.stderr, flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("is_impatient", [False, True], ids=["stop-timeout", "second-signal"])
def test_a_plugin_that_blocks_when_it_is_left_does_not_keep_the_process_from_ending(
    directory: Path, monkeypatch: pytest.MonkeyPatch, is_impatient: bool
) -> None:
    (directory / "stuck.dist-info").mkdir()
    (directory / "stuck.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (directory / "stuck.dist-info" / "entry_points.txt").write_text("[mxgw.plugins]\nstuck = stuck:Plugin\n")
    (directory / "stuck.py").write_text(BLOCKING)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    keys = ("plugins.enabled=stuck", f"plugins.stop_timeout_s={600 if is_impatient else 0.1}")
    with serving(directory, "--listen", "127.0.0.1:0", *(word for key in keys for word in ("--set", key))) as (
        process,
        _,
    ):
        process.send_signal(signal.SIGTERM)
        if is_impatient:
            assert process.stderr is not None
            while "leaving" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)

    if is_impatient:
        assert process.returncode == 128 + signal.SIGTERM
        assert "SIGTERM again: leaving at once." in errors
    else:
        assert process.returncode == 70
        assert "the gateway ends, because plugin stuck (stuck 1.0): mxgw_gateway_context has not returned" in errors


def test_what_a_plugin_leaves_behind_does_not_keep_the_process_from_ending(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "stuck.dist-info").mkdir()
    (directory / "stuck.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (directory / "stuck.dist-info" / "entry_points.txt").write_text("[mxgw.plugins]\nstuck = stuck:Plugin\n")
    (directory / "stuck.py").write_text(STUCK)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    keys = ("plugins.enabled=stuck", "plugins.stop_timeout_s=0.1")
    with serving(directory, "--listen", "127.0.0.1:0", *(word for key in keys for word in ("--set", key))) as (
        process,
        _,
    ):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "plugin stuck (stuck 1.0): mxgw_gateway_context does not end when it is cancelled" in errors
    assert "Leaving without waiting for stuck-thread" in errors
    assert "Traceback" not in errors
