"""The commands that operators type in the `:` line or choose in textual's palette.

There is one command for each view, and some commands of the app itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from mxgw_dashboard_tui.tui.screens.base import Dashboard
from mxgw_dashboard_tui.tui.views import VIEWS


class Command(NamedTuple):
    """A command: its name, what it does, and shorter names for it."""

    name: str
    meaning: str
    aliases: Sequence[str] = ()


COMMANDS: Sequence[Command] = (
    *(Command(view.name, view.meaning, view.aliases) for view in VIEWS),
    Command("freeze", "Stop or go on with repainting", ("pause",)),
    Command("theme", "Change between dark and light"),
    Command("logout", "End your login, for somebody else to log in"),
    Command("help", "Keys and commands", ("h",)),
    Command("quit", "Leave the dashboard", ("q", "exit")),
)


def names() -> list[str]:
    """Return the names of all commands."""
    return [command.name for command in COMMANDS]


def find(text: str) -> str | None:
    """Return the name of the command that `text` means; None when it means no command, or several commands.

    The text is a name, a shorter name, or the beginning of a name.
    """
    for command in COMMANDS:
        if text == command.name or text in command.aliases:
            return command.name
    fitting = [command.name for command in COMMANDS if text and command.name.startswith(text)]
    return fitting[0] if len(fitting) == 1 else None


class DashboardCommands(Provider):
    """Offers the commands in textual's palette."""

    async def discover(self) -> Hits:
        for command, run in self._runs():
            yield DiscoveryHit(command.name, run, help=command.meaning)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command, run in self._runs():
            if (score := matcher.match(f"{command.name} {command.meaning}")) > 0:
                yield Hit(score, matcher.highlight(command.name), run, help=command.meaning)

    def _runs(self) -> Iterable[tuple[Command, Callable[[], Awaitable[None]]]]:
        app = cast("Dashboard", self.app)
        return [(command, partial(app.run_command, command.name)) for command in COMMANDS]
