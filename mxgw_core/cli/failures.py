"""Exit codes of `mxgw`, and the exceptions that end a command with one of them."""

from __future__ import annotations

import enum
import os
from typing import IO, Any

import click


class ExitCode(enum.IntEnum):
    """What scripts may rely on; listed in docs/command-line.md."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130
    TERMINATED = 143


class CliFailure(click.ClickException):
    """Ends the command with a sentence on stderr, a hint what to do, and an exit code; never with a traceback."""

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = int(exit_code)  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        colour = False if os.environ.get("NO_COLOR") else None
        stream: dict[str, Any] = {"err": True} if file is None else {"file": file}
        click.echo(click.style("Error: ", fg="red", bold=True) + self.message, color=colour, **stream)
        for number, line in enumerate(self.hint.splitlines()):
            click.echo(("Hint:  " if number == 0 else "       ") + line, color=colour, **stream)


class SilentFailure(CliFailure):
    """Ends the command with an exit code; all there is to say has been printed."""

    def __init__(self, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__("", exit_code=exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        del file
