"""The plugin: runs the monitor beside the gateway, and serves the AlarmService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mxgw.v1 import alarm_service_pb2
from mxgw_alarms.monitor import Monitor
from mxgw_alarms.service import SCOPES, AlarmService
from mxgw_alarms.settings import AlarmsSettings
from mxgw_core.api import Gateway, GrpcService, Metric, SettingsSection, hookimpl


class AlarmsPlugin:
    """Runs the monitor while the gateway serves. The AlarmService answers calls from the monitor's book and feed."""

    def __init__(self) -> None:
        self._settings = AlarmsSettings()
        self._monitor: Monitor | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[AlarmsSettings]:
        return SettingsSection("alarms", AlarmsSettings, self._configure)

    def _configure(self, settings: AlarmsSettings) -> None:
        self._settings = settings

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._running(gateway)

    @asynccontextmanager
    async def _running(self, gateway: Gateway) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            self._monitor = Monitor(gateway, self._settings)
            running = tasks.create_task(self._monitor.run(), name="alarms:monitor")
            try:
                yield
            finally:
                running.cancel()
                self._monitor = None

    @hookimpl
    def mxgw_grpc_services(self, gateway: Gateway) -> Sequence[GrpcService]:
        assert self._monitor is not None  # the gateway enters the plugin's context before it calls this hook
        descriptor = alarm_service_pb2.DESCRIPTOR.services_by_name["AlarmService"]
        return [GrpcService(descriptor, AlarmService(gateway, self._monitor), SCOPES)]

    @hookimpl
    def mxgw_metrics(self) -> Sequence[Metric]:
        return self._monitor.metrics() if self._monitor is not None else ()
