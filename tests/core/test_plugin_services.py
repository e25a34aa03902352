"""Which gRPC services of plugins a gateway serves; the plugins are asked, and no gateway is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mxgw.v1 import gateway_service_pb2
from mxgw_core.api.calls import GrpcService
from mxgw_core.app import GatewayApp
from mxgw_core.config import Settings
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.plugins.discovery import PluginRecord

pytestmark = pytest.mark.asyncio

SERVICE = gateway_service_pb2.DESCRIPTOR.services_by_name["GatewayService"]


class Implementation:
    def __getattr__(self, name: str) -> Any:
        async def method(request: object, context: object) -> None:
            del request, context

        return method


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> PluginHost:
    """Three plugins: `twice` returns a service twice; `once` and `failed` return it once."""
    host = PluginHost()
    service = GrpcService(SERVICE, Implementation())
    services = {"failed": [service], "twice": [service, service], "once": [service]}
    for name in services:
        host._records[name] = PluginRecord(name, PluginState.LOADED, f"dist-{name}", "1.0", required=False)
    answers = [
        SimpleNamespace(plugin=name, value=value, error=None, owner=host.calls.owner(name, "mxgw_grpc_services"))
        for name, value in services.items()
    ]
    monkeypatch.setattr(host, "ask", lambda hook, **_: list(reversed(answers)))
    return host


async def test_a_plugin_that_has_failed_meanwhile_and_one_with_a_service_twice_have_none(host: PluginHost) -> None:
    app = GatewayApp(Settings(), host)
    host.take_down("failed", "its context ended by itself")

    gateway: Any = SimpleNamespace(end_all_of=lambda plugin: None)
    found = await app._plugin_services(gateway, set())

    assert [services.names for services in found] == [[SERVICE.full_name]]
    assert list(app._of_plugins) == ["once"]
    details = {record.name: record.detail for record in host.records}
    assert details["twice"] == f"it adds the gRPC service {SERVICE.full_name} twice"
    assert details["failed"] == "its context ended by itself"
