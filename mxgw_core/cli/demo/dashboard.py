"""The demo in the operator's dashboard: the plugin's command in front, and beside it a client that follows events."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence

import mxgw_client
from mxgw_client import errors
from mxgw_core.cli.demo.children import clean_environment
from mxgw_core.cli.demo.feed import tags_to_show
from mxgw_core.cli.demo.options import DemoOptions
from mxgw_core.cli.failures import CliFailure
from mxgw_core.cli.terminal import is_live

PLUGIN = "dashboard_tui"


def needs_a_terminal() -> None:
    """Make sure that there is something to show a dashboard on, and with.

    Raises:
        CliFailure: there is not.
    """
    if not is_live() or not sys.stdin.isatty():
        raise CliFailure("--dashboard needs a terminal to show itself on")
    if importlib.util.find_spec("textual") is None:
        raise CliFailure("--dashboard needs textual, which is not installed", hint="pip install 'mxgw[dashboard]'")


async def show_dashboard(session: mxgw_client.Session, options: DemoOptions, target: str) -> None:
    """Subscribe, and show the dashboard until the operator leaves it.

    Raises:
        CliFailure: the dashboard could not be shown.
    """
    tags = await tags_to_show(session, options)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(_follow(session, tags), name="demo:events")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mxgw_core.cli.main", "dashboard", "--connect", target),
                # The command is the plugin's, and there only where the settings enable it.
                env={**clean_environment(), "MXGW_PLUGINS__ENABLED": PLUGIN, "PYTHONWARNINGS": "ignore"},
            )
            code = await process.wait()
        finally:
            following.cancel()
    if code:
        raise CliFailure(f"the dashboard ended with exit code {code}")


async def _follow(session: mxgw_client.Session, tags: Sequence[str]) -> None:
    """Be the client whose session there is to see; an operator may well end it."""
    try:
        await session.subscribe_bulk(tags)
        async for _ in session.events():
            pass
    except errors.MxgwClientError:
        return
