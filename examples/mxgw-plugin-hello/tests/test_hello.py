"""Tests of the plugin: its own code without a gateway, and whether the plugin host of mxgw accepts it."""

import pytest
from click.testing import CliRunner
from mxgw_plugin_hello import HelloPlugin

from mxgw_core.api.errors import SettingsError
from mxgw_core.config import PluginsSettings, Settings
from mxgw_core.plugins import PluginHost, PluginState


def enabled(**section: object) -> Settings:
    return Settings(plugins=PluginsSettings(enabled=("hello",)), plugin_sections={"hello": section})


def test_the_host_loads_the_installed_plugin() -> None:
    host = PluginHost.load(enabled())

    assert [(r.name, r.state) for r in host.records if r.name == "hello"] == [("hello", PluginState.LOADED)]


def test_settings_change_the_greeting() -> None:
    (answer,) = PluginHost.load(enabled(greeting="Moin")).ask("mxgw_cli")

    assert CliRunner().invoke(answer.value[0], ["Anna"]).output == "Moin, Anna!\n"


def test_a_misspelled_setting_names_the_right_one() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.hello\.greetin: unknown key; did you mean 'greeting'"):
        PluginHost.load(enabled(greetin="Moin"))


def test_control_characters_of_a_client_do_not_reach_the_log() -> None:
    assert HelloPlugin().greeting("a\x1b[2Jb\n") == "Hello, a[2Jb!"
