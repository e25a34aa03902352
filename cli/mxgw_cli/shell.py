"""The connection between commands and the shell: exit codes, failures, signals, the terminal, and progress bars.

`mxgw --help` imports this module, so functions import rich and asyncio only when they need them.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from mxgw_core.exception_groups import innermost
from mxgw_core.shells import is_plain_terminal

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

# The width of tables that are written to a pipe, in characters. At a terminal the terminal's width is used.
PIPE_WIDTH = 240
# A copy of fewer bytes has no progress bar, because it is finished in a moment.
SHORT_COPY_BYTES = 64 * 1024 * 1024


class ExitCode(enum.IntEnum):
    """The exit codes of `mxgw`. Scripts rely on them; docs/command-line.md lists them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130
    TERMINATED = 143


class CliFailure(click.ClickException):
    """Ends the command with an exit code, and prints a sentence and a hint to stderr instead of a traceback."""

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = int(exit_code)  # type: ignore[misc]  # click reads the attribute of the instance

    def show(self, file: IO[Any] | None = None) -> None:
        colour = False if os.environ.get("NO_COLOR") else None
        stream: dict[str, Any] = {"err": True} if file is None else {"file": file}
        click.echo(click.style("Error: ", fg="red", bold=True) + self.message, color=colour, **stream)
        for number, line in enumerate(self.hint.splitlines()):
            click.echo(("Hint:  " if number == 0 else "       ") + line, color=colour, **stream)


class SilentFailure(CliFailure):
    """Ends the command with an exit code and prints nothing, because the command has already printed the reason."""

    def __init__(self, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__("", exit_code=exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        del file


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` in a new event loop and return its result.

    The first Ctrl-C or SIGTERM cancels the coroutine, so its `finally` blocks run. A second Ctrl-C interrupts them.

    Raises:
        KeyboardInterrupt: after Ctrl-C. The program then exits with code 130.
        SilentFailure: after SIGTERM, with exit code 143.
    """
    import asyncio

    from mxgw_worker.platform import StopKind, StopRequest, on_stop

    terminated = False

    async def body() -> T:
        task = asyncio.current_task()
        assert task is not None

        def on_terminate(request: StopRequest) -> None:
            nonlocal terminated
            del request
            terminated = True
            task.cancel()

        on_stop(on_terminate, StopKind.TERMINATE)
        return await main()

    try:
        return asyncio.run(body())
    except asyncio.CancelledError:
        if terminated:
            raise SilentFailure(ExitCode.TERMINATED) from None
        raise
    except BaseExceptionGroup as group:
        # A task group raises a group of errors. The user gets the first error in the group.
        raise innermost(group) from None


@contextmanager
def cleaning_up_at_sigterm() -> Iterator[None]:
    """At the first SIGTERM raise an exception inside the block, so that its clean-up runs; ignore later SIGTERMs.

    Use it in the main thread only.

    Raises:
        SilentFailure: after SIGTERM, with exit code 143.
    """

    from mxgw_worker.platform import raising_at_stop

    with raising_at_stop(SilentFailure(ExitCode.TERMINATED)):
        yield


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr. Rich's markup is off, because it would change texts like `Object.Array[]`.

    The console raises BrokenPipeError when the reader of its output has ended.
    """
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> NoReturn:
            # Without this method rich would exit with code 1. `RootGroup.main` exits with code 0 for this exception.
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def is_live() -> bool:
    """Return whether stdout is a terminal that can repaint itself."""
    return sys.stdout.isatty() and not is_plain_terminal()


def silence_stdout() -> None:
    """Discard unwritten output after the reader of stdout has ended, because Python would report an error at exit."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def shown_progress(label: str, total_bytes: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that the caller calls after each step of a copy, with the number of bytes copied in that step.

    A long copy draws a progress bar on stderr if stderr is a terminal and `hidden` is False.
    """
    if hidden or total_bytes < SHORT_COPY_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
        yield bar.update
