"""The input line in which an operator types a filter or a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from textual.widgets import Input
from textual.widgets.input import Selection


class Line(Input):
    """An input that handles each key completely before the next key is handled, however quickly keys are typed."""

    def __init__(self, entered: Callable[[Line], Awaitable[None]]) -> None:
        # `open_with` selects the value. Textual would select it at the focus event, which arrives later, and would then
        # also select characters that were typed meanwhile.
        super().__init__(id="line", compact=True, select_on_focus=False)
        self._entered = entered

    def open_with(self, value: str) -> None:
        """Show a value and select it, so that the next typed character replaces it."""
        self.value = value
        self.selection = Selection(0, len(value))

    async def action_submit(self) -> None:
        """Call `entered` directly. Textual's message would arrive after keys that were typed later."""
        await self._entered(self)

    def take(self, character: str | None) -> bool:
        """Insert the character of a key; return False when the key has no printable character."""
        if character is None or not character.isprintable():
            return False
        self._restart_blink()
        if self.selection.is_empty:
            self.insert_text_at_cursor(character)
        else:
            self.replace(character, *self.selection)
        return True
