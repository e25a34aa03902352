"""The base of all commands of `mxgw`, also of the commands that plugins add. This module imports nothing but click.

Plugins import these names from `mxgw_core.api.cli`. The module itself is not inside `mxgw_core.api`, because an import
of any module of that package also imports pydantic and protobuf, and this would make `mxgw --help` slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


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
    if not examples:
        return
    with formatter.section("Examples"):
        for line, meaning in examples:
            formatter.write(f"{'':{formatter.current_indent}}$ {line}\n")
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


def json_option(text: str = "Print JSON instead of text, and nothing else on stdout.") -> Callable[[F], F]:
    """Return a decorator that adds the option `--json` to a command. The command's parameter for it is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)
