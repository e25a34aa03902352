"""Where a service has its data and its log, and what its settings say about its end."""

from __future__ import annotations

from pathlib import Path

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.loader import LoadedSettings, load_settings
from mxgw_core.config.models import Settings
from mxgw_worker.platform.services import ServiceRecord

# What a stop takes besides the gateway's own limits, for example to close files.
_MARGIN_S = 10.0


def settings_of(file: Path) -> LoadedSettings:
    """Return the settings of a service, as far as another process can know them: the service has its own environment.

    Raises:
        SettingsError: the settings have problems.
    """
    return load_settings(file, environ={}, directory=file.parent)


def absolute_data_dir(settings_file: Path, settings: Settings) -> Path:
    """Return gateway.data_dir of a service, which runs in the directory of its settings file."""
    return (settings_file.parent / settings.gateway.data_dir).resolve()


def data_dir_of(record: ServiceRecord) -> Path | None:
    """Return gateway.data_dir of an installed service; None when its settings cannot be read any more."""
    try:
        loaded = settings_of(record.settings)
    except (SettingsError, OSError):
        return None
    return absolute_data_dir(record.settings, loaded.settings)


def log_file_in(data_dir: Path) -> Path:
    """Return the file to which a service logs."""
    return data_dir / "logs" / "service.log"


def stop_limit_s(settings: Settings) -> float:
    """Return how many seconds a gateway with these settings may take to stop: for calls, workers, plugins and files."""
    return (
        settings.gateway.drain_timeout_s + settings.workers.stop_grace_s + settings.plugins.stop_timeout_s + _MARGIN_S
    )
