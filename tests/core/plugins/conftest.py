"""Plugins as sites have them: real distributions on the path, found by their real entry points."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mxgw_core.api.access import ACCESS_HOOKS
from mxgw_core.config import PluginsSettings, Settings

Install = Callable[..., str]

HEADER = """
from mxgw_core.api import *
from mxgw_core.api import hookimpl
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one module; return the module's name.

    `install("hello", code)` offers plugin "hello", made by class `Plugin` of the module; `value` says otherwise. A
    distribution says that its plugin decides about access when the code has an access hook; `access` says otherwise, or
    is another line that says so.
    """
    before = set(sys.modules)

    def put(
        name: str,
        code: str,
        *,
        distribution: str = "",
        version: str = "1.0",
        value: str = "",
        access: bool | str | None = None,
    ) -> str:
        distribution = distribution or f"dist-{name}"
        module = f"dist_{distribution.removeprefix('dist-').replace('-', '_')}_module"
        folder = tmp_path / distribution
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        target = value.format(module=module) or f"{module}:Plugin"
        line = f"{name} = {target}\n"
        if access is None:
            access = any(f"def {hook}(" in code for hook in ACCESS_HOOKS)
        declared = f"[mxgw.access]\n{line if access is True else access}\n" if access else ""
        (metadata / "entry_points.txt").write_text(f"[mxgw.plugins]\n{line}{declared}")
        (folder / f"{module}.py").write_text(HEADER + textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(folder))
        return module

    yield put
    for module in set(sys.modules) - before:
        if module.startswith("dist_"):
            del sys.modules[module]


def settings(*enabled: str, required: tuple[str, ...] = (), **sections: Mapping[str, Any]) -> Settings:
    return Settings(
        plugins=PluginsSettings(enabled=enabled, required=required),
        plugin_sections={name: dict(section) for name, section in sections.items()},
    )
