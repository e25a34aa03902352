"""The help: lists the keys of the screen from which it was opened, and all commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

_LEGEND = """\
States, worst first: FAULTED, SILENT (its worker does not answer), SRC LOST (the source is away: values are stale),
SRC DEGR, ADOPTING, detached (nobody reads its events), starting, ready.
Lag counts events that the slowest subscriber has not taken. Gaps and Lost count what was reported to
subscribers as lost, without events that were conflated for a subscriber. Events per second are the worker's, read or
not."""


class HelpScreen(ModalScreen[None]):
    """Shows keys, commands, and what the columns of the tables mean."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Back", id="help.back", tooltip="Back to where you were"),
    ]

    def __init__(self, bindings: Iterable[Binding], commands: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._bindings_shown = list(bindings)
        self._commands = list(commands)

    def compose(self) -> ComposeResult:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        keys: dict[str, list[str]] = {}
        # The keys that move the cursor are last in the list, because everybody tries the arrow keys anyway.
        for binding in sorted(self._bindings_shown, key=lambda binding: (binding.id or "").startswith("grid.")):
            keys.setdefault(binding.tooltip or binding.description, []).append(_NAMES.get(binding.key, binding.key))
        for meaning, names in keys.items():
            table.add_row(Text("  ".join(names), style="bold"), Text(meaning))
        commands = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for name, meaning in self._commands:
            commands.add_row(Text(f":{name}", style="bold"), Text(meaning))
        with VerticalScroll(id="help"):
            yield Static(Text("Keys", style="bold underline"))
            yield Static(table)
            yield Static(Text("\nCommands", style="bold underline"))
            yield Static(commands)
            yield Static(Text("\nWhat the columns say", style="bold underline"))
            yield Static(Text(_LEGEND))


_NAMES = {
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "comma": ",",
    "full_stop": ".",
}
