"""A plot over time in block characters: as wide as its widget, a few lines high, with its scale in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text
from textual.widgets import Static

_BLOCKS = " ▁▂▃▄▅▆▇█"


class Plot(Static):
    """One series; the newest value is at the right edge."""

    def show(self, title: str, values: Sequence[float], unit: Callable[[float], str]) -> None:
        """Repaint."""
        width, height = self.size.width, max(1, self.size.height - 1)
        shown = list(values)[-width:]
        newest = unit(shown[-1]) if shown else "-"
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(title, style="bold")
        head.append(f" {newest}")
        if shown:
            head.append(f"  top {unit(max(shown))}")
        picture = Text("\n", no_wrap=True, overflow="ellipsis").join([head, *map(Text, bars(shown, width, height))])
        self.update(picture)


def bars(values: Sequence[float], width: int, height: int) -> list[str]:
    """Return `height` lines of bars between 0 and the largest value, the top line first."""
    top = max(values, default=0.0)
    eighths = [round(value / top * height * 8) if top > 0 else 0 for value in values]
    lines = []
    for level in range(height - 1, -1, -1):
        cells = [_BLOCKS[max(0, min(8, eighth - level * 8))] for eighth in eighths]
        if level == 0:
            cells = ["▁" if cell == " " else cell for cell in cells]
        lines.append("".join(cells).rjust(width))
    return lines
