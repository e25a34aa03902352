"""The line that filters and commands are typed into."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from textual.widgets import Input
from textual.widgets.input import Selection


class Line(Input):
    """An input that takes a character the moment it is told to, so that the next key finds it there."""

    def __init__(self, entered: Callable[[Line], Awaitable[None]]) -> None:
        # What it is opened with is selected there and then: at the focus, which is told later, it would be what was
        # typed meanwhile.
        super().__init__(id="line", compact=True, select_on_focus=False)
        self._entered = entered

    def open_with(self, value: str) -> None:
        """Offer a value, selected: what is typed takes its place."""
        self.value = value
        self.selection = Selection(0, len(value))

    async def action_submit(self) -> None:
        """Tell at once; a message would come behind the keys that were typed behind this one."""
        await self._entered(self)

    def take(self, character: str | None) -> bool:
        """Insert what a key types; False for keys that do something else."""
        if character is None or not character.isprintable():
            return False
        self._restart_blink()
        if self.selection.is_empty:
            self.insert_text_at_cursor(character)
        else:
            self.replace(character, *self.selection)
        return True
