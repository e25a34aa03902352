"""dynaconf layers, and does nothing else: no file, variable or import of its own reaches the settings."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import mxgw_core

LOAD = """
import json, sys
from mxgw_core.config import load_settings
early = "dynaconf" in sys.modules
loaded = load_settings()
print(json.dumps([early, "dynaconf" in sys.modules, loaded.settings.limits.sessions, [str(f) for f in loaded.files],
                  loaded.settings.plugin_sections]))
"""


def load(directory: Path, **environ: str) -> list[object]:
    process = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=directory,
        env={key: value for key, value in os.environ.items() if not key.startswith("MXGW_")} | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.returncode == 0, process.stderr
    result: list[object] = json.loads(process.stdout)
    return result


def test_dynaconf_is_imported_when_settings_are_loaded_and_not_before(tmp_path: Path) -> None:
    assert load(tmp_path)[:2] == [False, True]


def test_dynaconf_s_own_files_and_variables_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[limits]\nsessions = 7\n[plugins.x]\na = '@int 5'\nb = [1]")
    foreign = "[limits]\nsessions = 666\n"
    for name in ("settings.local.toml", "other.toml", "config/settings.toml", "development_settings.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(foreign)
    (tmp_path / ".env").write_text("MXGW_LIMITS__SESSIONS=666\nDYNACONF_LIMITS__SESSIONS=666\n")
    (tmp_path / "dynaconf_hooks.py").write_text("raise SystemExit('a hook of dynaconf ran')")

    _, _, sessions, files, sections = load(
        tmp_path,
        SETTINGS_FILE_FOR_DYNACONF="other.toml",
        SETTINGS_FILES_FOR_DYNACONF="other.toml",
        SECRETS_FOR_DYNACONF=str(tmp_path / "other.toml"),
        INCLUDES_FOR_DYNACONF='["other.toml"]',
        PRELOAD_FOR_DYNACONF='["other.toml"]',
        ROOT_PATH_FOR_DYNACONF="/",
        ENVVAR_PREFIX_FOR_DYNACONF="false",
        AUTO_CAST_FOR_DYNACONF="true",
        MERGE_ENABLED_FOR_DYNACONF="true",
        ENVIRONMENTS_FOR_DYNACONF="true",
        LOAD_DOTENV_FOR_DYNACONF="true",
        SYSENV_FALLBACK_FOR_DYNACONF="true",
        DYNACONF_LIMITS__SESSIONS="666",
        DYNACONF_MXGW="{limits={sessions=666}}",
    )

    assert sessions == 7
    assert files == [str(tmp_path / "settings.toml")]
    assert sections == {"x": {"a": "@int 5", "b": [1]}}


def test_one_module_alone_knows_dynaconf() -> None:
    package = Path(mxgw_core.__file__).parent
    knowing = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "dynaconf" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dynaconf")
    ]

    assert knowing == ["config/merging.py"]
