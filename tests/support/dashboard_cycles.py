"""Runs a dashboard without a terminal, with a simulated operator who repeats the same round of actions.

    python dashboard_cycles.py TARGET ROUNDS

After each round it prints how many objects the dashboard holds. It is a separate program, so that its memory can be
measured alone. In a round the operator opens every view, sets filters, opens a session, opens its panels and leaves it,
and returns to the table.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import psutil
from textual.widget import Widget

from mxgw_dashboard_tui.tui.app import DashboardApp
from mxgw_dashboard_tui.tui.connection import Connection, Target
from mxgw_dashboard_tui.tui.screens.help import HelpScreen
from mxgw_dashboard_tui.tui.screens.session import SessionScreen
from mxgw_dashboard_tui.tui.views import VIEWS

INTERVAL_S = 0.25
PANELS = ("i", "e", "u", "m", "t")


async def press(pilot: Any, *keys: str) -> None:
    """Press keys as a terminal does, without waiting for their effect."""
    for key in keys:
        pilot.app.simulate_key(key)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.04)


async def shown(condition: Callable[[], object]) -> None:
    """Wait until the screen meets the condition."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is on a screen announces nothing
            await asyncio.sleep(0.01)


async def one_round(pilot: Any) -> None:
    """Carry out one round of actions."""
    app = pilot.app
    for number in (*range(2, len(VIEWS) + 1), 1):
        view = VIEWS[number - 1]
        await press(pilot, str(number))
        await shown(lambda view=view: type(app.screen) is view.screen)  # type: ignore[misc]
    await press(pilot, "slash", *"steady", "enter")
    await shown(lambda: app.screen.grid.pattern == "steady")
    await press(pilot, "enter")
    await shown(lambda: isinstance(app.screen, SessionScreen) and app.screen.model.detail is not None)
    for panel in PANELS:
        await press(pilot, panel)
    await press(pilot, "question_mark")
    await shown(lambda: isinstance(app.screen, HelpScreen))
    await press(pilot, "escape")
    await shown(lambda: isinstance(app.screen, SessionScreen))
    await press(pilot, "escape", "escape")
    await shown(lambda: type(app.screen) is VIEWS[0].screen and not app.screen.grid.pattern)
    # Wait until the streams of the session that was left have ended.
    await pilot.pause(2 * INTERVAL_S)


def held(app: DashboardApp) -> dict[str, int]:
    """Return the memory of the process, and the numbers of objects that the app holds while nothing happens."""
    gc.collect()
    return {
        "rss_bytes": psutil.Process().memory_info().rss,
        "tasks": len(asyncio.all_tasks()),
        "workers": len(list(app.workers)),
        "mounted": len(app._registry),
        # Count all widgets in memory, also widgets that are no longer on a screen.
        "widgets": sum(isinstance(each, Widget) for each in gc.get_objects()),
    }


async def main(target: str, rounds: int) -> None:
    source = Connection(Target(target), INTERVAL_S)
    app = DashboardApp(source)
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(lambda: app.showing.view is not None and app.showing.view.sessions)
        for _ in range(rounds):
            await one_round(pilot)
            sys.stdout.write(json.dumps(held(app)) + "\n")
            sys.stdout.flush()
    await source.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
