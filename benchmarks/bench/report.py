"""Prints results as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.measuring import Figure, Ratio, Result


def show(result: Result, console: Console) -> None:
    """Print the tables of a result."""
    console.rule(f"[bold]{result.title}")
    if result.figures:
        table = Table("circumstance", "system", "figure", *(("median", "lowest", "highest")), box=None, pad_edge=False)
        for column in table.columns[3:]:
            column.justify = "right"
        last = ""
        for figure in result.figures:
            shown = "" if figure.circumstance == last else figure.circumstance
            last = figure.circumstance
            values = (number(value, figure.unit) for value in (figure.median, min(figure.values), max(figure.values)))
            table.add_row(shown, figure.system, words(figure), *values)
        console.print(table)
    if result.ratios:
        table = Table("ratio", "circumstance", "median", "lowest to highest", "goal", "", box=None, pad_edge=False)
        for column in table.columns[2:5]:
            column.justify = "right"
        for ratio in result.ratios:
            table.add_row(
                ratio.what, ratio.circumstance, f"{ratio.median:.3g}", spread(ratio), goal(ratio), outcome(ratio)
            )
        console.print()
        console.print(table)
    for note in result.notes:
        console.print(f"  {note}", style="dim", highlight=False)


def words(figure: Figure) -> str:
    """Return the name of a figure for people."""
    return figure.what.removesuffix("_us").removesuffix("_per_s").replace("_", " ")


def goal(ratio: Ratio) -> str:
    if ratio.goal is None:
        return ""
    return f"{'at most' if ratio.is_limit else 'at least'} {ratio.goal:g}"


def outcome(ratio: Ratio) -> str:
    if ratio.is_noise:
        return "not shown (noise)"
    return {None: "", True: "reached", False: "not reached"}[ratio.is_reached]


def spread(ratio: Ratio) -> str:
    """Return the interval of the median; without one, the lowest and the highest value."""
    if ratio.interval is not None:
        return "95 %: {:.3g} to {:.3g}".format(*ratio.interval)
    return f"{min(ratio.values):.3g} to {max(ratio.values):.3g}"


def number(value: float, unit: str) -> str:
    """Return a figure with its unit, short enough for a table."""
    if unit == "events/s":
        return f"{value / 1e6:.2f} M/s" if value >= 1e5 else f"{value:,.0f} /s"
    if unit == "us":
        return f"{value:,.0f} us"
    if unit in ("ms", "MiB"):
        return f"{value:,.1f} {unit}"
    return f"{value:.3g} {unit}".strip()
