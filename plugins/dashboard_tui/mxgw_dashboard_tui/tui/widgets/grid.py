"""The table widget of the dashboard. Its cursor, order and filter stay as they are while its rows change.

Textual's DataTable keeps an object per cell, and computes the layout again after each change. `Grid` makes a line from
the text of a row only when it draws the line, and draws only lines that changed, so that little is sent over a slow ssh
connection. Text is drawn without interpreting markup, because it can come from clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf.message import Message as ProtoMessage
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mxgw_core.api import LONGEST_MIDDLE, Globs

_GAP = 1
_GUTTER = 2
# The columns are divided into pages (see `Grid._pages`). This many columns, the first ones, are on every page.
_FIXED = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    `width` is the smallest width. The columns share the rest of the screen's width in proportion to `grow`. On a narrow
    screen the columns with the largest `drop` are hidden first.
    """

    key: str
    title: str
    width: int
    right: bool = False
    grow: int = 0
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. `tone` is good, warn, bad, dim or accent. `order` is the sort key; None means to sort by `text`."""

    text: str
    tone: str = ""
    order: float | str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `key` identifies the object that the row is about, for example a session.

    `document` is the message that is copied or exported as JSON; when it is None, the text of the cells is used. Rows
    whose `sinks` is True are always below all other rows, however the table is sorted.
    """

    key: str
    cells: Mapping[str, Cell]
    document: ProtoMessage | None = None
    sinks: bool = False

    @property
    def text(self) -> str:
        return " ".join(cell.text for cell in self.cells.values())


class Grid(ScrollView, can_focus=True):
    """A table with a header; it shows the text `empty` when it has no rows."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--header",
        "grid--cursor",
        "grid--good",
        "grid--warn",
        "grid--bad",
        "grid--dim",
        "grid--accent",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="grid.up", tooltip="One row up"),
        Binding("down,j", "move(1)", "Down", show=False, id="grid.down", tooltip="One row down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="grid.page_up", tooltip="One page up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="grid.page_down", tooltip="One page down"),
        Binding("home,g", "edge(-1)", "First", show=False, id="grid.first", tooltip="To the first row"),
        Binding("end,G", "edge(1)", "Last", show=False, id="grid.last", tooltip="To the last row"),
        Binding("right", "columns(1)", "More", show=False, id="grid.right", tooltip="Columns that have no room"),
        Binding("left", "columns(-1)", "Less", show=False, id="grid.left", tooltip="Back to the columns before"),
    ]

    class Chosen(Message):
        """The operator clicked on the row at the cursor."""

        def __init__(self, grid: Grid, row: Row) -> None:
            super().__init__()
            self.grid = grid
            self.row = row

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str,
        sort: str = "",
        reverse: bool = False,
        follow: bool = False,
        limit: int | None = None,
        id: str | None = None,  # noqa: A002 - textual's name of this parameter
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.empty = empty
        self.sort_key = sort
        self.reverse = reverse
        # Whether a cursor that is on the last row moves to each new last row. This is useful for a table of events.
        self.follow = follow
        # The largest number of rows; None for no limit. Rows that match the filter and are beyond the limit are counted
        # in `left_out`.
        self._limit = limit
        self.left_out = 0
        self._all: tuple[Row, ...] = ()
        self.rows: tuple[Row, ...] = ()
        self.cursor = 0
        self._pattern = ""
        self._matcher: Globs | None = None
        self._inverse = False
        self._drawn: tuple[Row, ...] = ()
        # The index of the page of columns that is shown (see `_pages`).
        self._page = 0

    # The following methods set the rows, the filter and the order of the rows.

    def set_rows(self, rows: Iterable[Row]) -> None:
        """Replace all rows. The cursor stays on the row that has the same key as before."""
        self._all = tuple(rows)
        self._arrange()

    @property
    def current(self) -> Row | None:
        """The row at the cursor; None when there are no rows."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    @property
    def in_sight(self) -> Sequence[Row]:
        """The rows that are visible at the present scroll position."""
        top = self.scroll_offset.y
        return self.rows[top : top + max(0, self.size.height - 1)]

    @property
    def is_at_end(self) -> bool:
        """Whether the cursor is on the last row."""
        return self.cursor >= len(self.rows) - 1

    @property
    def total(self) -> int:
        """How many rows the table has, including rows that the filter hides."""
        return len(self._all)

    @property
    def pattern(self) -> str:
        return self._pattern

    def filter(self, pattern: str) -> None:
        """Show only rows that contain the pattern. Upper and lower case make no difference.

        In the pattern `*` means any characters and `?` means one character. A pattern that begins with `!` shows only
        the rows that do not contain the rest of the pattern. An empty pattern shows all rows.
        """
        inverse = pattern.startswith("!")
        text = pattern[1:] if inverse else pattern
        # What is beyond the limit of a pattern would hardly be typed; it is left out, so that typing goes on.
        self._matcher = Globs([f"*{text.casefold()[: LONGEST_MIDDLE - 2]}*"]) if text else None
        self._pattern, self._inverse = (pattern if text else ""), inverse
        self._arrange()

    def sort(self, key: str, *, reverse: bool | None = None) -> None:
        """Sort by a column. When `reverse` is None, sorting by the present sort column again reverses the order."""
        self.reverse = (not self.reverse if key == self.sort_key else False) if reverse is None else reverse
        self.sort_key = key
        self._arrange()
        self.refresh()

    def sort_next(self, step: int) -> str:
        """Sort by the column that is `step` columns to the right of the present sort column; return its title."""
        keys = [column.key for column in self.shown_columns()]
        index = (keys.index(self.sort_key) + step) % len(keys) if self.sort_key in keys else 0
        self.sort(keys[index], reverse=self.reverse)
        return next(column.title for column in self.columns if column.key == keys[index])

    def _arrange(self) -> None:
        key = self.current.key if self.current is not None else None
        was_last = self.is_at_end
        rows = [row for row in self._all if self._passes(row)]
        if self.sort_key:
            rows.sort(key=lambda row: _order(row.cells.get(self.sort_key)), reverse=self.reverse)
            rows.sort(key=lambda row: row.sinks)
        self.left_out = len(rows) - len(rows[: self._limit])
        rows = rows[: self._limit]
        self.rows = tuple(rows)
        if self.follow and was_last:
            self.cursor = len(rows) - 1
        elif key is not None:
            self.cursor = next((i for i, row in enumerate(rows) if row.key == key), self.cursor)
        self.cursor = max(0, min(self.cursor, len(rows) - 1))
        self._resize()
        self._scroll_to_cursor()
        self._redraw()

    def _passes(self, row: Row) -> bool:
        return self._matcher is None or self._matcher.match(row.text) != self._inverse

    def _resize(self) -> None:
        size = Size(self.size.width, len(self.rows) + 1)
        if size != self.virtual_size:
            self.virtual_size = size

    def _redraw(self) -> None:
        """Draw only the lines that changed; draw all lines when their number changed."""
        top = self.scroll_offset.y
        shown = self.rows[top : top + max(0, self.size.height - 1)]
        if len(shown) != len(self._drawn):
            self.refresh()
        else:
            changed = [y for y, (new, old) in enumerate(zip(shown, self._drawn, strict=True)) if new.cells != old.cells]
            if changed:
                self.refresh(*[Region(0, y + 1, self.size.width, 1) for y in changed])
        self._drawn = shown

    # The following methods move the cursor.

    def action_move(self, step: int) -> None:
        self._go(self.cursor + step)

    def action_page(self, step: int) -> None:
        self._go(self.cursor + step * max(1, self.size.height - 2))

    def action_edge(self, step: int) -> None:
        self._go(0 if step < 0 else len(self.rows) - 1)

    def _go(self, index: int) -> None:
        before, top = self.cursor, self.scroll_offset.y
        self.cursor = max(0, min(index, len(self.rows) - 1))
        self._scroll_to_cursor()
        if self.scroll_offset.y == top:
            self.refresh(*[Region(0, at - top + 1, self.size.width, 1) for at in {before, self.cursor}])
        else:
            self.refresh()

    def action_columns(self, step: int) -> None:
        self._page = max(0, min(self._shown_page + step, len(self._pages()) - 1))
        self.refresh()

    def _scroll_to_cursor(self) -> None:
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self.cursor < top:
            top = self.cursor
        elif self.cursor >= top + height:
            top = self.cursor - height + 1
        top = max(0, min(top, len(self.rows) - height)) if len(self.rows) > height else 0
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, force=True, immediate=True)

    def on_resize(self) -> None:
        self._resize()
        self._scroll_to_cursor()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._sort_at(event.x)
        else:
            index = self.scroll_offset.y + event.y - 1
            if index == self.cursor and self.current is not None:
                self.post_message(self.Chosen(self, self.current))
            elif index < len(self.rows):
                self._go(index)

    def _sort_at(self, x: int) -> None:
        left = _GUTTER
        for column, width in self._layout():
            if left <= x < left + width + _GAP:
                self.sort(column.key)
                return
            left += width + _GAP

    # The following methods draw the lines of the table.

    def shown_columns(self) -> list[Column]:
        """Return the columns on the present page."""
        return [column for column, _ in self._layout()]

    @property
    def _shown_page(self) -> int:
        return min(self._page, len(self._pages()) - 1)

    def _pages(self) -> list[list[Column]]:
        """Divide the columns into pages that fit the width.

        The first page has the most important columns. Each further page has the first `_FIXED` columns, and some of the
        columns that were not on an earlier page.
        """
        room = self.size.width - _GUTTER
        first = list(self.columns)
        while len(first) > 1 and _width(first) > room - (_GUTTER if len(first) < len(self.columns) else 0):
            first.remove(max(first, key=lambda column: column.drop))
        pages = [first]
        fixed = list(self.columns[:_FIXED])
        for column in self.columns:
            if column in first or column in fixed:
                continue
            if len(pages) == 1 or _width([*pages[-1], column]) > room - _GUTTER:
                pages.append(list(fixed))
            pages[-1].append(column)
        return pages

    def _layout(self) -> list[tuple[Column, int]]:
        pages = self._pages()
        shown = pages[min(self._page, len(pages) - 1)]
        # When there are several pages, the header has arrows to the other pages, which need room.
        left = self.size.width - _GUTTER - _width(shown) - (_GUTTER if len(pages) > 1 else 0)
        shares = sum(c.grow for c in shown)
        widths = [c.width + (max(0, left) * c.grow // shares if shares else 0) for c in shown]
        return list(zip(shown, widths, strict=True))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._header(width)
        index = self.scroll_offset.y + y - 1
        if not self.rows and y == 1:
            text = self.empty if not self._all else f"none of {len(self._all)} rows matches {self._pattern!r}"
            return Strip([Segment(set_cell_size(f"  {text}", width), self._style("grid--dim"))], width)
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        return self._line(self.rows[index], width, is_cursor=index == self.cursor)

    def _header(self, width: int) -> Strip:
        style = self._style("grid--header")
        parts = [" " * _GUTTER]
        for column, room in self._layout():
            marker = ("▼" if self.reverse else "▲") if column.key == self.sort_key else ""
            parts.append(_fit(column.title + marker, room, right=column.right) + " " * _GAP)
        page, last = self._shown_page, len(self._pages()) - 1
        more = ("◂" if page else " ") + ("▸" if page < last else " ") if last else ""
        return Strip([Segment(set_cell_size("".join(parts), width - len(more)) + more, style)], width)

    def _line(self, row: Row, width: int, *, is_cursor: bool) -> Strip:
        base = self._style("grid--cursor") if is_cursor and self.has_focus else self.rich_style
        segments = [Segment(("> " if is_cursor else "  "), base)]
        used = _GUTTER
        for column, room in self._layout():
            cell = row.cells.get(column.key, Cell(""))
            style = base + self._tone(cell.tone) if cell.tone and not (is_cursor and self.has_focus) else base
            text = _fit(cell.text, room, right=column.right)
            segments.append(Segment(text, style))
            segments.append(Segment(" " * _GAP, base))
            used += room + _GAP
        if used < width:
            segments.append(Segment(" " * (width - used), base))
        return Strip(segments).crop(0, width)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    def _tone(self, tone: str) -> Style:
        return self.get_component_rich_style(f"grid--{tone}", partial=True)


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def _fit(text: str, width: int, *, right: bool) -> str:
    """Return `text` in exactly `width` cells of the terminal; a text that is too long is cut and ends with "…"."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(0, width - 1)) + "…" if width else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def _order(cell: Cell | None) -> tuple[bool, float, str]:
    if cell is None:
        return (True, 0.0, "")
    match cell.order:
        case None:
            return (False, 0.0, cell.text.lower())
        case str():
            return (False, 0.0, cell.order.lower())
        case number:
            return (False, float(number), "")
