"""`mxgw dashboard` in a real terminal, against a real gateway with real sessions: what an operator types and sees."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.clients import client_of
from support.operators import OperatorsPlugin
from support.plugins import InstallPlugin

from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: run scripts/install_test_services.sh"),
]

PROGRAM = "import sys; from mxgw_dashboard_tui.command import dashboard; dashboard.main(sys.argv[1:], prog_name='mxgw')"

# What the terminal of whoever runs the tests says must not reach the one under test.
_OF_THE_RUNNER = frozenset({"TMUX", "NO_COLOR", "COLORTERM", "COLUMNS", "LINES"})


class Terminal:
    """One tmux session with a server of its own."""

    def __init__(self, socket: Path, columns: int, rows: int, command: list[str], environment: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._run(
            "new-session", "-d", "-x", str(columns), "-y", str(rows), "-s", "t", *command, environment=environment
        )

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, timeout=20, env=environment, check=True
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        self._run("send-keys", "-t", "t", *keys)

    def type(self, text: str) -> None:
        self._run("send-keys", "-t", "t", "-l", text)

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", "t")

    async def until(self, *texts: str, absent: str = "", timeout_s: float = 20.0) -> str:
        """Return the screen once it shows all `texts` and not `absent`."""
        deadline = time.monotonic() + timeout_s
        while True:
            screen = await asyncio.to_thread(lambda: self.screen)
            if all(text in screen for text in texts) and not (absent and absent in screen):
                return screen

            assert time.monotonic() < deadline, f"{texts} did not come:\n{screen}"

            await asyncio.sleep(0.05)

    async def left(self) -> None:
        """Return once the program has ended well and given the terminal back."""
        await self.until("left with 0")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=20, check=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory, for sockets."""
    with tempfile.TemporaryDirectory(prefix="mxgw-tui-", dir="/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def terminal(
    directory: Path, gateway: RunningGateway, *options: str, columns: int = 80, rows: int = 24, no_color: bool = False
) -> AsyncIterator[Terminal]:
    environment = {key: value for key, value in os.environ.items() if key not in _OF_THE_RUNNER}
    environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", **({"NO_COLOR": "1"} if no_color else {})}
    program = shlex.join([sys.executable, "-W", "ignore", "-c", PROGRAM, "--connect", gateway.target, *options])
    command = ["sh", "-c", f"{program}; echo left with $?; exec sleep 60"]
    made = await asyncio.to_thread(
        Terminal, directory / f"tmux-{secrets.token_hex(3)}", columns, rows, command, environment
    )
    try:
        yield made
    finally:
        await asyncio.to_thread(made.close)


async def test_an_operator_logs_in_filters_opens_freezes_closes_and_leaves(
    directory: Path, install_plugin: InstallPlugin
) -> None:
    name = install_plugin("operators", OperatorsPlugin())
    async with (
        running_gateway({"plugins.enabled": [name, "dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        terminal(directory, gateway) as screen,
    ):
        doomed = await client.open(name="tank farm", tag="line1")
        await client.subscribe(doomed.session_id, ["Tank_001.Level"])
        await client.open(name="historian", tag="line2")

        await screen.until("Log in at")
        screen.type("anna")
        screen.press("Enter")
        screen.type("guess")
        screen.press("Enter")
        await screen.until("name or password is wrong")
        screen.type("correct horse")
        screen.press("Enter")
        first = await screen.until("tank farm", "historian", "anna (administrator)", "as of")

        assert "correct horse" not in first

        screen.press("/")
        screen.type("tank")
        await screen.until("/tank", absent="historian")
        screen.press("Enter")
        await screen.until("Filter")  # the input line is gone again
        screen.press("Enter")
        await screen.until("Tank_001.Level", "good", "source good")
        screen.press("Space")
        await screen.until("FROZEN")
        screen.press("Space")
        await screen.until("as of", absent="FROZEN")
        screen.press("C-x")
        await screen.until("Close session tank farm?")
        screen.type("tank farm")
        screen.press("Enter")
        await screen.until("killed by operator")
        screen.press("q")

        await screen.left()
        assert gateway.app.session(doomed.session_id) is None
        assert len(gateway.app.sessions()) == 1


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
async def test_a_viewer_without_colour_sees_everything_and_nothing_wraps(
    directory: Path, columns: int, rows: int
) -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        terminal(directory, gateway, columns=columns, rows=rows, no_color=True) as screen,
    ):
        await client.open(name="[red]line 4[/]", tag="x")
        shown = await screen.until("[red]line 4[/]", "local user (read-only)")
        screen.press("2")
        await screen.until("Sessions 1 of 64")
        screen.press("5")
        await screen.until("you may look, not read the settings")

    lines = shown.rstrip("\n").split("\n")

    assert len(lines) == rows
    assert "Quit" in lines[-1]


async def test_a_gateway_that_goes_is_a_banner_and_one_that_comes_back_is_followed_again(directory: Path) -> None:
    settings = {"plugins.enabled": ["dashboard_tui"], "gateway.drain_timeout_s": 0.2}
    home = directory / "gateway"
    home.mkdir()
    async with running_gateway(settings, directory=home) as gateway:
        made = terminal(directory, gateway)
        screen = await made.__aenter__()
        try:
            await screen.until("No session is open")
        except BaseException:
            await made.__aexit__(None, None, None)
            raise
    try:
        await screen.until("CONNECTION CUT", "old")
        async with running_gateway(settings, directory=home) as again, client_of(again.target) as client:
            await client.open(name="came back")
            await screen.until("came back", absent="CONNECTION CUT")
            screen.press("q")

            await screen.left()
    finally:
        await made.__aexit__(None, None, None)


async def test_a_recording_is_written_and_played_back(directory: Path) -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
    ):
        await client.open(name="on record")
        file = str(directory / "incident.jsonl")
        async with terminal(directory, gateway, "--record", file) as screen:
            await screen.until("on record")
            screen.press("q")

            await screen.left()

        async with terminal(directory, gateway, "--replay", file) as screen:
            await screen.until("on record", "END of the recording")
            screen.press("Enter")
            await screen.until("a recording has the tables of sessions only")
            screen.press("q")

            await screen.left()


async def test_the_first_picture_comes_quickly(directory: Path) -> None:
    """The goal is a second on an idle machine; the bound here leaves room for a busy one."""
    async with running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway:
        began = time.monotonic()
        async with terminal(directory, gateway) as screen:
            await screen.until("No session is open")
            took_s = time.monotonic() - began

    assert took_s < 6


async def test_the_demo_shows_itself_in_the_dashboard_with_one_command(directory: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in _OF_THE_RUNNER}
    program = shlex.join([sys.executable, "-W", "ignore", "-m", "mxgw_core.cli.main", "demo", "--dashboard"])
    command = ["sh", "-c", f"{program}; echo left with $?; exec sleep 60"]
    screen = await asyncio.to_thread(
        Terminal, directory / "tmux", 80, 24, command, {**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    )
    try:
        await screen.until("mxgw demo", "administrator", timeout_s=40)
        screen.press("Enter")
        await screen.until("SteelWorks.RecordTime", "good")
        screen.press("q")
        await screen.left()
    finally:
        await asyncio.to_thread(screen.close)
