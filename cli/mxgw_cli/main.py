"""The program `mxgw`: imports only the command that the user calls, and ends with one of the exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from mxgw_cli.commands import COMMANDS, EXAMPLES, PLUGINS_OF_COMMANDS
from mxgw_cli.options import chosen_before, settings_parameters
from mxgw_cli.shell import CliFailure, ExitCode, silence_stdout
from mxgw_core.command_line import Group
from mxgw_core.shells import STOP_WORD, is_closed_pipe


class _PipeClosed(Exception):
    """The program that reads stdout has closed it.

    This exception is not an OSError, because click would exit with code 1 after an OSError.
    """


# The key in `click.Context.meta` of the words that name the plugin's command which is called.
_SOURCE = "mxgw_cli.source"


def _failure(source: str, error: Exception) -> CliFailure:
    from mxgw_cli.loading import failure_of
    from mxgw_core.api.errors import MxgwError

    if isinstance(error, MxgwError):  # it was raised on purpose, with a text for readers
        return CliFailure(f"{source}: {failure_of('', error)}")
    return CliFailure(
        failure_of(source, error),
        hint="This is a mistake in the plugin. For a traceback, run: python -X dev -m mxgw_cli ...",
    )


class RootGroup(Group):
    """Finds the commands of `COMMANDS` and the commands of plugins.

    Plugins are loaded only for a name that is not in `COMMANDS`, so broken settings do not break mxgw's own commands.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if any(cmd_name in section for section in COMMANDS.values()):
            command = getattr(importlib.import_module(f"mxgw_cli.{cmd_name}.command"), cmd_name)
            assert isinstance(command, click.Command)
            return command
        return self._plugin_command(ctx, cmd_name)

    def _plugin_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from mxgw_cli.loading import plugin_commands

        if ctx.resilient_parsing:
            return None
        found = plugin_commands(chosen_before(ctx))
        command = found.commands.get(name)
        if command is None and found.problems:
            raise click.UsageError(
                f"No command {name!r}, and the commands of plugins could not all be loaded:\n  "
                + "\n  ".join(found.problems)
            )
        if command is None and (plugin := PLUGINS_OF_COMMANDS.get(name)) in found.available:
            raise click.UsageError(
                f"The command {name!r} comes with the plugin {plugin}, which is not enabled: add it to plugins.enabled."
            )
        if command is None and found.available:
            raise click.UsageError(
                f"No such command {name!r}.\nPlugins bring commands when the settings enable them (plugins.enabled); "
                f"installed and not enabled: {', '.join(found.available)}."
            )
        if command is not None:
            ctx.meta[_SOURCE] = found.sources[name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()), col_max=12)
        formatter.write_paragraph()
        formatter.write_text("Enabled plugins may add commands: `mxgw plugins` lists them.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_text(
                "0 done, 1 failed, 2 wrong usage, 3 gateway not reachable, 130 ended by Ctrl-C, "
                f"143 ended by {STOP_WORD}"
            )

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        if os.environ.get("NO_COLOR"):
            extra["color"] = False
        try:
            return super().make_context(*args, **extra)
        except OSError as error:
            if is_closed_pipe(error):
                raise _PipeClosed from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and is_closed_pipe(error):
                raise _PipeClosed from error
            # A command of a plugin runs in a process of its own, so nothing is counted or timed: only the plugin is
            # named. It can end with `sys.exit` and an exit code, as any command.
            if (source := ctx.meta.get(_SOURCE)) is None or sys.flags.dev_mode:
                raise
            raise _failure(source, error) from error

    # click declares two variants of `main`, which differ in the type of standalone_mode. It is always False here.
    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and raise `SystemExit` with one of the codes of `ExitCode`."""
        extra.pop("standalone_mode", None)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.NoSuchOption as failure:
            name = failure.option_name
            hint = f" Give it before the command: mxgw {name} ..." if name in ("--settings", "--set") else ""
            click.UsageError(failure.format_message() + hint, failure.ctx).show()
            sys.exit(failure.exit_code)
        except click.ClickException as failure:
            failure.show()
            sys.exit(failure.exit_code)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(ExitCode.INTERRUPTED)
        except _PipeClosed:
            _leave_broken_pipe()
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            _leave_broken_pipe()
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _leave_broken_pipe() -> NoReturn:
    """Exit with code 0, because the program that reads the pipe (for example `head`) has read all that it wants."""
    silence_stdout()
    sys.exit(ExitCode.OK)


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"mxgw {version('mxgw')}")
    context.exit()


@click.group(
    "mxgw",
    cls=RootGroup,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@settings_parameters()
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def root(settings_file: Path | None, assignments: dict[str, str]) -> None:
    """A gRPC gateway in front of AVEVA MXAccess.

    Any client, one worker process per session, and no event lost in silence.
    """
    # These parameters are not used here. Commands read their values from the context, see `chosen_before`.
    del settings_file, assignments


def main() -> NoReturn:
    """Run `mxgw` with the arguments of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A tag name can have a character that the terminal's encoding lacks. This must not cause a traceback.
        sys.stdout.reconfigure(errors="replace")
    root.main(prog_name="mxgw")
