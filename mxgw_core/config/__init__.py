"""Settings: their models, and loading them from files, environment and command line."""

from mxgw_core.config.effective import EffectiveSetting, effective_settings
from mxgw_core.config.loader import LoadedSettings, load_settings
from mxgw_core.config.models import (
    BackendSettings,
    EventSettings,
    GatewaySettings,
    LimitSettings,
    PluginsSettings,
    Settings,
    SettingsModel,
    TlsSettings,
    WorkerSettings,
)

__all__ = [
    "BackendSettings",
    "EffectiveSetting",
    "EventSettings",
    "GatewaySettings",
    "LimitSettings",
    "LoadedSettings",
    "PluginsSettings",
    "Settings",
    "SettingsModel",
    "TlsSettings",
    "WorkerSettings",
    "effective_settings",
    "load_settings",
]
