"""Services of the contract whose plugin does not run here: what every call of theirs is answered.

A client that gets a bare UNIMPLEMENTED cannot tell a gateway without the plugin from a program that is no gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from google.protobuf.descriptor import ServiceDescriptor

from mxgw.dashboard.v1 import dashboard_service_pb2
from mxgw.v1 import alarm_service_pb2
from mxgw_core.api.calls import GrpcService
from mxgw_core.api.errors import FeatureNotEnabled, GatewayError
from mxgw_core.plugins import PluginHost

# Key: a service of the contract. Value: the built-in plugin that serves it. Core knows no plugin, so a test compares
# this with what the plugins add.
PLUGINS_OF_SERVICES: Mapping[ServiceDescriptor, str] = {
    alarm_service_pb2.DESCRIPTOR.services_by_name["AlarmService"]: "alarms",
    dashboard_service_pb2.DESCRIPTOR.services_by_name["DashboardService"]: "dashboard_tui",
}


def absent_services(
    plugins: PluginHost, served: Collection[GrpcService]
) -> dict[ServiceDescriptor, Callable[[], GatewayError]]:
    """Return the services of the contract that are not among the `served` ones, and what makes the error of a call."""
    names = {service.descriptor.full_name for service in served}
    failed = {record.name for record in plugins.records if plugins.has_failed(record.name)}
    return {
        service: partial(plugins.failure, plugin) if plugin in failed else partial(_not_enabled, service, plugin)
        for service, plugin in PLUGINS_OF_SERVICES.items()
        if service.full_name not in names
    }


def _not_enabled(service: ServiceDescriptor, plugin: str) -> FeatureNotEnabled:
    return FeatureNotEnabled(
        f"{service.full_name} needs the plugin {plugin}: add it to plugins.enabled in the gateway's settings, and "
        "restart the gateway",
        metadata={"plugin": plugin},
    )
