"""The plugin: an HTTP endpoint in the gateway, and `mxgw top` on the command line."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import click

from mxgw_core.api import Gateway, SettingsSection, hookimpl
from mxgw_core.api.errors import PluginError
from mxgw_metrics.settings import Address, MetricsSettings


class MetricsPlugin:
    """Serves the metrics of the gateway and its plugins.

    Attributes:
        address: the address of the endpoint; None while the gateway does not run.
    """

    def __init__(self) -> None:
        self._settings = MetricsSettings()
        self.address: Address | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[MetricsSettings]:
        return SettingsSection("metrics", MetricsSettings, self._configure)

    def _configure(self, settings: MetricsSettings) -> None:
        # Checked here, so that `mxgw plugins`, `mxgw doctor` and the log of the gateway say it in the same words.
        if importlib.util.find_spec("prometheus_client") is None:
            raise PluginError("it needs prometheus-client, which is not installed: pip install 'mxgw[metrics]'")
        settings.check()
        self._settings = settings

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._running(gateway)

    @asynccontextmanager
    async def _running(self, gateway: Gateway) -> AsyncIterator[None]:
        from mxgw_metrics.endpoint import Endpoint, serving
        from mxgw_metrics.loop_delay import LoopDelay

        delay = LoopDelay(self._settings.loop_probe_interval_s)
        observation = gateway.observation
        endpoint = Endpoint(lambda: [*observation.metrics(), delay.metric()])
        try:
            async with serving(endpoint, self._settings.address) as self.address:
                yield
        finally:
            self.address = None
            delay.stop()

    @hookimpl
    def mxgw_cli(self) -> Sequence[click.Command]:
        from mxgw_metrics.top.command import top_command

        return [top_command(self._settings)]
