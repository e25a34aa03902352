"""Services whose plugin does not run: every call says which plugin is missing, and none is a bare UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from support.clients import client_of, refused
from support.repository import ROOT

from mxgw_core.api import Metric, hookimpl
from mxgw_core.api.errors import FeatureNotEnabled, PluginFailed
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.absent_services import PLUGINS_OF_SERVICES, absent_services
from mxgw_core.testing import running_gateway

PATHS = {
    f"/{service.full_name}/{method.name}": plugin
    for service, plugin in PLUGINS_OF_SERVICES.items()
    for method in service.methods
}


@pytest.mark.asyncio
async def test_every_call_of_a_missing_plugin_names_the_plugin_and_what_would_help() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        for path, plugin in PATHS.items():
            refusal = await refused(client.channel.unary_unary(path)(b"", timeout=60))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FEATURE_NOT_ENABLED"), path
            assert refusal.metadata == {"plugin": plugin}
            assert "plugins.enabled" in refusal.text


@pytest.mark.asyncio
async def test_every_service_of_the_contract_is_served_or_has_its_plugin_named() -> None:
    files = FileDescriptorSet.FromString((ROOT / "protos" / "contract.binpb").read_bytes())
    services = {f"{file.package}.{service.name}" for file in files.file for service in file.service}
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        for service in services - {absent.full_name for absent in PLUGINS_OF_SERVICES}:
            method = next(s.method[0].name for f in files.file for s in f.service if s.name == service.split(".")[-1])
            # Malformed on purpose: whoever serves the method refuses the request.
            refusal = await refused(client.channel.unary_unary(f"/{service}/{method}")(b"\xff", timeout=60))

            assert refusal.reason == "INVALID_REQUEST", service


class Alarms:
    """A plugin that gives no service."""

    @hookimpl
    def mxgw_metrics(self) -> Sequence[Metric]:
        return ()


class Host(PluginHost):
    """A host in which the plugin `alarms` was enabled and has failed."""

    def has_failed(self, plugin: str) -> bool:
        return plugin == "alarms"


def test_a_plugin_that_has_failed_is_not_taken_for_one_that_is_not_enabled() -> None:
    host = Host()
    host.add("alarms", Alarms())
    errors = {service.name: make() for service, make in absent_services(host, ()).items()}

    assert isinstance(errors["AlarmService"], PluginFailed)
    assert isinstance(errors["DashboardService"], FeatureNotEnabled)
