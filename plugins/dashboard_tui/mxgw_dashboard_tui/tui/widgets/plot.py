"""A plot over time in block characters, as wide as its widget and a few lines high.

The line of text above the plot says which value has the full height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text
from textual.widgets import Static

from mxgw_dashboard_tui.tui.text import span

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HEAD_LINES = 2


class Plot(Static):
    """Plots one series of values. The whole series fits into the width, and the newest value is at the right edge."""

    _shown: tuple[str, Sequence[float], Callable[[float], str], float, int] | None = None

    def show(self, title: str, values: Sequence[float], unit: Callable[[float], str], past_s: float, gone: int) -> None:
        """Paint the plot.

        `values` are evenly spaced over the last `past_s` seconds. `gone` is how many older values the caller has
        dropped.
        """
        self._shown = title, values, unit, past_s, gone
        if not self.size:
            return
        shown = squeezed(values, self.size.width, gone)
        newest = unit(values[-1]) if values else "-"
        head = Text.assemble((title, "bold"), f" {newest}", no_wrap=True, overflow="ellipsis")
        scale = Text(
            f"max {unit(max(values))} in {span(past_s)}" if values else "", "dim", no_wrap=True, overflow="ellipsis"
        )
        lines = bars(shown, self.size.width, max(1, self.size.height - _HEAD_LINES))
        picture = Text("\n", no_wrap=True, overflow="ellipsis").join([head, scale, *map(Text, lines)])
        self.update(picture, layout=False)

    def clear(self) -> None:
        """Empty the plot."""
        self._shown = None
        self.update("", layout=False)

    def on_resize(self) -> None:
        if self._shown is not None:
            self.show(*self._shown)


def squeezed(values: Sequence[float], width: int, gone: int = 0) -> list[float]:
    """Divide the values into at most `width` groups of neighbours, and return the largest value of each group.

    The first and the last group can be incomplete. The borders of the groups are counted from the first value of all,
    which was perhaps among the `gone` dropped values. Therefore a value stays in the same group when new values arrive,
    and the group's column only moves to the left.
    """
    # The groups are made so large that one column is left over, because the first group can be incomplete.
    run = max(1, -(-len(values) // max(1, width - 1)))
    starts = range(-(gone % run), len(values), run)
    return [max(values[max(0, start) : start + run]) for start in starts]


def bars(values: Sequence[float], width: int, height: int) -> list[str]:
    """Return the bars as `height` lines of text, the top line first. The largest value has the full height."""
    top = max(values, default=0.0)
    eighths = [round(value / top * height * 8) if top > 0 else 0 for value in values]
    lines = []
    for level in range(height - 1, -1, -1):
        cells = [_BLOCKS[max(0, min(8, eighth - level * 8))] for eighth in eighths]
        if level == 0:
            cells = ["▁" if cell == " " else cell for cell in cells]
        lines.append("".join(cells).rjust(width))
    return lines
