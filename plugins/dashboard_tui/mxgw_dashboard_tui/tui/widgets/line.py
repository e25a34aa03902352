"""The input line for filters and commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from textual.widgets import Input
from textual.widgets.input import Selection


class Line(Input):
    """An input that inserts a character at once, so that the next key finds it there."""

    def __init__(self, entered: Callable[[Line], Awaitable[None]]) -> None:
        # The value is selected at once. Selecting it at the focus event, which arrives later, would select what was
        # typed meanwhile.
        super().__init__(id="line", compact=True, select_on_focus=False)
        self._entered = entered

    def open_with(self, value: str) -> None:
        """Show a value, selected, so that typing replaces it."""
        self.value = value
        self.selection = Selection(0, len(value))

    async def action_submit(self) -> None:
        """Submit at once; a message would arrive after keys that were typed later."""
        await self._entered(self)

    def take(self, character: str | None) -> bool:
        """Insert the character of a key; return False for keys that do something else."""
        if character is None or not character.isprintable():
            return False
        self._restart_blink()
        if self.selection.is_empty:
            self.insert_text_at_cursor(character)
        else:
            self.replace(character, *self.selection)
        return True
