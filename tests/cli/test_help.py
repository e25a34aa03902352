"""Help: quick, complete, and the same as the documentation."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mxgw_acl.plugin import AclPlugin
from mxgw_cli.commands import COMMANDS, PLUGINS_OF_COMMANDS
from mxgw_cli.loading import commands_of
from mxgw_cli.main import root
from mxgw_cli.reference import BEGIN, commands, updated
from mxgw_core.command_line import NumberRange
from mxgw_core.config.models import PluginsSettings, Settings
from mxgw_core.plugins import PluginHost
from mxgw_core.shells import PROMPT
from mxgw_dashboard_tui.plugin import DashboardPlugin
from mxgw_metrics.plugin import MetricsPlugin

NAMES = [name for section in COMMANDS.values() for name in section]
HEAVY = ("grpc", "dynaconf", "pydantic", "textual", "rich", "google.protobuf", "asyncio", "mxgw_client", "pluggy")


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(root, list(arguments), prog_name="mxgw", env=environment)


def paths() -> list[tuple[str, ...]]:
    """Return the words of every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    context = click.Context(root)
    for name in NAMES:
        found.append((name,))
        command = root.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, child) for child in command.commands]
    return found


@pytest.mark.parametrize("path", [(), *((name,) for name in NAMES)], ids=lambda path: " ".join(path) or "mxgw")
def test_help_imports_nothing_heavy(path: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from mxgw_cli.main import root\n"
        "try:\n    root.main(sys.argv[1:], prog_name='mxgw')\n"
        f"finally:\n    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *path, "--help"], capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("path", paths(), ids=lambda path: " ".join(path) or "mxgw")
def test_every_help_fits_80_columns(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help", COLUMNS="80")

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_one_line_help_of_the_root_is_the_commands_own(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    listed = next(section[name] for section in COMMANDS.values() if name in section)

    assert command is not None
    assert command.short_help == listed


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_every_command_has_examples_that_name_only_options_that_exist(path: tuple[str, ...]) -> None:
    help_text = invoke(*path, "--help").stdout
    examples = [line.strip() for line in help_text.splitlines() if line.strip().startswith(f"{PROMPT} mxgw")]

    assert examples
    for example in examples:
        words = example.split("|")[0].split()[2:]
        known = _options_on_the_way(words)
        assert [w for w in words if w.startswith("--") and w.split("=")[0] not in known] == [], example


def _options_on_the_way(words: list[str]) -> set[str]:
    context = click.Context(root)
    command: click.Command = root
    options: set[str] = set()
    for word in ["", *words]:
        child = command.get_command(context, word) if isinstance(command, click.Group) and word else None
        command = child or command
        options |= {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    return options


def test_an_unknown_command_is_a_usage_error_that_says_so() -> None:
    result = invoke("strem")

    assert result.exit_code == 2
    assert "strem" in result.stderr
    assert result.stdout == ""


def test_no_color_takes_the_colours_out_of_help_and_errors() -> None:
    result = CliRunner().invoke(root, ["stream"], prog_name="mxgw", env={"NO_COLOR": "1"}, color=True)

    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_the_documentation_has_every_command_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")

    assert page == updated(page), "run: python -m mxgw_cli.reference docs/command-line.md"
    assert BEGIN in page


def options_of_every_command() -> list[tuple[str, click.Parameter]]:
    brought = [command for plugin in (AclPlugin(), DashboardPlugin(), MetricsPlugin()) for command in plugin.mxgw_cli()]
    found = [each for command in (root, *brought) for each in commands((command.name or "",), command)]
    return [(" ".join(path), parameter) for path, command in found for parameter in command.params]


def test_no_option_takes_a_number_that_is_not_finite() -> None:
    numbers = [(path, p) for path, p in options_of_every_command() if isinstance(p.type, click.types.FloatParamType)]

    assert {"mxgw sessions", "mxgw drain", "mxgw bench", "keys create", "top"} <= {path for path, _ in numbers}
    for path, parameter in numbers:
        assert isinstance(parameter.type, NumberRange), f"{path} {parameter.name}"
        for text in ("nan", "inf", "-inf", "1e999"):
            with pytest.raises(click.BadParameter):
                parameter.type.convert(text, parameter, None)


@pytest.mark.parametrize("command", [["sessions"], ["drain"], ["stream", "x", "--count", "1"]])
def test_a_timeout_that_is_no_number_is_wrong_usage(command: list[str]) -> None:
    result = invoke(*command, "--timeout", "nan")

    assert result.exit_code == 2
    assert "nan is no finite number" in result.stderr


def test_a_command_of_a_plugin_that_is_not_enabled_names_the_plugin() -> None:
    plugins = {entry.name for entry in distribution("mxgw").entry_points.select(group="mxgw.plugins")}
    host = PluginHost.load(Settings(plugins=PluginsSettings(enabled=tuple(plugins))), keep_going=True)
    missing = invoke("keys", "list", MXGW_PLUGINS__ENABLED="replay")
    unknown = invoke("kees", MXGW_PLUGINS__ENABLED="replay")

    assert commands_of(host).owners == PLUGINS_OF_COMMANDS
    assert (missing.exit_code, unknown.exit_code) == (2, 2)
    assert "'keys' comes with the plugin acl, which is not enabled" in missing.stderr
    assert "installed and not enabled: acl, alarms" in unknown.stderr


def test_a_plugin_without_its_library_says_so_wherever_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    shown = [invoke(*words, MXGW_PLUGINS__ENABLED="metrics") for words in (("plugins",), ("doctor",), ("top",))]

    assert shown[0].exit_code == 1
    for result in shown:
        assert "pip install 'mxgw[metrics]'" in " ".join(result.output.split())
        assert "Traceback" not in result.output
