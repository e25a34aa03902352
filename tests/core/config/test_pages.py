"""The default settings file and the generated pages say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from mxgw_core.config import Settings, load_settings, schema

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "generate_docs.py"
PAGE = ROOT / "docs" / "configuration.md"


def test_the_default_file_changes_nothing() -> None:
    loaded = load_settings(ROOT / "settings.toml", environ={}, directory=ROOT / "docs")

    assert loaded.settings == Settings()


def test_the_default_file_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    shown = re.sub(r"^# (?=\w+ = )", "", (ROOT / "settings.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "settings.toml").write_text(shown, encoding="utf-8")

    loaded = load_settings(environ={}, directory=tmp_path)

    unset = {"tls.certificate", "tls.private_key", "tls.client_ca", "workers.python"}
    assert loaded.settings == Settings()
    assert {key for key, origin in loaded.origins.items() if origin == "default"} == unset
    assert [section for section in schema.SECTIONS if section not in tomllib.loads(shown)] == []


@pytest.mark.parametrize("key", ["certificate", "private_key", "client_ca"])
def test_settings_without_default_are_shown_as_examples(key: str) -> None:
    assert re.search(rf"^#   {key} = ", (ROOT / "settings.toml").read_text(encoding="utf-8"), re.MULTILINE)


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--check", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_generated_pages_are_up_to_date() -> None:
    result = check(ROOT)

    assert result.returncode == 0, result.stderr


def test_pages_that_are_missing_or_differ_fail_the_check(tmp_path: Path) -> None:
    (tmp_path / "docs" / "backends").mkdir(parents=True)
    changed = tmp_path / "docs" / "configuration.md"
    changed.write_text(PAGE.read_text(encoding="utf-8").replace("`64`", "`65`"), encoding="utf-8")
    same = Path("docs", "backends", "reference.md")
    (tmp_path / same).write_text((ROOT / same).read_text(encoding="utf-8"), encoding="utf-8")
    result = check(tmp_path)

    assert result.returncode == 1
    assert [line.partition(" ")[0] for line in result.stderr.splitlines()] == [
        str(changed),
        str(tmp_path / "docs" / "plugins" / "reference.md"),
    ]


def test_the_page_s_example_of_errors_is_what_the_loader_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.toml").write_text("[limits]\nsesions = 5\n")

    with pytest.raises(Exception, match="sesions") as caught:
        load_settings(environ={"MXGW_EVENTS__QUEUE_BYTES": "many"})

    assert f"```text\n{caught.value}\n```" in PAGE.read_text(encoding="utf-8")


def test_every_setting_of_a_built_in_plugin_is_on_the_page_with_its_meaning() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "`MXGW_PLUGINS__" in line]
    plugins = {entry.name for entry in distribution("mxgw").entry_points.select(group="mxgw.plugins")}

    assert {row.split("MXGW_PLUGINS__")[1].split("__")[0].lower() for row in rows} >= plugins
    assert [row for row in rows if row.endswith("|  |")] == []
