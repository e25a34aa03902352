"""What an access hook decides is denied when its plugin fails while the gateway serves. One test per hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from support.plugins import InstallPlugin

from mxgw.v1.commands_pb2 import MxCommand, RegisterCommand
from mxgw_core.api import AccessRequest, Allow, Identity, Operator, OperatorCredentials, Peer, hookimpl
from mxgw_core.api.access import ACCESS_HOOKS
from mxgw_core.api.errors import PluginFailed
from mxgw_core.config import PluginsSettings, Settings
from mxgw_core.plugin_gateway import PluginGateway
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl, denied_inputs
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.testing import session_info

ALICE = Identity("alice", "key")
ANNA = Operator("anna", ("viewer",))
PEER = Peer("here", is_local=True)
INFO = session_info()
CREDENTIALS = OperatorCredentials("anna", "secret", PEER)


class Everything:
    """What hooks return: it allows and keeps everything."""

    def denied(self, command: object, items: object) -> dict[int, str]:
        return {}

    def keep(self, item: object, kind: int) -> bool:
        return True

    def may_read(self, reference: str) -> bool:
        return True

    def may_write(self, reference: str) -> bool:
        return True

    def decided(self, action: str, allowed: object, denied: object) -> None:
        pass


ANSWERS: dict[str, object] = {
    "mxgw_authenticate": ALICE,
    "mxgw_authorize": Allow(),
    "mxgw_decided": None,
    "mxgw_command_guard": Everything(),
    "mxgw_event_filter": Everything(),
    "mxgw_item_access": Everything(),
    "mxgw_authenticate_operator": ANNA,
    "mxgw_renew_operator": ANNA,
    "mxgw_operator_left": None,
    "mxgw_operator_sessions": lambda session: True,
}


class Failing:
    """A gateway's access control with a plugin of one hook, and with another plugin that allows and answers too."""

    def __init__(self, install_plugin: InstallPlugin, hook: str) -> None:
        self.asked: list[str] = []

        def answer(self: Any) -> object:
            asked.append(hook)
            return ANSWERS[hook]

        asked = self.asked
        answer.__name__ = hook
        plugin = type("OneHook", (), {hook: hookimpl(answer), "mxgw_retention": hookimpl(lambda self: None)})
        install_plugin("first", type("OneHook", (), {hook: hookimpl(lambda self: None)})())
        install_plugin("tokens", plugin())
        self.host = PluginHost.load(Settings(plugins=PluginsSettings(enabled=("first", "tokens"))))
        self.access = AccessControl(self.host)
        nobody = cast("Any", None)
        self.gateway = PluginGateway(
            "id", Settings(), self.host, nobody, nobody, self.access, nobody, nobody, CallCounts()
        )

    def fail(self) -> None:
        self.host.take_down("tokens", "its context raised OSError")
        self.asked.clear()


@pytest.fixture
def failing(install_plugin: InstallPlugin) -> Callable[[str], Failing]:
    return lambda hook: Failing(install_plugin, hook)


def denies(call: Callable[[], object]) -> None:
    for _ in range(2):
        with pytest.raises(
            PluginFailed, match=r"'tokens' of the gateway has failed.* all that it decides is denied"
        ) as e:
            call()
        assert e.value.metadata == {"plugin": "tokens"}


def test_a_caller_who_was_authenticated_before_the_failure_is_not_authorized_after_it(failing: Any) -> None:
    bench = failing("mxgw_authenticate")
    identity = bench.access.authenticate("/a.B/C", PEER, {})
    bench.fail()

    denies(lambda: bench.access.authorize(AccessRequest("/a.B/C", identity, PEER)))


@pytest.mark.parametrize("hook", sorted(ACCESS_HOOKS))
def test_a_failed_plugin_is_not_called_any_more_and_counts_as_failing(failing: Any, hook: str) -> None:
    bench = failing(hook)

    bench.fail()

    assert bench.host.implements(hook)
    assert not bench.host.is_open(hook)
    denies(lambda: bench.host.check(hook))
    assert not bench.host.implements("mxgw_retention")
    assert bench.host.failures == {}
    assert bench.asked == []


def test_callers_are_not_authenticated(failing: Any) -> None:
    bench = failing("mxgw_authenticate")
    assert bench.access.authenticate("/x", PEER, {}) == ALICE

    bench.fail()

    assert bench.access.authenticates
    denies(lambda: bench.access.authenticate("/x", PEER, {}))


@pytest.mark.parametrize("hook", ["mxgw_authorize", "mxgw_decided"])
def test_calls_are_not_allowed(failing: Any, hook: str) -> None:
    bench = failing(hook)
    request = AccessRequest("/mxgw.v1.GatewayService/Ping", ALICE, PEER)
    bench.access.authorize(request)

    bench.fail()

    denies(lambda: bench.access.authorize(request))


@pytest.mark.asyncio
async def test_commands_are_denied_also_by_guards_that_were_given_before(failing: Any) -> None:
    bench = failing("mxgw_command_guard")
    guards = bench.access.guards(INFO, ALICE)
    command = MxCommand(register=RegisterCommand(client_name="test"))
    assert await denied_inputs(guards, command, []) == {}

    bench.fail()

    denies(lambda: bench.access.guards(INFO, ALICE))
    denies(bench.access.check_guards)
    denies(lambda: guards[0].denied(command, ()))


def test_streams_get_no_filter_and_so_are_not_opened(failing: Any) -> None:
    bench = failing("mxgw_event_filter")
    assert len(bench.access.filters(INFO, ALICE)) == 1

    bench.fail()

    denies(lambda: bench.access.filters(INFO, ALICE))


def test_items_are_denied_also_by_rules_that_were_given_before(failing: Any) -> None:
    bench = failing("mxgw_item_access")
    (rules,) = bench.gateway.item_access(ALICE)
    assert (rules.may_read("A"), rules.may_write("A")) == (True, True)

    bench.fail()

    denies(lambda: bench.gateway.item_access(ALICE))
    denies(lambda: rules.may_read("A"))
    denies(lambda: rules.may_write("A"))
    denies(lambda: rules.decided("read", ("A",), ()))


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["authenticate_operator", "renew_operator"])
async def test_operators_are_not_logged_in_or_renewed(failing: Any, what: str) -> None:
    bench = failing(f"mxgw_{what}")
    argument = CREDENTIALS if what == "authenticate_operator" else ANNA
    assert await getattr(bench.gateway, what)(argument) == ANNA

    bench.fail()

    with pytest.raises(PluginFailed):
        await getattr(bench.gateway, what)(argument)


def test_the_logout_of_an_operator_asks_nobody(failing: Any) -> None:
    bench = failing("mxgw_operator_left")
    bench.gateway.forget_operator(ANNA)
    assert bench.asked == ["mxgw_operator_left"]

    bench.fail()
    bench.gateway.forget_operator(ANNA)

    assert bench.asked == []


def test_operators_see_no_session(failing: Any) -> None:
    bench = failing("mxgw_operator_sessions")
    before = bench.gateway.sight_of(ANNA)
    assert before(INFO)

    bench.fail()

    assert not before(INFO)
    assert not bench.gateway.sight_of(ANNA)(INFO)
