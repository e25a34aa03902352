"""`mxgw dashboard` in a real terminal, against a real gateway with real sessions: what an operator types and sees."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients import client_of
from support.operators import OperatorsPlugin
from support.plugins import InstallPlugin
from support.restarts import restarts
from support.terminals import running, terminal

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.testing import running_gateway

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: run scripts/install_test_services.sh"),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory, for sockets."""
    with tempfile.TemporaryDirectory(prefix="mxgw-tui-", dir="/tmp") as name:
        yield Path(name)


async def test_an_operator_logs_in_filters_opens_freezes_closes_and_leaves(install_plugin: InstallPlugin) -> None:
    name = install_plugin("operators", OperatorsPlugin())
    async with (
        running_gateway({"plugins.enabled": [name, "dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        terminal(gateway.target) as screen,
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
        screen.press("Enter", "Enter")  # in one read of the terminal: the filter is kept, and the session opened
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
        assert gateway.api.session(doomed.session_id) is None
        assert len(gateway.api.sessions()) == 1


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
async def test_a_viewer_without_colour_sees_everything_and_nothing_wraps(columns: int, rows: int) -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        terminal(gateway.target, columns=columns, rows=rows, no_color=True) as screen,
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
        made = terminal(gateway.target)
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


async def test_a_session_that_outlives_its_gateway_goes_on_where_it_is_looked_at() -> None:
    settings = """
    [plugins]
    enabled = ["reattach", "dashboard_tui"]
    """
    async with restarts(settings) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client, terminal(gateway.target) as screen:
            session = await client.open(name="steady")
            await client.subscribe(session.session_id, ["Tank_001.Level"])
            await screen.until("steady")
            screen.press("Enter")
            await screen.until("Tank_001.Level", "good")
            screen.press("e")
            before = await screen.until("[e events", "data")
            await gateway.kill()
            await screen.until("CONNECTION CUT", timeout_s=10)
            await gateway.start()
            newest = max(sequences(before))
            screen_text = await screen.until("[e events", absent="CONNECTION CUT")
            async with asyncio.timeout(60):
                while max(sequences(screen_text), default=0) <= newest:
                    screen_text = await screen.until("[e events")
            screen.press("q")
            await screen.left()


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
async def test_what_peers_write_cannot_break_or_restyle_the_screen(columns: int, rows: int) -> None:
    hostile = "[reverse]\x1b]0;owned\x07\x1b[2J\x1b[31m\r\n\u202e" + "y" * 10_000
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        terminal(gateway.target, columns=columns, rows=rows) as screen,
    ):
        session = await client.open(name="[bold]" + "n" * 100, tag="[/]" + "t" * 60)
        handles = await client.subscribe(session.session_id, ["Bench_001.Text", "Tank_001.Level"])
        table = await screen.until("[bold]nnn", "as of")
        screen.press("Enter")
        await screen.until("Bench_001.Text", "Tank_001.Level", "good")
        write = c.WriteCommand(server_handle=1, item_handle=handles[0], value=MxValue(string=hostile))
        await client.invoke(session.session_id, write=write)
        items = await screen.until("[reverse]\N{REPLACEMENT CHARACTER}]0;", "Tank_001.Level")
        screen.press("e")
        await screen.until("[e events")
        # The log goes on: without a filter the event leaves the screen within seconds.
        screen.press("/")
        screen.type("]0;")
        screen.press("Enter")
        events = await screen.until("[e events", "[reverse]\N{REPLACEMENT CHARACTER}]0;", "Quit", absent="Tank_001")
        styled = screen.styled_line("[reverse]")
        title = screen.title
        screen.press("q")
        await screen.left()

    for shown in (table, items, events):
        lines = shown.rstrip("\n").split("\n")

        assert len(lines) == rows
        assert lines[0].startswith("mxgw session")
        assert "Quit" in lines[-1]
    assert "owned" not in title
    assert "\x1b[7m" not in styled  # what [reverse] would have looked like
    assert "\x1b[31m" not in styled


def sequences(screen: str) -> list[int]:
    """Return the numbers of the events that the log shows."""
    return [int(number) for number in re.findall(r"^[> ] \d\d:\d\d:\d\d\.\d{3} +(\d+) data", screen, re.MULTILINE)]


async def test_a_recording_is_written_and_played_back(directory: Path) -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
    ):
        await client.open(name="on record")
        file = str(directory / "incident.jsonl")
        async with terminal(gateway.target, "--record", file) as screen:
            await screen.until("on record")
            screen.press("q")

            await screen.left()

        async with terminal(gateway.target, "--replay", file) as screen:
            await screen.until("on record", "END of the recording")
            screen.press("Enter")
            await screen.until("a recording has the tables of sessions only")
            screen.press("q")

            await screen.left()


async def test_the_demo_shows_itself_in_the_dashboard_with_one_command() -> None:
    program = [sys.executable, "-W", "ignore", "-m", "mxgw_cli", "demo", "--dashboard"]
    async with running(program) as screen:
        await screen.until("mxgw demo", "administrator", timeout_s=40)
        screen.press("Enter")
        await screen.until("SteelWorks.RecordTime", "good")
        screen.press("q")
        await screen.left()
