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
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mxgw_cli.main import root
from mxgw_cli.plugins import scaffold
from mxgw_cli.plugins.kinds import PluginKind
from mxgw_cli.plugins.scaffold import PluginNames
from mxgw_core.config import PluginsSettings
from mxgw_worker.backends import registry


def new(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["plugins", "new", *arguments], prog_name="mxgw")


def test_it_writes_a_whole_distribution_and_says_what_comes_next(tmp_path: Path) -> None:
    result = new("keep_values", "--directory", str(tmp_path))
    made = tmp_path / "mxgw-plugin-keep-values"

    assert result.exit_code == 0, result.output
    assert sorted(p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()) == [
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


@pytest.fixture(scope="module", params=list(PluginKind), ids=lambda kind: kind.value)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PluginKind, Path]:
    """A distribution of each kind, with the name `keep_values`."""
    directory = tmp_path_factory.mktemp("new")
    result = new("keep_values", "--kind", request.param.value, "--directory", str(directory))

    assert result.exit_code == 0, result.output

    (made,) = directory.iterdir()
    return request.param, made


def test_nothing_of_the_template_is_left_in_it(written: tuple[PluginKind, Path]) -> None:
    kind, made = written
    texts = [path.read_text() for path in made.rglob("*") if path.is_file()]
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    what = "backend" if kind.is_backend else "plugin"
    groups = {
        PluginKind.BACKEND: {"mxgw.backends": {"keep_values": "mxgw_backend_keep_values:KeepValuesBackend"}},
        PluginKind.AUTH: {
            group: {"keep_values": "mxgw_plugin_keep_values:KeepValuesPlugin"}
            for group in ("mxgw.plugins", "mxgw.access")
        },
    }

    assert not [text for text in texts if re.search(r"@\w+@", text)]
    assert made.name == project["name"] == f"mxgw-{what}-keep-values"
    assert project["entry-points"] == groups.get(
        kind, {"mxgw.plugins": {"keep_values": "mxgw_plugin_keep_values:KeepValuesPlugin"}}
    )
    assert (made / f"mxgw_{what}_keep_values" / "py.typed").is_file()
    assert (made / "README.md").is_file()
    assert list((made / "tests").glob("test_*.py"))


def test_what_it_writes_is_formatted_and_has_nothing_for_a_linter_to_say(tmp_path: Path) -> None:
    # Short and long names, sorted before and after those of other classes; the longest class, and the longest module.
    for name in ("ab", "z9", "keep_values", "a" + "n" * 39, "z" * 40, "a_" * 19 + "bc"):
        for kind in PluginKind:
            scaffold.write_plugin(PluginNames.of(name, kind), kind, tmp_path / name / kind.value)

    # The rules of the distribution itself, and more that authors choose.
    for command in (["format", "--check"], ["check", "--extend-select", "E,F,I,B,UP,PT,SIM,ASYNC,RUF022"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=tmp_path, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_has_the_code_of_its_contract(written: tuple[PluginKind, Path]) -> None:
    """The code is made from a description; the protobuf compiler is not there to compare it with the contract."""
    kind, made = written
    if kind is not PluginKind.SERVICE:
        return
    contract = (made / "protos" / "mxgw_plugin_keep_values" / "v1" / "notes.proto").read_text()
    code = "import mxgw_plugin_keep_values.v1.notes_pb2 as pb; print(pb.DESCRIPTOR.serialized_pb.hex())"
    done = subprocess.run([sys.executable, "-c", code], cwd=made, capture_output=True, text=True, check=True)
    file = FileDescriptorProto.FromString(bytes.fromhex(done.stdout))
    declared = re.findall(r"^(?:message (\w+)| {2}(?:repeated )?(\w+) (\w+) = (\d+);)", contract, re.MULTILINE)
    called = re.findall(r"rpc (\w+)\((\w+)\) returns \((stream )?(\w+)\)", contract)
    (service,) = file.service

    assert file.package == "mxgw_plugin_keep_values.v1"
    assert [word for words in declared for word in words if word] == [
        word
        for message in file.message_type
        for word in [
            message.name,
            *(
                word
                for field in message.field
                for word in (
                    field.type_name.rpartition(".")[2] or {9: "string"}[field.type],
                    field.name,
                    str(field.number),
                )
            ),
        ]
    ]
    assert called == [
        (
            method.name,
            method.input_type.rpartition(".")[2],
            "stream " if method.server_streaming else "",
            method.output_type.rpartition(".")[2],
        )
        for method in service.method
    ]


def test_as_json_it_names_the_files(tmp_path: Path) -> None:
    document = json.loads(new("ab", "--directory", str(tmp_path / "not" / "there"), "--json").stdout)

    assert document["directory"] == str(tmp_path / "not" / "there" / "mxgw-plugin-ab")
    assert document["kind"] == "policy"
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
        *((key, "") for key in PluginsSettings.model_fields),
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


@pytest.mark.parametrize(
    ("name", "kind", "owner"),
    [("sim", "backend", "mxgw"), ("opcua", "backend", "mxgw"), ("acl", "auth", "mxgw")],
)
def test_a_name_that_is_taken_says_by_whom(name: str, kind: str, owner: str, tmp_path: Path) -> None:
    result = new(name, "--kind", kind, "--directory", str(tmp_path))

    assert result.exit_code == 1
    assert re.search(rf"there is a (plugin|backend) '{name}' already, of {owner}", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_kinds_of_backends_are_those_of_the_worker() -> None:
    assert (scaffold.BACKENDS_GROUP, scaffold.BUILT_IN_KINDS) == (registry.ENTRY_POINT_GROUP, registry.BUILT_IN_KINDS)


def test_a_backend_may_have_the_name_of_a_plugin(tmp_path: Path) -> None:
    assert new("alarms", "--kind", "backend", "--directory", str(tmp_path)).exit_code == 0


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    result = new("ab", "--kind", "filter", "--directory", str(tmp_path))

    assert result.exit_code == 2
    assert all(kind.value in result.stderr for kind in PluginKind)


def test_the_help_says_what_each_kind_is() -> None:
    text = new("--help").stdout

    assert [kind for kind in PluginKind if not re.search(rf"^  {kind.value} +\w", text, re.MULTILINE)] == []


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
