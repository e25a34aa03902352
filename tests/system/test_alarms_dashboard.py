"""The dashboard's screen of alarms in a real terminal, with a real gateway and a simulated plant's alarms."""

from __future__ import annotations

import shutil

import pytest
from support.alarms import PRIMARY, UNACK_ALM, alarm_client, settings
from support.terminals import terminal

from mxgw_core.testing import running_gateway

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: run scripts/install_test_services.sh"),
]


async def test_an_administrator_acknowledges_an_alarm_with_a_comment() -> None:
    wanted = {
        **settings(),
        "plugins.enabled": ["alarms", "dashboard_tui"],
        "plugins.dashboard_tui.local_role": "administrator",
    }
    async with (
        running_gateway(wanted) as gateway,
        alarm_client(gateway.target) as client,
        terminal(gateway.target, "--alarm-rows", "10", columns=120, rows=40) as screen,
    ):
        listed = await client.speaking(PRIMARY)
        unacked = sorted(entry.alarm.reference for entry in listed.alarms if entry.alarm.state == UNACK_ALM)
        reference = unacked[0]
        await screen.until("as of")
        screen.press("7")
        await screen.until("the alarm manager reports", "more that are not shown")
        screen.press("/")
        screen.type(reference)
        screen.press("Enter")
        await screen.until(f"/{reference}", "▲ UNACKED", absent="more that are not shown")
        screen.press("a")
        await screen.until("Acknowledge this alarm?", reference)
        screen.type("pump is on its way")
        screen.press("Enter")
        await screen.until("✓ acknowledged", "✓ acked", absent="▲ UNACKED")
        screen.press("q")

        await screen.left()
        after = await client.query(reference_prefixes=[reference])

    (alarm,) = [entry.alarm for entry in after.alarms if entry.alarm.reference == reference]

    assert alarm.comment == "pump is on its way"
    assert alarm.operator


async def test_a_viewer_is_refused_plainly_and_a_gateway_without_the_plugin_is_called_so() -> None:
    wanted = {**settings(), "plugins.enabled": ["alarms", "dashboard_tui"]}
    async with running_gateway(wanted) as gateway, terminal(gateway.target) as screen:
        await screen.until("as of")
        screen.press("7")
        await screen.until("▲ UNACKED")
        screen.press("a")
        await screen.until("you may look, not acknowledge")
    async with running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway, terminal(gateway.target) as screen:
        await screen.until("as of")
        screen.press("7")
        await screen.until("Alarms are not enabled on this gateway")
