"""Everything the gateway has to say of itself, collected at the moment of asking."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version

from mxgw_core.api.metrics import Metric, MetricKind, MetricSample, gauge
from mxgw_core.config.models import Settings
from mxgw_core.metrics.calls import call_metrics
from mxgw_core.metrics.labels import LabelLimit
from mxgw_core.metrics.plugins import PluginMetrics, plugin_metrics
from mxgw_core.metrics.sessions import session_metrics
from mxgw_core.metrics.streams import stream_metrics
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.figures import CallFigures
from mxgw_core.sessions.registry import SessionRegistry


class MetricsSource:
    """Made once per gateway run; `collect` belongs to the event loop, and does not wait."""

    def __init__(self, settings: Settings, plugins: PluginHost, registry: SessionRegistry, calls: CallFigures) -> None:
        self._settings = settings
        self._plugins = plugins
        self._registry = registry
        self._calls = calls
        self._contributed = PluginMetrics(plugins)
        self._limit = LabelLimit()
        self._started_at = time.time()
        self._build = (version("mxgw"), platform.python_version(), version("grpcio"))

    def collect(self) -> Sequence[Metric]:
        """Return the gateway's metrics, then those of the plugins."""
        own = [
            Metric(
                "mxgw_build_info",
                MetricKind.GAUGE,
                "1, with what this gateway is made of.",
                ("version", "python", "grpc"),
                (MetricSample(1, self._build),),
            ),
            gauge("mxgw_start_time_seconds", "When this gateway started, seconds since 1970.", self._started_at),
            gauge("mxgw_draining", "1 while the gateway shuts down in order, else 0.", int(self._registry.draining)),
            *session_metrics(self._registry, self._settings.limits.sessions),
            *stream_metrics(self._registry, self._limit),
            *call_metrics(self._calls),
            *plugin_metrics(self._plugins),
        ]
        return [*own, *self._contributed.collect({metric.name for metric in own})]
