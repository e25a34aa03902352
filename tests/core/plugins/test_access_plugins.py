"""Plugins that decide about access: what their distributions must say, and that no gateway starts without them."""

from __future__ import annotations

from typing import Any

import pytest

from mxgw_core.api.access import ACCESS_HOOKS
from mxgw_core.api.errors import PluginError
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState, installed_plugins

from .conftest import Install, settings

pytestmark = pytest.mark.usefixtures("own_plugins_away")

GOOD = """
class Plugin:
    @hookimpl
    def mxgw_session_detached(self, session):
        pass
"""
TOKENS = """
class Plugin:
    @hookimpl
    def mxgw_authenticate(self, request):
        pass
"""


@pytest.fixture
def own_plugins_away(install: Install) -> None:
    """Put an empty distribution in the place of the project's own."""
    install("nothing", GOOD, distribution="mxgw")


def the(host: PluginHost, name: str) -> PluginRecord:
    (record,) = [record for record in host.records if record.name == name]
    return record


def test_a_declared_plugin_is_required_by_itself(install: Install) -> None:
    install("tokens", TOKENS, access=True)

    found = the(PluginHost.load(settings("tokens")), "tokens")

    assert (found.state, found.required, found.controls_access) == (PluginState.LOADED, True, True)


@pytest.mark.parametrize(
    "fault",
    [
        "raise OSError('no token file')",
        "import no_such_module",
        "import sys; sys.exit(3)",
        "import asyncio; raise asyncio.CancelledError",
        "def Plugin(): pass",
        TOKENS + "    def __init__(self): raise OSError('no token file')",
        TOKENS + "    @hookimpl\n    def mxgw_sesion_opened(self): pass",
        TOKENS + "    @hookimpl\n    def mxgw_settings(self): raise SystemExit(3)",
        TOKENS + "    def __dir__(self): raise ValueError('boom')",
    ],
)
def test_a_declared_plugin_that_cannot_be_loaded_stops_the_start(install: Install, fault: str) -> None:
    install("tokens", fault, access=True)

    with pytest.raises(PluginError, match=r"plugin 'tokens' of dist-tokens 1\.0, which decides about access, cannot"):
        PluginHost.load(settings("tokens"))


@pytest.mark.parametrize("hook", sorted(ACCESS_HOOKS))
def test_a_plugin_with_an_access_hook_must_be_declared(install: Install, hook: str) -> None:
    module = install("tokens", TOKENS.replace("mxgw_authenticate", hook).replace(", request", ""), access=False)

    with pytest.raises(PluginError) as caught:
        PluginHost.load(settings("tokens"))

    assert f"it has {hook}, and its distribution does not say that it decides about access" in str(caught.value)
    assert str(caught.value).endswith(f'[project.entry-points."mxgw.access"] tokens = "{module}:Plugin"')


@pytest.mark.parametrize(
    "code",
    [
        TOKENS.replace("@hookimpl", ""),  # not marked
        TOKENS.replace("mxgw_authenticate", "mxgw_authentikate"),
        TOKENS.replace("def", "async def"),
        TOKENS + "    def __init__(self): raise OSError('no token file')",
        TOKENS + "    @hookimpl\n    def mxgw_sesion_opened(self): pass",
        "def mxgw_authenticate(request): pass\nclass Made:\n    def __new__(cls):\n        import sys\n"
        "        return sys.modules[__name__]\nPlugin = Made()",
    ],
)
def test_an_undeclared_plugin_whose_access_hook_is_broken_stops_the_start(install: Install, code: str) -> None:
    install("tokens", code, access=False)

    with pytest.raises(PluginError, match=r"does not say that it decides about access"):
        PluginHost.load(settings("tokens"))


@pytest.mark.parametrize("line", ["tokns = {module}:Plugin", "tokens = {module}:Other", "other = other:Other"])
def test_a_declaration_of_what_is_no_plugin_of_the_distribution_stops_the_start(install: Install, line: str) -> None:
    install("tokens", "raise OSError('no token file')", access=line.format(module="dist_tokens_module"))

    with pytest.raises(PluginError, match=r"in the entry points 'mxgw\.access', and not in 'mxgw\.plugins': both need"):
        PluginHost.load(settings("tokens"))


def test_a_declaration_counts_for_its_own_distribution_only(install: Install) -> None:
    install("tokens", TOKENS, access=False)
    install("helper", GOOD, access="tokens = dist_tokens_module:Plugin")

    assert the(PluginHost.load(settings("nothing")), "helper").state is PluginState.AVAILABLE
    with pytest.raises(PluginError, match=r"'tokens' of dist-tokens 1\.0, which decides .* does not say"):
        PluginHost.load(settings("tokens"))


@pytest.mark.parametrize("group", ["mxgw.acess", "mxgw_access", "MXGW.Access", "mxgw.accesses"])
def test_a_group_with_nearly_the_name_of_the_one_for_access_stops_the_start(install: Install, group: str) -> None:
    install("tokens", "import no_such_module", access=f"\n[{group}]\ntokens = dist_tokens_module:Plugin")

    with pytest.raises(PluginError, match=f"which decides .* entry point group {group!r}, which means nothing"):
        PluginHost.load(settings("tokens"))


def test_other_groups_are_not_taken_for_the_one_for_access(install: Install) -> None:
    install(
        "tokens",
        GOOD,
        access="\n[console_scripts]\na = b:c\n[mxgw.backends]\na = b:c\n[pytest11]\na = b\n[acme.access]\na=b",
    )

    assert the(PluginHost.load(settings("tokens")), "tokens").state is PluginState.LOADED


def test_a_declaration_in_another_distribution_stops_the_start_of_a_plugin_that_cannot_be_imported(
    install: Install,
) -> None:
    install("tokens", "import no_such_module", access=False)
    install("helper", GOOD, access="tokens = dist_tokens_module:Plugin")

    with pytest.raises(PluginError, match=r"does not say .*, and dist-helper says so: the line in 'mxgw\.access' must"):
        PluginHost.load(settings("tokens"))


def test_a_name_that_is_declared_and_offered_by_nobody_is_explained(install: Install) -> None:
    install("helper", GOOD, access="tokens = somewhere:Plugin")

    with pytest.raises(
        PluginError, match=r"'tokens' cannot be used: dist-helper has it in the entry points 'mxgw\.acc"
    ):
        PluginHost.load(settings("tokens"))


def test_a_declared_plugin_that_is_not_enabled_changes_nothing(install: Install) -> None:
    install("tokens", "raise OSError('no token file')", access=True)

    host = PluginHost.load(settings("nothing"))

    expected = PluginRecord("tokens", PluginState.AVAILABLE, "dist-tokens", "1.0", required=False, controls_access=True)
    assert the(host, "tokens") == expected
    assert expected in installed_plugins()


def test_a_declared_plugin_whose_settings_are_wrong_stops_the_start(install: Install) -> None:
    install("tokens", TOKENS, access=True)
    section: dict[str, Any] = {"file": "tokens.txt"}

    with pytest.raises(Exception, match=r"plugins\.tokens"):
        PluginHost.load(settings("tokens", tokens=section))
