"""Commands by name, for the `:` line and for textual's palette."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

if TYPE_CHECKING:
    from mxgw_dashboard_tui.tui.app import DashboardApp

# Name, what it does, and shorter names for it.
COMMANDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("sessions", "All sessions in one table", ("s",)),
    ("overview", "Alarms, rates and losses at a glance", ("o", "alarms", "pulse")),
    ("journal", "What happened since the gateway started", ("j", "audit", "log")),
    ("plugins", "Which plugins run, and which do not", ("p",)),
    ("settings", "The settings as they count (administrators)", ("config",)),
    ("freeze", "Stop or go on with repainting", ("pause",)),
    ("theme", "Change between dark and light", ()),
    ("help", "Keys and commands", ("h",)),
    ("quit", "Leave the dashboard", ("q", "exit")),
)


def names() -> list[str]:
    """Return every name."""
    return [name for name, _, _ in COMMANDS]


def find(text: str) -> str | None:
    """Return the command that `text` names: by its name, a shorter one, or a beginning that fits only one."""
    for name, _, aliases in COMMANDS:
        if text == name or text in aliases:
            return name
    fitting = [name for name, _, _ in COMMANDS if text and name.startswith(text)]
    return fitting[0] if len(fitting) == 1 else None


class DashboardCommands(Provider):
    """The same commands in textual's palette."""

    async def discover(self) -> Hits:
        for name, meaning, run in self._runs():
            yield DiscoveryHit(name, run, help=meaning)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, meaning, run in self._runs():
            if (score := matcher.match(f"{name} {meaning}")) > 0:
                yield Hit(score, matcher.highlight(name), run, help=meaning)

    def _runs(self) -> Iterable[tuple[str, str, Callable[[], None]]]:
        app = cast("DashboardApp", self.app)
        return [(name, meaning, partial(app.run_command, name)) for name, meaning, _ in COMMANDS]
