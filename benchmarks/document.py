"""Write the tables and plots of docs/performance.md from the results in benchmarks/results.

python benchmarks/run.py --output benchmarks/results     measures, and writes the results
python benchmarks/document.py                            writes the page from the results
python benchmarks/document.py --check                    fails when the page does not show the results
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from bench.measuring import Result, result_from_json
from bench.plots import draw
from bench.registry import CASES
from bench.report import goal, number, outcome, spread, words

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
IMAGES = HERE.parent / "docs" / "images"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def kept_results() -> dict[str, Result]:
    """Return the stored results, in the order of the cases."""
    paths = {name: RESULTS / f"{name}.json" for name in CASES}
    return {name: result_from_json(json.loads(path.read_text())) for name, path in paths.items() if path.exists()}


def goals_table(results: dict[str, Result]) -> list[str]:
    """Return the lines of a table with every ratio that has a goal."""
    lines = ["| figure | where | measured (lowest to highest) | goal | |", "|---|---|---|---|---|"]
    for result in results.values():
        for ratio in result.ratios:
            if ratio.goal is not None:
                measured = f"**{ratio.median:.3g}** ({spread(ratio)})"
                lines.append(f"| {ratio.what} | {ratio.circumstance} | {measured} | {goal(ratio)} | {outcome(ratio)} |")
    return lines


def _in_order(circumstance: str) -> list[str]:
    """Return a sort key that places N=8 before N=32."""
    return [part.zfill(6) if part.isdigit() else part for part in re.split(r"(\d+)", circumstance)]


def case_tables(result: Result) -> list[str]:
    """Return the tables with the figures of a case. Each line has one circumstance and one system."""
    figures = sorted(result.figures, key=lambda figure: _in_order(figure.circumstance))
    kinds = list(dict.fromkeys((figure.what, words(figure)) for figure in figures))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        values = (number(value, figure.unit) for value in (figure.median, min(figure.values), max(figure.values)))
        cell = "{} ({} to {})".format(*values)
        rows.setdefault((figure.circumstance, figure.system), {})[figure.what] = cell
    lines = ["| where | system |" + "".join(f" {word} |" for _, word in kinds), "|---|---|" + "---|" * len(kinds)]
    for (circumstance, system), cells in rows.items():
        lines.append(f"| {circumstance} | {system} |" + "".join(f" {cells.get(what, '')} |" for what, _ in kinds))
    return lines


def section(results: dict[str, Result]) -> str:
    """Return the generated part of the page."""
    lines = ["## Goals", "", *goals_table(results), ""]
    for name, result in results.items():
        facts = result.environment
        lines += [f"## {result.title}", ""]
        settings = ", ".join(f"{key} {value}" for key, value in result.settings.items() if key != "quick")
        where = f"`--case {name}`, {facts.get('when', '')}, commit {facts.get('commit', '')}; {settings}."
        lines += [where, "", *case_tables(result), ""]
        lines += [*(f"- {note}" for note in result.notes), *([""] if result.notes else [])]
    facts = next(iter(results.values())).environment if results else {}
    lines += ["## Measured on", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items() if key not in ("when", "commit") and value]
    return "\n".join(lines)


def main() -> int:
    """Write the page; with `--check`, compare it."""
    results = kept_results()
    before = PAGE.read_text()
    head, _, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2]
    page = f"{head}{BEGIN}\n\n{section(results)}\n\n{END}{tail}"
    if "--check" in sys.argv:
        if page != before:
            sys.stderr.write("docs/performance.md is not what benchmarks/results say: run benchmarks/document.py\n")
        return int(page != before)
    PAGE.write_text(page)
    drawn = draw(results, IMAGES)
    for path in drawn:
        sys.stdout.write(f"{path}\n")
    if not drawn:
        sys.stderr.write("the pictures are as they were: matplotlib is not installed; `pip install -e '.[bench]'`\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
