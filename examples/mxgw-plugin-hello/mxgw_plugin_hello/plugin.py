"""The plugin: an object whose methods with the mark `hookimpl` are its hooks."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import click
from pydantic import BaseModel, ConfigDict, Field

from mxgw_core.api import SessionInfo, SettingsSection, hookimpl

log = logging.getLogger(__name__)


class HelloSettings(BaseModel):
    """The settings `[plugins.hello]`.

    They cannot be changed later. A wrong key is an error that names the nearest valid key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: str = Field("Hello", min_length=1, description="The first word.")
    most_characters: int = Field(80, ge=10, le=1000, description="Longer greetings are cut.")


class HelloPlugin:
    """Made once, without arguments, when the plugin `hello` is enabled.

    `mxgw_settings` is called before any other hook.
    """

    # The versions of the plugin API with which this plugin can be used.
    requires_api = ">=1.0,<2"

    def __init__(self) -> None:
        self._settings = HelloSettings()

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[HelloSettings]:
        return SettingsSection("hello", HelloSettings, self._apply)

    @hookimpl
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        log.info("%s", self.greeting(session.client_name or "stranger"))

    @hookimpl
    def mxgw_cli(self) -> Sequence[click.Command]:
        @click.command("hello")
        @click.argument("name", default="world")
        def hello(name: str) -> None:
            """Greet NAME."""
            click.echo(self.greeting(name))

        return [hello]

    def greeting(self, name: str) -> str:
        """Return the greeting.

        The name comes from a client, so it is made printable before it reaches a log or a terminal.
        """
        printable = "".join(character for character in name if character.isprintable())
        return f"{self._settings.greeting}, {printable}!"[: self._settings.most_characters]

    def _apply(self, settings: HelloSettings) -> None:
        self._settings = settings
