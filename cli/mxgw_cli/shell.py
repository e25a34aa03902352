"""How a command meets the shell it runs in: exit codes and failures, signals, the terminal, progress of long copies.

Everything here is imported by `mxgw --help`, so rich and asyncio are imported where they are used.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

# Tables written into a pipe may be this wide, in characters; at a terminal its own width counts.
PIPE_WIDTH = 240
# A copy of fewer bytes is over before anybody would look at a progress bar.
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
    """Ends the command: a sentence and a hint on stderr, and an exit code; no traceback."""

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
    """Ends the command with an exit code and prints nothing: the command has printed the reason already."""

    def __init__(self, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__("", exit_code=exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        del file


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` in a new event loop and return what it returns.

    The first Ctrl-C or SIGTERM cancels the coroutine, so its `finally` blocks run; a second Ctrl-C ends at once.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the command line then exits with 130.
        SilentFailure: after SIGTERM, with exit code 143.
    """
    import asyncio

    terminated = False

    async def body() -> T:
        task = asyncio.current_task()
        assert task is not None

        def on_sigterm() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers in the loop
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)
        return await main()

    try:
        return asyncio.run(body())
    except asyncio.CancelledError:
        if terminated:
            raise SilentFailure(ExitCode.TERMINATED) from None
        raise
    except BaseExceptionGroup as group:
        # A task group raises a group of errors; the command line shows the error inside, not the group.
        raise innermost(group) from None


def innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error inside a group that is not a group itself."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


@contextmanager
def cleaning_up_at_sigterm() -> Iterator[None]:
    """Raise inside the block at the first SIGTERM, so that its clean-up runs, and ignore later ones. Main thread only.

    Raises:
        SilentFailure: after SIGTERM, with exit code 143.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise SilentFailure(ExitCode.TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout (or stderr) without rich's markup, which would change `Object.Array[]`."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> NoReturn:
            # Rich would exit with code 1 here; the command line itself handles a closed pipe.
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def is_live() -> bool:
    """Return whether stdout is a terminal that can repaint itself."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def silence_stdout() -> None:
    """Discard what is left to write once nobody reads stdout any more; Python would report an error at its exit."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def shown_progress(label: str, total_bytes: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes just copied.

    A long copy draws a bar on stderr when that is a terminal; `hidden` draws none.
    """
    if hidden or total_bytes < SHORT_COPY_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
        yield bar.update
