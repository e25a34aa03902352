"""The plugin: its settings, and the policy for each subscriber that asks for it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mxgw_core.api import OverflowPolicy, PolicyRequest, SettingsSection, hookimpl
from mxgw_core.api.errors import InvalidRequest
from mxgw_plugin_keep_alarms.policy import KeepAlarmsPolicy

NAME = "keep_alarms"


class KeepAlarmsSettings(BaseModel):
    """The settings `[plugins.keep_alarms]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: bool = Field(False, description="Also for readers that ask for no policy.")
    most_items: int = Field(1_000, ge=1, le=100_000, description="How many items a reader may name.")
    patience_s: float = Field(60.0, gt=0, description="How long a reader may be behind before it is disconnected.")


class KeepAlarmsPlugin:
    """Makes the policy when a subscriber asks for it by its name and, with `default`, when a subscriber names no
    policy.
    """

    # The versions of the plugin API with which this plugin can be used.
    requires_api = ">=1.0,<2"

    def __init__(self) -> None:
        self._settings = KeepAlarmsSettings()

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[KeepAlarmsSettings]:
        return SettingsSection(NAME, KeepAlarmsSettings, self._apply)

    @hookimpl
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        if request.name != NAME and not (request.name == "" and self._settings.default):
            return None
        return KeepAlarmsPolicy(self._items(request), self._settings.patience_s)

    def _items(self, request: PolicyRequest) -> frozenset[int]:
        """Return the item handles that the subscriber named.

        They are checked, because a subscriber can send anything.
        """
        words = [word for word in request.parameters.get("items", "").split(",") if word.strip()]
        most = self._settings.most_items
        try:
            items = frozenset(int(word) for word in words)
        except ValueError:
            raise InvalidRequest(
                "items must be item handles with commas between them, for example 3,17,42",
                metadata={"field": "policy.parameters.items"},
            ) from None
        if len(items) > most:
            raise InvalidRequest(
                f"items names {len(items)} items; plugins.keep_alarms.most_items allows {most}",
                metadata={"field": "policy.parameters.items"},
            )
        return items

    def _apply(self, settings: KeepAlarmsSettings) -> None:
        self._settings = settings
