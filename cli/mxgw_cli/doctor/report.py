"""The result of a check, and functions that print results."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mxgw_cli.render import write_json
from mxgw_cli.shell import console
from mxgw_core.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


class Outcome(enum.Enum):
    """How a check ended."""

    OK = "ok"
    # The gateway works, but a person should look at the result.
    WARNING = "warning"
    # The gateway would not start, or would not work.
    FAILED = "failed"
    # The check could not be made; the detail says why.
    SKIPPED = "skipped"


# Mark, the same in ASCII, and style.
_MARKS = {
    Outcome.OK: ("✓", "+", "green"),
    Outcome.WARNING: ("!", "!", "yellow"),
    Outcome.FAILED: ("✗", "x", "bold red"),
    Outcome.SKIPPED: ("-", "-", "dim"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `cure` says what to do about a problem; it is "" when there is nothing to do."""

    area: str
    title: str
    outcome: Outcome
    detail: str
    cure: str = ""

    def document(self) -> dict[str, str]:
        """Return the result for JSON."""
        return {
            "area": self.area,
            "title": self.title,
            "outcome": self.outcome.value,
            "detail": self.detail,
            "cure": self.cure,
        }


def ok(area: str, title: str, detail: str) -> Check:
    """Return the result of a check that found no problem."""
    return Check(area, title, Outcome.OK, detail)


def warning(area: str, title: str, detail: str, cure: str) -> Check:
    """Return a result that reports a problem which does not stop the gateway from working."""
    return Check(area, title, Outcome.WARNING, detail, cure)


def failed(area: str, title: str, detail: str, cure: str) -> Check:
    """Return a result that reports a problem which keeps the gateway from starting or working."""
    return Check(area, title, Outcome.FAILED, detail, cure)


def skipped(area: str, title: str, detail: str) -> Check:
    """Return a result that says that something was not checked, and why."""
    return Check(area, title, Outcome.SKIPPED, detail)


def show_check(console: Console, check: Check, previous_area: str) -> None:
    """Print one result: a mark, the title and the detail, and the cure below.

    When the result is in another area than the result before, the area is printed first, as a heading.
    """
    from rich.padding import Padding
    from rich.text import Text

    if check.area != previous_area:
        console.print(Text(check.area, style="bold"))
    mark, plain_mark, style = _MARKS[check.outcome]
    # Output into a pipe or file has an encoding of few characters on Windows.
    is_plain = not console.encoding.lower().startswith("utf")
    line = Text()
    line.append(f"{plain_mark if is_plain else mark} ", style=style)
    line.append(printable(check.title, 120))
    if check.detail:
        line.append("  ")
        line.append(printable(check.detail, 600), style="" if check.outcome is Outcome.FAILED else "dim")
    console.print(Padding(line, (0, 0, 0, 2), expand=False))
    for cure in check.cure.splitlines():
        console.print(
            Padding(
                Text(f"{'->' if is_plain else '→'} {printable(cure, 600)}", style="cyan"), (0, 0, 0, 4), expand=False
            )
        )


def summary(checks: Sequence[Check]) -> str:
    """Return the last line of a report, which has the number of results per outcome."""
    counts = {outcome: sum(check.outcome is outcome for check in checks) for outcome in Outcome}
    words = {Outcome.OK: "ok", Outcome.WARNING: "to look at", Outcome.FAILED: "failed", Outcome.SKIPPED: "left out"}
    return ", ".join(f"{count} {words[outcome]}" for outcome, count in counts.items() if count)


def is_healthy(checks: Sequence[Check]) -> bool:
    """Return whether no check failed."""
    return all(check.outcome is not Outcome.FAILED for check in checks)


class Report:
    """Collects the results, and prints each as soon as it is known. With JSON all results are printed at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._console: Console | None = None if as_json else console()
        self.checks: list[Check] = []

    def add(self, check: Check) -> None:
        if self._console is not None:
            show_check(self._console, check, self.checks[-1].area if self.checks else "")
        self.checks.append(check)

    def waiting_for(self, what: str) -> None:
        """Show what the command is waiting for, if the output is a terminal."""
        if self._console is not None and self._console.is_terminal:
            self._console.print(f"  … {what}", end="\r")

    def finish(self) -> None:
        if self._console is None:
            write_json({"healthy": is_healthy(self.checks), "checks": [check.document() for check in self.checks]})
        else:
            result = "Healthy" if is_healthy(self.checks) else "Not healthy"
            self._console.print(f"\n{result}: {summary(self.checks)}.")

    def finish_with_file(self, path: Path) -> None:
        """End a report whose facts were written to a file."""
        if self._console is None:
            write_json({"file": str(path), "checks": [check.document() for check in self.checks]})
        else:
            self._console.print(f"\nWritten to {path}: {summary(self.checks)}.")
