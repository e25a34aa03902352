"""Installs an object of a test as a plugin: as a real distribution with a real entry point."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mxgw_core.plugins.calls import Owner, PluginCalls
from mxgw_core.plugins.loading import access_hooks_of

InstallPlugin = Callable[..., str]

_numbers = itertools.count(1)


def owner_of(hook: str, plugin: str = "probe") -> Owner:
    """Return the owner of an object that the hook of a plugin has returned."""
    return PluginCalls({}).owner(plugin, hook)


@pytest.fixture
def install_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InstallPlugin]:
    """A fixture: `install_plugin("probe", Probe())` installs the object as plugin `probe`. Enable it in
    `plugins.enabled`.

    A plugin that has access hooks gets the entry point that says so, unless `access` says otherwise.
    """
    modules: list[str] = []

    def install(name: str, plugin: object, *, access: bool | None = None) -> str:
        module = f"mxgw_test_plugin_{next(_numbers)}"
        folder: Path = tmp_path_factory.mktemp("plugin")
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        line = f"{name} = {module}:plugin\n"
        declared = f"[mxgw.access]\n{line}" if (access_hooks_of(plugin) if access is None else access) else ""
        (metadata / "entry_points.txt").write_text(f"[mxgw.plugins]\n{line}{declared}")
        made = types.ModuleType(module)
        made.plugin = plugin  # type: ignore[attr-defined]
        sys.modules[module] = made
        modules.append(module)
        monkeypatch.syspath_prepend(str(folder))
        return name

    yield install
    for module in modules:
        sys.modules.pop(module, None)
