"""How settings are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mxgw_core.config.effective import EffectiveSetting
from mxgw_core.printable import printable


def settings_table(rows: Sequence[EffectiveSetting]) -> Table:
    """Return one line per setting, a rule between sections; what is not a default stands out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    section = ""
    for row in rows:
        first = row.key.split(".")[0]
        if section and first != section:
            table.add_section()
        section = first
        is_default = row.origin == "default"
        table.add_row(
            Text(printable(row.key, 200), style="" if is_default else "bold"),
            Text(printable(_value(row.value), 400)),
            Text(printable(row.origin, 200), style="dim" if is_default else "cyan"),
        )
    return table


def _value(value: object) -> str:
    # As it would be written in TOML, so that it can be copied.
    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False, default=str)
