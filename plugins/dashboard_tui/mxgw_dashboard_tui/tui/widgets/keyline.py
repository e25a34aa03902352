"""The line at the bottom of a screen, which shows the keys that work on this screen now.

Textual's Footer makes a new widget per key whenever a binding changes. The old widgets stay in memory (in textual 8.2
they stay registered with the footer), so an app that is open for weeks would use more and more memory.
"""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.screen import Screen
from textual.widgets import Static


class KeyLine(Static):
    """Shows the key and the description of each visible binding, in the order of the bindings."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"keyline--key"}

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._show)
        self._show(self.screen)

    def _show(self, screen: Screen[object]) -> None:
        key_style = self.get_component_rich_style("keyline--key", partial=True)
        keys: dict[str, Text] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled:
                key = Text(self.app.get_key_display(binding), key_style)
                keys.setdefault(binding.action, Text.assemble(key, f" {binding.description}"))
        line = Text("  ").join(keys.values())
        if line.cell_len > self.size.width > 0:
            line = Text(" ").join(keys.values())
        line.no_wrap, line.overflow = True, "ellipsis"
        self.update(line, layout=False)

    def on_resize(self) -> None:
        self._show(self.screen)
