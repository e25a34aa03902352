"""Tests of the plugin: its own code without a gateway, and the installed plugin in a gateway."""

import pytest
from click.testing import CliRunner
from mxgw_plugin_hello import HelloPlugin, HelloSettings

from mxgw_client import connect
from mxgw_core.api.errors import SettingsError
from mxgw_core.testing import running_gateway


@pytest.mark.asyncio
async def test_each_session_is_greeted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = {"plugins.enabled": ["hello"], "plugins.hello.greeting": "Moin"}
    async with (
        running_gateway(settings) as gateway,
        connect(gateway.target) as client,
        client.open_session(client_name="Anna"),
    ):
        assert "Moin, Anna!" in caplog.text


@pytest.mark.asyncio
async def test_a_misspelled_setting_names_the_right_one() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.hello\.greetin: unknown key; did you mean 'greeting'"):
        async with running_gateway({"plugins.enabled": ["hello"], "plugins.hello.greetin": "Moin"}):
            pass


def test_settings_change_the_greeting_of_the_command() -> None:
    plugin = HelloPlugin()
    plugin.mxgw_settings().apply(HelloSettings(greeting="Moin"))
    (command,) = plugin.mxgw_cli()

    assert CliRunner().invoke(command, ["Anna"]).output == "Moin, Anna!\n"


def test_control_characters_of_a_client_do_not_reach_the_log() -> None:
    assert HelloPlugin().greeting("a\x1b[2Jb\n") == "Hello, a[2Jb!"
