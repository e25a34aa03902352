"""Finds mistakes that would prevent the start of a gateway, for `mxgw serve`, `mxgw config check` and `mxgw doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import check_data_dir
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.listening import addresses_of, server_credentials
from mxgw_core.sessions.limits import subscriber_limits


def settings_problems(settings: Settings, plugins: PluginHost) -> list[str]:
    """Return the problems of settings that are valid by themselves, for example an unusable data directory.

    Each problem is one line. Nothing is created or changed.
    """
    authenticated = plugins.implements("mxgw_authenticate")
    checks: tuple[Callable[[], object], ...] = (
        lambda: addresses_of(settings, authenticated=authenticated),
        lambda: check_data_dir(settings.gateway.data_dir),
        lambda: server_credentials(settings.tls),
    )
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except SettingsError as error:
            problems += str(error).splitlines()
    return [*problems, *plugin_problems(settings, plugins)]


def plugin_problems(settings: Settings, plugins: PluginHost) -> list[str]:
    """Return the problems that plugins report, in the order in which the settings enable the plugins."""
    return [problem for problems in problems_by_plugin(settings, plugins).values() for problem in problems]


def problems_by_plugin(settings: Settings, plugins: PluginHost) -> Mapping[str, Sequence[str]]:
    """Return the problems that plugins report. Key: a plugin that reports any, in the order of the settings."""
    found: dict[str, list[str]] = {}
    for answer in reversed(plugins.ask("mxgw_check_settings", limits=subscriber_limits(settings, plugins, None))):
        if isinstance(answer.error, SettingsError):
            problems = str(answer.error).splitlines()
        elif answer.error is None:  # `PluginHost.ask` has already logged other exceptions
            problems = [line for text in answer.value for line in str(text).splitlines()]
        else:
            problems = []
        if problems:
            found[answer.plugin] = problems
    return found
