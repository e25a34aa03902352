"""The base of all commands of `mxgw`, also of the commands that plugins add. Its import takes next to no time.

Plugins import these names from `mxgw_core.api.cli`. The module itself is not inside `mxgw_core.api`, because an import
of any module of that package also imports pydantic and protobuf, and this would make `mxgw --help` slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mxgw_core.shells import ADDRESS_FORMS, HAS_UNIX_SOCKETS, NO_UNIX_SOCKETS, PROMPT, example_line

F = TypeVar("F", bound=Callable[..., Any])
_A = TypeVar("_A", str, tuple[str, ...])


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A group of commands whose help ends with examples. Its commands are made with the class `Command`."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


def write_examples(examples: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    """Write a help section with example command lines. Below each example is a line that says what it does."""
    here = [(shown, meaning) for line, meaning in examples if (shown := example_line(line))]
    if not here:
        return
    with formatter.section("Examples"):
        for line, meaning in here:
            formatter.write(f"{'':{formatter.current_indent}}{PROMPT} {line}\n")
            formatter.indent()
            formatter.indent()
            formatter.write_text(meaning)
            formatter.dedent()
            formatter.dedent()


class NumberRange(click.FloatRange):
    """A parameter type for a finite number within bounds.

    click's own FloatRange does not refuse "nan", nor "inf" when there is no upper bound.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return float(super().convert(number, param, ctx))


def address_help(text: str) -> str:
    """Return the help of an option with an address: `text` after the forms of addresses that this platform has."""
    return f"{ADDRESS_FORMS} {text}"


def check_address(context: click.Context, parameter: click.Parameter, value: _A) -> _A:
    """Refuse Unix sockets where there are none; the callback of an option with one address or several.

    Raises:
        click.BadParameter: the address is that of a Unix socket, and this platform has none.
    """
    for address in (value,) if isinstance(value, str) else value:
        if address.startswith("unix:") and not HAS_UNIX_SOCKETS:
            raise click.BadParameter(f"{address!r} cannot be used: {NO_UNIX_SOCKETS}", context, parameter)
    return value


def json_option(text: str = "Print JSON instead of text, and nothing else on stdout.") -> Callable[[F], F]:
    """Return a decorator that adds the option `--json` to a command. The command's parameter for it is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)
