"""`mxgw plugins new`: names, what is written, and that nothing is overwritten. Whether it works is tested elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mxgw_cli.main import root


def new(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["plugins", "new", *arguments], prog_name="mxgw")


def test_it_writes_a_whole_distribution_and_says_what_comes_next(tmp_path: Path) -> None:
    result = new("keep_values", "--directory", str(tmp_path))
    made = tmp_path / "mxgw-plugin-keep-values"

    assert result.exit_code == 0, result.output
    assert sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()) == [
        "README.md",
        "mxgw_plugin_keep_values/__init__.py",
        "mxgw_plugin_keep_values/plugin.py",
        "mxgw_plugin_keep_values/policy.py",
        "mxgw_plugin_keep_values/py.typed",
        "pyproject.toml",
        "tests/test_policy.py",
    ]
    assert "pip install -e" in result.stdout
    assert "enable 'keep_values'" in result.stdout


def test_nothing_of_the_template_is_left_in_it(tmp_path: Path) -> None:
    new("keep_values", "--directory", str(tmp_path))
    texts = [p.read_text() for p in (tmp_path / "mxgw-plugin-keep-values").rglob("*") if p.is_file()]
    project = tomllib.loads((tmp_path / "mxgw-plugin-keep-values" / "pyproject.toml").read_text())["project"]

    assert not [text for text in texts if re.search(r"@\w+@", text)]
    assert project["name"] == "mxgw-plugin-keep-values"
    assert project["entry-points"]["mxgw.plugins"] == {"keep_values": "mxgw_plugin_keep_values:KeepValuesPlugin"}


def test_what_it_writes_is_formatted_and_has_nothing_for_a_linter_to_say(tmp_path: Path) -> None:
    new("keep_values", "--directory", str(tmp_path))
    for command in (["format", "--check"], ["check", "--select", "E,F,I,B,UP"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length=120", "--no-cache", "--isolated", str(tmp_path)],
            cwd=tmp_path / "mxgw-plugin-keep-values",
            capture_output=True,
            text=True,
        )

        assert done.returncode == 0, done.stdout + done.stderr


def test_as_json_it_names_the_files(tmp_path: Path) -> None:
    document = json.loads(new("ab", "--directory", str(tmp_path / "not" / "there"), "--json").stdout)

    assert document["directory"] == str(tmp_path / "not" / "there" / "mxgw-plugin-ab")
    assert "mxgw_plugin_ab/policy.py" in document["files"]


def test_the_working_directory_is_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new("ab")

    assert (tmp_path / "mxgw-plugin-ab" / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Keep-Values", "keep_values"),
        ("keep values", "keep_values"),
        ("keep__values", "keep_values"),
        ("_keep", "keep"),
        ("9lives", "lives"),
        ("../evil", "evil"),
        ("class", ""),
        ("x", ""),
        ("", ""),
        ("ä", ""),
        ("a" * 41, "a" * 40),
        ("keep_values\n", "keep_values"),
    ],
)
def test_a_name_that_is_none_is_refused_with_one_that_is(name: str, hint: str, tmp_path: Path) -> None:
    result = new("--directory", str(tmp_path), "--", name)

    assert result.exit_code == 1
    assert "is no name for a plugin" in result.stderr
    assert (f"For example: {hint}\n" in result.stderr) if hint else ("Hint" not in result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_plugin_is_refused(tmp_path: Path) -> None:
    result = new("backpressure", "--directory", str(tmp_path))

    assert result.exit_code == 1
    assert "there is a plugin 'backpressure' already, of mxgw" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "mxgw-plugin-ab").mkdir()
    (tmp_path / "mxgw-plugin-ab" / "notes.txt").write_text("mine")
    result = new("ab", "--directory", str(tmp_path))

    assert result.exit_code == 1
    assert "nothing is overwritten" in result.stderr
    assert [p.name for p in (tmp_path / "mxgw-plugin-ab").iterdir()] == ["notes.txt"]


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = new("ab", "--directory", str(tmp_path / "file" / "below"))

    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "file" in result.stderr


def test_plugins_without_a_command_still_lists() -> None:
    listed = CliRunner().invoke(root, ["plugins", "--json", "--set", "plugins.enabled=backpressure"], prog_name="mxgw")

    assert listed.exit_code == 0
    assert json.loads(listed.stdout)["plugins"][0]["state"] == "loaded"
