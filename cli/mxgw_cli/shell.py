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

# Tables written into a pipe keep their columns whole up to this width; a terminal's own width counts otherwise.
PIPE_WIDTH = 240
# A copy of fewer bytes is over before anybody would look at a progress bar.
SHORT_COPY_BYTES = 64 * 1024 * 1024


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


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` in a new event loop and return what it returns.

    The first Ctrl-C or SIGTERM cancels it, so its `finally` blocks run; a second Ctrl-C ends at once.

    Raises:
        KeyboardInterrupt: after Ctrl-C (the command line makes 130 of it).
        SilentFailure: after SIGTERM, with 143.
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
        # A task group wraps what ended it; the command line knows the single failure, not the wrapping.
        raise innermost(group) from None


def innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single failure inside a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


@contextmanager
def cleaning_up_at_sigterm() -> Iterator[None]:
    """Let the first SIGTERM raise inside the block; later ones do not disturb the clean-up. Main thread only.

    Raises:
        SilentFailure: after SIGTERM, with 143.
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
    """Return a console on stdout (or stderr) that never reads markup, so that `Object.Array[]` stays what it is."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> NoReturn:
            # Rich would exit with 1 from here; the command line ends this its own way.
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def is_live() -> bool:
    """Return whether stdout is a terminal that can repaint itself."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def silence_stdout() -> None:
    """Let what is still to be written to a stdout without reader go nowhere; Python would complain at its exit."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def shown_progress(label: str, total_bytes: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Yield what takes the bytes that went by; a long copy draws a bar on stderr when that is a terminal."""
    if hidden or total_bytes < SHORT_COPY_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
        yield bar.update
