"""Writes the reference of all commands in docs/command-line.md from the options and help texts of the commands.

Run `python -m mxgw_cli.reference docs/command-line.md` after a change; a test fails while the page is out of date. The
module has its own layout, because the layout of click's help changes between releases of click.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mxgw_cli.commands import EXAMPLES
from mxgw_cli.main import root
from mxgw_cli.options import gateway_options
from mxgw_core.command_line import Command, Group

BEGIN = "<!-- Made by `python -m mxgw_cli.reference docs/command-line.md` from here on; do not edit below. -->"


@click.command()
@gateway_options
def _with_gateway() -> None:
    """Do nothing: this command exists only so that the names of the gateway's options can be read from it below."""


# Click prints the lines of a paragraph that begins with this character as they are.
_AS_IT_IS = "\b"
_GATEWAY_OPTIONS = frozenset(parameter.name for parameter in _with_gateway.params)


def reference() -> str:
    """Return the reference of all commands as Markdown."""
    return "\n\n".join([BEGIN, *(_section(path, command) for path, command in commands(("mxgw",), root))]) + "\n"


def commands(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all its subcommands, each with its full name as a tuple of words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from commands((*path, name), child)


def _section(path: tuple[str, ...], command: click.Command) -> str:
    usage = " ".join([*path, *_usage(command)])
    parts = [f"## {' '.join(path)}", f"```text\n{usage}\n```", _help(command)]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    own = [option for option in options if option.name not in _GATEWAY_OPTIONS]
    if own:
        rows = [f"| {_names(option)} | {_meaning(option)} |" for option in own]
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    if len(own) < len(options):
        parts.append("It also takes the options of [the gateway](#which-gateway).")
    examples = command.examples if isinstance(command, Command | Group) else EXAMPLES
    parts.append(_examples(examples))
    return "\n\n".join(part for part in parts if part)


def _help(command: click.Command) -> str:
    """Return the help text. Lines that click prints as they are, behind a line with \\b, become a block."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(_AS_IT_IS).strip()}\n```" if paragraph.startswith(_AS_IT_IS) else paragraph
        for paragraph in paragraphs
    )


def _usage(command: click.Command) -> Iterator[str]:
    yield "[OPTIONS]"
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield parameter.metavar or (parameter.name or "").upper()
    if isinstance(command, click.Group):
        yield command.subcommand_metavar or ""


def _names(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return f"`{names}`"
    if isinstance(option.type, click.Choice):
        return f"`{names}` " + ", ".join(f"`{choice}`" for choice in option.type.choices)
    return f"`{names} {option.metavar or ''}`".replace("|", "\\|")


def _meaning(option: click.Option) -> str:
    meaning = option.help or ""
    if option.multiple:
        meaning += " May be given several times." if "several times" not in meaning else ""
    if not option.is_flag and not option.multiple and isinstance(option.default, str | int | float) and option.default:
        meaning += f" Default: `{option.default}`."
    if option.envvar:
        meaning += f" Environment: `{option.envvar}`."
    return meaning.replace("|", "\\|")


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    if not examples:
        return ""
    width = max(len(line) for line, _ in examples)
    return "```sh\n" + "\n".join(f"{line:<{width}}  # {meaning}" for line, meaning in examples) + "\n```"


def updated(page: str) -> str:
    """Return the page with a new reference. The text above the reference, which people wrote, stays."""
    head, _, _ = page.partition(BEGIN)
    return head + reference()


def main() -> None:
    """Update the page whose path is the first argument of the process."""
    page = Path(sys.argv[1])
    page.write_text(updated(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
