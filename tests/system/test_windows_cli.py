"""The command line on Windows, in Wine: what a newcomer runs first works, and what cannot be is refused in words."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from support import wine
from support.windows_gateway import PATIENT_MXGW, needs_windows

pytestmark = [*needs_windows, pytest.mark.timeout(600)]

# Runs commands in one process, because a start of Python takes long in Wine.
_COMMANDS = """
import json, sys
from click.testing import CliRunner
from mxgw_cli.main import root
done = [CliRunner().invoke(root, line.split()) for line in sys.argv[1:]]
print(json.dumps([[each.exit_code, each.output] for each in done]))
"""


class Shell:
    """Runs programs in a Windows. `directory` is `Z:\\shared` there, and has the directory for temporary files."""

    def __init__(self, windows: wine.Windows, directory: Path) -> None:
        self._windows = windows
        self.temporary = directory / "tmp"
        self.temporary.mkdir()

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs Python there."""
        return self._windows.python(wine.Interpreter.BITS_64, *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python, and return how it ended."""
        return subprocess.run(
            self.command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def mxgw(self, *arguments: str) -> dict[str, object]:
        """Run a command of mxgw that must end well, and return the JSON that it prints."""
        done = self.python("-c", PATIENT_MXGW, *arguments, "--json")

        assert done.returncode == 0, done.stdout + done.stderr
        assert list(self.temporary.iterdir()) == []

        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("shell")
    with wine.Windows(directory) as windows:
        yield Shell(windows, directory)


@pytest.mark.parametrize("backend", ["sim", "opcua"])
def test_the_demo_shows_events_and_loses_none(shell: Shell, backend: str) -> None:
    shown = shell.mxgw("demo", "--seconds", "2", "--backend", backend)

    assert int(str(shown["events"])) > 0
    assert (shown["gaps"], shown["duplicates"], shown["out_of_order"]) == (0, 0, 0)


def test_the_doctor_starts_a_worker_and_finds_the_machine_healthy(shell: Shell) -> None:
    report = shell.mxgw(
        "doctor",
        "--set",
        "gateway.listen=127.0.0.1:0",
        "--set",
        "gateway.data_dir=Z:/shared/d",
        "--set",
        "workers.start_timeout_s=120",
    )

    assert report["healthy"]

    checks = report["checks"]
    assert isinstance(checks, list)
    (backend,) = [check for check in checks if check["area"] == "Backends"]

    assert "worker ready" in backend["detail"]


def test_the_bench_measures_a_gateway_of_its_own(shell: Shell) -> None:
    measured = shell.mxgw("bench", "--private", "--seconds", "1", "--timeout", "300")

    for stream in (measured["paced"], measured["load"]):
        assert isinstance(stream, dict)
        assert stream["events"] > 0


def test_unix_sockets_are_refused_in_words_wherever_an_address_is_given(shell: Shell) -> None:
    lines = [
        "serve --listen unix:/run/mxgw.sock",
        "read --gateway unix:/run/mxgw.sock Tank_001.Level",
        "--set plugins.enabled=dashboard_tui dashboard --connect unix:/run/mxgw.sock",
        "config check --set gateway.listen=unix:/run/mxgw.sock",
        "doctor --no-backends --set gateway.listen=unix:/run/mxgw.sock",
    ]
    done = shell.python("-c", _COMMANDS, *lines)
    answers = json.loads(done.stdout)

    assert [code for code, _ in answers] == [2, 2, 2, 1, 1], done.stderr
    assert [
        line for line, (_, said) in zip(lines, answers, strict=True) if "no Unix sockets on Windows" not in said
    ] == []
    assert "Traceback" not in done.stdout + done.stderr


def test_the_dashboard_refuses_to_start_without_a_terminal_and_the_help_fits_windows(shell: Shell) -> None:
    done = shell.python("-c", _COMMANDS, "--set plugins.enabled=dashboard_tui dashboard", "serve --help")
    (dashboard_code, said), (_, help_text) = json.loads(done.stdout)

    assert (dashboard_code, "needs a terminal" in said) == (1, True), said
    assert "unix:" not in help_text
    assert "C:\\ProgramData\\mxgw\\settings.toml" in help_text


def test_the_dashboard_is_drawn_in_a_browser_and_takes_keys(shell: Shell) -> None:
    # What it starts ends with its Windows, later than a test with an event loop may leave anything.
    asyncio.run(_in_a_browser(shell))


async def _in_a_browser(shell: Shell) -> None:
    command = shell.command("-m", "mxgw_dashboard_tui", "--serve", "--port", "0", "--connect", "127.0.0.1:1")
    serving = subprocess.Popen(  # noqa: ASYNC220  a few milliseconds of a test
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert serving.stdout is not None
    line = await asyncio.to_thread(serving.stdout.readline)
    found = re.search(r"(http://127\.0\.0\.1:\d+)/#key=(\S+)", line)

    assert found, line

    address, key = found.groups()
    headers = {"Origin": address, "Sec-WebSocket-Protocol": f"mxgw.dashboard, mxgw.key.{key}"}
    async with (
        asyncio.timeout(500),
        aiohttp.ClientSession() as browser,
        browser.ws_connect(f"{address}/ws?width=80&height=24", headers=headers) as socket,
    ):
        # It has no gateway, and says so. The help names what no other screen does.
        await _drawn(socket, b"no gateway answers")
        await socket.send_json(["stdin", "?"])
        await _drawn(socket, b"repainting")
    os.kill(wine.child_of(serving.pid), signal.SIGKILL)
    await asyncio.to_thread(serving.communicate)


async def _drawn(socket: aiohttp.ClientWebSocketResponse, text: bytes) -> None:
    """Read what the app draws, until it has drawn the text."""
    drawn = b""
    while text not in drawn:
        message = await socket.receive()

        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), drawn[-400:]

        drawn += message.data if isinstance(message.data, bytes) else message.data.encode()
