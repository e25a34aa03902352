"""What `mxgw plugins new` writes works: installed with pip, it passes its own tests, which run gateways with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.strangers import environment_with, run

from mxgw_cli.plugins.kinds import PluginKind
from mxgw_cli.plugins.scaffold import PluginNames, write_plugin


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment in which a plugin of each kind is installed."""
    folder = tmp_path_factory.mktemp("stranger")
    written = [write_plugin(PluginNames.of(f"acme_{kind.value}", kind), kind, folder)[0] for kind in PluginKind]
    return environment_with(folder, *written)


def test_the_own_tests_of_a_new_plugin_of_each_kind_pass_where_it_is_installed(stranger: Path) -> None:
    sources = stranger.parents[2] / "sources"
    tests = sorted(map(str, sources.glob("*/tests")))
    pytest_of_it = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(sources))
    done = run(stranger, *pytest_of_it, *tests, timeout_s=250)

    assert len(tests) == len(PluginKind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)


def test_all_of_them_can_be_enabled_together(stranger: Path) -> None:
    names = [f"acme_{kind.value}" for kind in PluginKind if not kind.is_backend]
    done = run(stranger, "-m", "mxgw_cli", "plugins", "--json", MXGW_PLUGINS__ENABLED=",".join(names))
    plugins = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}

    assert {name: plugins[name]["state"] for name in names} == dict.fromkeys(names, "loaded"), done.stdout
    assert plugins["acme_auth"]["commands"] == ["acme-auth"]
