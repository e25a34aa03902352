"""Which layer wins, how tables merge, and where each value is said to come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxgw_core.config import Settings, load_settings
from mxgw_core.config.files import Source
from mxgw_core.config.layers import tree_of, values
from mxgw_core.config.merging import laid_over

from .conftest import Site


def test_an_empty_directory_gives_the_defaults(site: Site) -> None:
    loaded = site.load()

    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.files == ()


def test_each_layer_wins_over_the_ones_before_it(site: Site) -> None:
    names = ("sessions", "pending_commands", "items_per_call", "concurrent_calls", "connection_streams")

    def table(number: int) -> str:
        return "[limits]\n" + "".join(f"{name} = {number}\n" for name in names[number - 1 :])

    site.write(table(1))
    named = site.write(table(2), "elsewhere/site.toml")
    site.write(table(3), ".secrets.toml")
    environ = {f"MXGW_LIMITS__{name.upper()}": "4" for name in names[3:]}

    loaded = site.load(named, environ=environ, overrides={"limits.connection_streams": 5})

    assert [getattr(loaded.settings.limits, name) for name in names] == [1, 2, 3, 4, 5]
    assert [loaded.origins[f"limits.{name}"] for name in names] == [
        "settings.toml",
        str(named),
        ".secrets.toml",
        "environment MXGW_LIMITS__CONCURRENT_CALLS",
        "command line",
    ]
    assert loaded.origins["limits.lease_s"] == "default"


def test_secrets_beside_the_named_file_count_too(site: Site) -> None:
    named = site.write("[backends.line]\nkind = 'opcua'", "elsewhere/site.toml")
    site.write("[backends.line]\npassword = 'near the directory'\nuser = 'anna'", ".secrets.toml")
    beside = site.write("[backends.line]\npassword = 'near the file'", "elsewhere/.secrets.toml")

    loaded = site.load(named, overrides={"backends.default": "line"})

    assert loaded.settings.backends["line"].options() == {"password": "near the file", "user": "anna"}
    assert loaded.origins["backends.line.password"] == str(beside)
    assert loaded.files == (named, site.directory / ".secrets.toml", beside)


def test_naming_the_directory_s_own_file_reads_it_once(site: Site) -> None:
    own = site.write("[limits]\nsessions = 3")

    assert site.load(own).files == (own,)


def test_files_of_another_directory_are_named_in_full(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.write("[limits]\nsessions = 3", "there/settings.toml")

    loaded = load_settings(directory=file.parent, environ={})

    assert loaded.origins["limits.sessions"] == str(file)


def test_tables_merge_and_lists_replace(site: Site) -> None:
    site.write(
        "[gateway]\nlisten = ['127.0.0.1:1', '127.0.0.1:2']\nreflection = true\n[plugins.x.deep]\na = [1]\nb = 1"
    )
    named = site.write("[gateway]\nlisten = ['127.0.0.1:3']\n[plugins.x.deep]\na = [2]\nc = 3", "site.toml")

    settings = site.load(named).settings

    assert settings.gateway.listen == ("127.0.0.1:3",)
    assert settings.gateway.reflection is True
    assert settings.plugin_sections == {"x": {"deep": {"a": [2], "b": 1, "c": 3}}}


def test_keys_that_are_methods_of_dictionaries_are_ordinary_keys(site: Site) -> None:
    site.write("[workers]\nitems = 7\n[plugins.x]\nkeys = 1\ncopy = {get = 2}\n'a.b' = 3\na__b = 4")
    named = site.write("[plugins.x]\nupdate = 5\ncopy = {pop = 6}", "site.toml")

    settings = site.load(named).settings

    assert settings.workers.items == 7
    assert settings.plugin_sections["x"] == {
        "keys": 1, "copy": {"get": 2, "pop": 6}, "a.b": 3, "a__b": 4, "update": 5,
    }  # fmt: skip


def test_sim_is_there_until_another_backend_is_configured(site: Site) -> None:
    assert set(site.load().settings.backends) == {"sim"}

    site.write("[backends]\ndefault = 'line'\n[backends.line]\nkind = 'opcua'\n[backends.opcua]\n")

    settings = site.load().settings
    assert settings.default_backend == "line"
    assert {name: backend.kind for name, backend in settings.backends.items()} == {"line": "opcua", "opcua": "opcua"}


TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers(), max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old[key], value) if key in old else value for key, value in new.items()}
    return new


@given(st.lists(TREES, max_size=4))
def test_merging_is_what_it_says(layers: list[dict[str, Any]]) -> None:
    expected: Any = {}
    for layer in layers:
        expected = merged(expected, layer)

    assert values(laid_over([tree_of(layer, Source("a layer")) for layer in layers])) == expected


@pytest.mark.parametrize(
    "text", ["@int 5", "@jinja {{ 1 + 1 }}", "@format {env[HOME]}", "@read_file /etc/hostname", "@del", "$HOME", "~/x"]
)
def test_texts_are_taken_as_they_stand(site: Site, text: str) -> None:
    site.write(f"[plugins.x]\nkept = 1\na = '{text}'\nb = ['{text}', 'dynaconf_merge']")
    overrides = {"plugins.x.c": text}

    section = site.load(environ={"MXGW_PLUGINS__X__D": text}, overrides=overrides).settings.plugin_sections["x"]

    assert section == {"kept": 1, "a": text, "b": [text, "dynaconf_merge"], "c": text, "d": text}


def test_a_relative_path_stays_relative(site: Site) -> None:
    site.write("[gateway]\ndata_dir = 'state'")

    assert site.load().settings.gateway.data_dir == Path("state")
