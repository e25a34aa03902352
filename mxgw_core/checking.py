"""Finds mistakes that would prevent the start of a gateway, for `mxgw serve`, `mxgw config check` and `mxgw doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import check_data_dir
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.calls import words_of
from mxgw_core.plugins.loading import text_of
from mxgw_core.rpc.listening import addresses_of, server_credentials
from mxgw_core.sessions.limits import subscriber_limits
from mxgw_core.workers.interpreter import check_python


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


def worker_problems(settings: Settings) -> list[str]:
    """Return the problem of the Python that `workers.python` names, if it has one. This starts the Python, and blocks
    until it has answered.
    """
    if settings.workers.python is not None:
        try:
            check_python(settings.workers.python)
        except SettingsError as error:
            return [str(error)]
    return []


def plugin_problems(settings: Settings, plugins: PluginHost) -> list[str]:
    """Return the problems that plugins report, in the order in which the settings enable the plugins."""
    return [problem for problems in problems_by_plugin(settings, plugins).values() for problem in problems]


def problems_by_plugin(settings: Settings, plugins: PluginHost) -> Mapping[str, Sequence[str]]:
    """Return the problems that plugins report. Key: a plugin that reports any, in the order of the settings.

    A check that fails is a problem too: nobody knows what it would have found.
    """
    found: dict[str, list[str]] = {}
    for answer in reversed(plugins.ask("mxgw_check_settings", limits=subscriber_limits(settings, plugins, None))):
        if answer.error is None:
            problems = [line for text in answer.value for line in text_of(text).splitlines()]
        elif issubclass(type(answer.error), SettingsError) and (text := text_of(answer.error)):
            problems = text.splitlines()
        else:
            what = answer.owner.calls.in_words(answer.owner, answer.owner.hook)
            problems = [f"{what} {words_of(answer.error)}, so the settings are not checked"]
        if problems:
            found[answer.plugin] = problems
    return found
