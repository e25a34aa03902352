"""GetGatewayInfo: who sees why a plugin has failed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.plugins import InstallPlugin

from mxgw.v1.gateway_service_pb2 import PLUGIN_STATE_FAILED, GetGatewayInfoRequest
from mxgw_core.api import ADMINISTRATOR, Call, Identity, Operator, Peer
from mxgw_core.api.types import ANONYMOUS
from mxgw_core.config import PluginsSettings, Settings
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.gateway_service import GatewayService


class Registry:
    draining = False
    pool = SimpleNamespace(ready=0)

    def live(self) -> tuple[()]:
        return ()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("identity", "sees"),
    [
        (ANONYMOUS, True),
        (Identity("line3", "key"), False),
        (Identity("ops", "key", roles=(ADMINISTRATOR,)), True),
        (Identity("anna", "operator", claims=Operator("anna", ("viewer",))), False),
        (Identity("bo", "operator", claims=Operator("bo", (ADMINISTRATOR,))), True),
    ],
)
async def test_only_administrators_see_why_a_plugin_failed(
    install_plugin: InstallPlugin, identity: Identity, *, sees: bool
) -> None:
    install_plugin("broken", None)
    plugins = PluginHost.load(Settings(plugins=PluginsSettings(enabled=("broken",))))
    service = GatewayService(Settings(), cast("Any", Registry()), plugins, AccessControl(plugins), "id")
    call = Call("/x", identity, Peer("here", is_local=True), None)

    info = await service.GetGatewayInfo(GetGatewayInfoRequest(), call)

    (plugin,) = [plugin for plugin in info.plugins if plugin.name == "broken"]
    assert plugin.state == PLUGIN_STATE_FAILED
    assert bool(plugin.detail) == sees
