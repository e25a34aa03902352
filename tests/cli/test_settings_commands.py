"""`mxgw config` and `mxgw plugins`, and the commands that plugins bring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.access import let_others_read

from mxgw_cli.main import root
from mxgw_core.shells import HAS_UNIX_SOCKETS
from mxgw_worker.platform import make_directory


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MXGW"):
            monkeypatch.delenv(name)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(root, list(arguments), prog_name="mxgw")


def test_the_defaults_are_valid() -> None:
    result = invoke("config", "check")

    assert result.exit_code == 0
    assert "valid" in result.stdout


def test_check_prints_every_problem_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[gateway]\nlsten = ["x"]\n[limits]\nsessions = -3\n')
    result = invoke("config", "check")

    assert result.exit_code == 1
    assert "did you mean 'listen'" in result.stdout
    assert "limits.sessions" in result.stdout
    assert len(result.stdout.splitlines()) == 2


def strange(directory: Path) -> None:
    """Enable a plugin that refuses all settings."""
    install(
        directory,
        "strange",
        "from mxgw_core.api import hookimpl\nclass Plugin:\n    @hookimpl\n"
        "    def mxgw_check_settings(self, limits): return [f'plugins.strange: {limits.queue.events} is too much']\n",
    )
    (directory / "settings.toml").write_text('[plugins]\nenabled = ["strange"]\n')


def short_log(directory: Path) -> None:
    (directory / "settings.toml").write_text('[plugins]\nenabled = ["replay"]\n[plugins.replay]\nevents = 1024\n')


def strangers(directory: Path) -> None:
    (directory / "settings.toml").write_text('[gateway]\nlisten = ["0.0.0.0:0"]\n')


def no_certificate(directory: Path) -> None:
    (directory / "settings.toml").write_text('[tls]\ncertificate = "no.pem"\nprivate_key = "no.pem"\n')


def long_path(directory: Path) -> None:
    (directory / "settings.toml").write_text(f'[gateway]\ndata_dir = "{"x" * 100}"\n')


def file_for_directory(directory: Path) -> None:
    (directory / "var").touch()


def cut_restore(directory: Path) -> None:
    make_directory(directory / "var")
    (directory / "var" / "restore-unfinished").mkdir()


def no_ca(directory: Path) -> None:
    (directory / "settings.toml").write_text(
        '[plugins]\nenabled = ["acl"]\n[plugins.acl.ldap]\nservers = ["ldaps://x"]\nca_file = "no.pem"\n'
        'bind = "direct"\nuser_dn = "uid={user},dc=x"\n'
    )


def open_keys(directory: Path) -> None:
    (directory / "settings.toml").write_text('[plugins]\nenabled = ["acl"]\n')
    (directory / "var" / "acl").mkdir(parents=True)
    let_others_read(directory / "var" / "acl")


@pytest.mark.parametrize(
    ("prepare", "why", "to_the_doctor"),
    [
        (strange, "plugins.strange: 10000 is too much", ""),
        (short_log, "plugins.replay.events is 1024, which is less than twice", ""),
        (strangers, "0.0.0.0:0 can be reached from other machines", ""),
        (no_certificate, "tls.certificate: no.pem cannot be read", "no.pem: No such file"),
        *([(long_path, "is too long for the Unix sockets", "")] if HAS_UNIX_SOCKETS else []),
        (file_for_directory, "is not a directory", ""),
        (cut_restore, "a restore to it was cut off", ""),
        (no_ca, "plugins.acl.ldap.ca_file", ""),
        (open_keys, "others may enter", ""),
    ],
)
def test_what_stops_a_start_is_seen_by_check_and_doctor_too_and_nothing_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], None],
    why: str,
    to_the_doctor: str,
) -> None:
    prepare(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(tmp_path.rglob("*"))
    check = invoke("config", "check")
    doctor = invoke("doctor", "--no-backends", "--json")
    serve = run(tmp_path, "serve", "--json")
    failed = [c["detail"] for c in json.loads(doctor.stdout)["checks"] if c["outcome"] == "failed"]

    assert (check.exit_code, doctor.exit_code, serve.returncode) == (1, 1, 1)
    assert why in check.stdout
    assert why in serve.stderr
    assert any((to_the_doctor or why) in detail for detail in failed), failed
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before


def test_check_as_json_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[limits]\nsessions = 3\n")
    document = json.loads(invoke("config", "check", "--settings", "mine.toml", "--json").stdout)

    assert document == {"valid": True, "files": ["mine.toml"], "problems": [], "access": []}


def test_a_plugin_that_is_not_there_is_a_problem() -> None:
    result = invoke("config", "check", "--set", "plugins.enabled=nowhere")

    assert result.exit_code == 1
    assert "nowhere" in result.stdout


def test_plugins_shows_what_a_plugins_own_check_finds(tmp_path: Path) -> None:
    directory = tmp_path / "open-to-all"
    directory.mkdir()
    let_others_read(directory)
    arguments = ("--set", "plugins.enabled=acl", "--set", f"plugins.acl.directory={directory}")
    checked = invoke("config", "check", *arguments)
    listed, document = invoke("plugins", *arguments), invoke("plugins", "--json", *arguments)
    (acl,) = [plugin for plugin in json.loads(document.output)["plugins"] if plugin["name"] == "acl"]

    assert [checked.exit_code, listed.exit_code, document.exit_code] == [1, 1, 1]
    assert "stops the start" in listed.output
    assert acl["problems"]
    assert acl["problems"][0] in checked.output
    # Long paths are broken over lines, also inside a word.
    assert "".join(f"acl: {acl['problems'][0]}".split()) in "".join(listed.output.split())


def test_show_says_where_each_value_comes_from_and_masks_secrets(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        '[backends]\ndefault = "line1"\n[backends.line1]\nkind = "opcua"\npassword = "hunter2"\n'
    )
    result = invoke("config", "show", "--set", "limits.sessions=5", "--json")
    rows = {row["key"]: row for row in json.loads(result.stdout)}

    assert rows["limits.sessions"] == {"key": "limits.sessions", "value": 5, "origin": "command line"}
    assert rows["backends.line1.password"]["value"] == "***"
    assert rows["backends.line1.kind"]["origin"] == "settings.toml"
    assert rows["gateway.drain_timeout_s"]["origin"] == "default"
    assert "hunter2" not in result.stdout


def test_show_can_be_narrowed_to_sections_and_to_what_changed() -> None:
    changed = invoke("config", "show", "--changed", "--set", "limits.sessions=5")
    section = invoke("config", "show", "tls")

    assert "limits.sessions" in changed.stdout
    assert "gateway" not in changed.stdout
    assert [line for line in section.stdout.splitlines() if "limits" in line] == []
    assert invoke("config", "show", "limts").exit_code == 2


def test_a_root_settings_file_counts_for_every_command(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[limits]\nsessions = 3\n")

    assert "mine.toml" in invoke("--settings", "mine.toml", "config", "show", "--changed").stdout


def test_a_root_assignment_counts_for_every_command_and_one_of_the_command_wins() -> None:
    shown = invoke("--set", "limits.sessions=40", "--set", "limits.lease_s=7", "config", "show", "--json",
                   "--set", "limits.sessions=41")  # fmt: skip
    values = {row["key"]: row["value"] for row in json.loads(shown.stdout)}

    assert (values["limits.sessions"], values["limits.lease_s"]) == (41, 7.0)


def test_commands_of_plugins_work_with_the_settings_of_the_command_line(tmp_path: Path) -> None:
    where = ("--set", "plugins.enabled=acl", "--set", "gateway.data_dir=other")
    made = json.loads(invoke(*where, "keys", "create", "mine", "--json").stdout)
    (listed,) = json.loads(invoke(*where, "keys", "list", "--json").stdout)

    assert listed["id"] == made["id"]
    assert (tmp_path / "other" / "acl" / "keys.sqlite3").exists()
    assert not (tmp_path / "var").exists()


def test_settings_after_a_command_that_takes_none_are_sent_to_their_place() -> None:
    result = invoke("--set", "plugins.enabled=acl", "keys", "list", "--set", "gateway.data_dir=other")

    assert result.exit_code == 2
    assert "Give it before the command: mxgw --set ..." in result.stderr


def test_an_assignment_without_a_value_is_wrong_usage() -> None:
    result = invoke("config", "show", "--set", "limits.sessions")

    assert result.exit_code == 2
    assert "KEY=VALUE" in result.stderr


PLUGIN = '''
import click
from mxgw_core.api import hookimpl

@click.command("greet")
def greet():
    """Greet."""
    click.echo("hello from a plugin")

@click.command("serve")
def impostor():
    click.echo("not the real one")

@click.group("do")
def do():
    pass

@do.command("fail")
def fail():
    raise ValueError("boom\\x1b[2J")

@do.command("refuse")
def refuse():
    from mxgw_core.api.errors import InvalidRequest
    raise InvalidRequest("not on a Sunday")

@do.command("leave")
def leave():
    raise SystemExit(7)

class Plugin:
    @hookimpl
    def mxgw_cli(self):
        return [greet, impostor, do]
'''


def install(directory: Path, name: str, source: str) -> None:
    """Put a plugin's distribution where the interpreter finds it, as an installer would."""
    (directory / f"{name}_plugin.py").write_text(source)
    info = directory / f"{name}_dist-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mxgw.plugins]\n{name} = {name}_plugin:Plugin\n")


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxgw_cli", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_an_enabled_plugins_command_runs_and_is_listed(tmp_path: Path) -> None:
    install(tmp_path, "greeter", PLUGIN)
    (tmp_path / "settings.toml").write_text('[plugins]\nenabled = ["greeter"]\n')
    greeting = run(tmp_path, "greet")
    listed = run(tmp_path, "plugins", "--json")
    document = json.loads(listed.stdout)

    assert (greeting.returncode, greeting.stdout) == (0, "hello from a plugin\n")
    assert document["plugins"][0] == {
        "name": "greeter",
        "state": "loaded",
        "required": False,
        "controls_access": False,
        "distribution": "greeter-dist",
        "version": "1.2",
        "detail": "",
        "problems": [],
        "commands": ["do", "greet"],
        "in_gateway": None,
    }
    assert listed.returncode == 1  # the plugin's `serve` has the name of mxgw's own command, and that is reported
    assert "'serve' is a command of mxgw" in document["problems"][0]


def test_a_command_that_fails_names_its_plugin_and_shows_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "greeter", PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "settings.toml").write_text('[plugins]\nenabled = ["greeter"]\n')
    failed, refused, left = (invoke("do", how) for how in ("fail", "refuse", "leave"))

    who = "Error: plugin greeter (greeter-dist 1.2): the command 'do' (mxgw_cli)"
    assert failed.stderr.startswith(f"{who} raised ValueError: boom [2J ({tmp_path / 'greeter_plugin.py'}:")
    assert "This is a mistake in the plugin" in failed.stderr
    assert refused.stderr == f"{who}: not on a Sunday\n"
    assert [result.exit_code for result in (failed, refused, left)] == [1, 1, 7]


def test_a_plugin_that_gives_no_commands_is_reported_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "wordy", PLUGIN.replace("[greet, impostor, do]", "'greet'"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "settings.toml").write_text('[plugins]\nenabled = ["wordy"]\n')

    assert "plugin wordy: mxgw_cli returned a str, not Sequence[click.Command] | None" in invoke("greet").stderr


def test_a_plugins_command_cannot_take_the_place_of_ours(tmp_path: Path) -> None:
    install(tmp_path, "greeter", PLUGIN)
    (tmp_path / "settings.toml").write_text('[plugins]\nenabled = ["greeter"]\n')
    done = run(tmp_path, "serve", "--help")

    assert "Run a gateway until" in done.stdout


def test_a_broken_plugin_breaks_neither_help_nor_our_commands_and_is_named_when_its_command_is_asked_for(
    tmp_path: Path,
) -> None:
    install(tmp_path, "broken", "raise RuntimeError('boom\\x1b[2J')\n")
    (tmp_path / "settings.toml").write_text('[plugins]\nenabled = ["broken"]\n')
    helped = run(tmp_path, "--help")
    asked = run(tmp_path, "greet")
    listed = run(tmp_path, "plugins")

    assert (helped.returncode, helped.stderr) == (0, "")
    assert asked.returncode == 2
    assert "broken" in asked.stderr
    assert "boom" in asked.stderr
    assert "Traceback" not in asked.stderr
    assert "\x1b" not in asked.stderr + listed.stdout
    assert listed.returncode == 1
    assert "failed" in listed.stdout


def test_a_broken_settings_file_breaks_neither_help_nor_version(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[gateway\n")
    asked = run(tmp_path, "keys")

    assert run(tmp_path, "--help").returncode == 0
    assert run(tmp_path, "--version").stdout.startswith("mxgw ")
    assert asked.returncode == 2
    assert "settings.toml:1" in asked.stderr
