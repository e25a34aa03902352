"""Collects all metrics of a gateway: of the gateway itself, of sessions, events and calls, and of plugins."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from mxgw_core.api.metrics import Metric, MetricKind, MetricSample, gauge
from mxgw_core.config.models import Settings
from mxgw_core.metrics.plugins import PluginMetrics, plugin_metrics
from mxgw_core.metrics.sessions import session_metrics
from mxgw_core.metrics.streams import LabelLimit, stream_metrics
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.call_counts import AccessOutcome, CallCounts
from mxgw_core.sessions.registry import SessionRegistry

UNLISTED = "unlisted"


def call_metrics(calls: CallCounts) -> list[Metric]:
    """Return the metrics of calls. The label `method` is "unlisted" for methods that the gateway does not serve,
    because clients could invent any number of names.
    """
    methods = list(calls.methods.values())
    return [
        Metric(
            "mxgw_rpc_requests_total",
            MetricKind.COUNTER,
            "Calls that ended, by method and gRPC code.",
            ("method", "code"),
            [
                *(MetricSample(count, (m.method, code)) for m in methods for code, count in sorted(m.codes.items())),
                MetricSample(calls.unlisted, (UNLISTED, "UNIMPLEMENTED")),
            ],
        ),
        Metric(
            "mxgw_rpc_running",
            MetricKind.GAUGE,
            "Calls that are being served, streams included, by method.",
            ("method",),
            [MetricSample(m.running, (m.method,)) for m in methods],
        ),
        Metric(
            "mxgw_rpc_over_limit_total",
            MetricKind.COUNTER,
            "Calls that were refused because limits.concurrent_calls were being served.",
            (),
            [MetricSample(calls.over_limit)],
        ),
        Metric(
            "mxgw_rpc_duration_seconds",
            MetricKind.HISTOGRAM,
            "How long calls took that ended, streams excepted, by method.",
            ("method",),
            [MetricSample(m.duration.buckets(), (m.method,)) for m in methods if m.duration is not None],
        ),
        _outcomes("mxgw_authentications_total", "Calls by whether their caller was let in.", calls.access),
        _outcomes("mxgw_operator_logins_total", "Logins at the dashboard by what became of them.", calls.logins),
    ]


def _outcomes(name: str, text: str, counts: Counter[AccessOutcome]) -> Metric:
    samples = [MetricSample(counts[outcome], (outcome.value,)) for outcome in AccessOutcome]
    return Metric(name, MetricKind.COUNTER, text, ("outcome",), samples)


class MetricsSource:
    """Collects all metrics of one gateway run. Call `collect` in the event loop only."""

    def __init__(self, settings: Settings, plugins: PluginHost, registry: SessionRegistry, calls: CallCounts) -> None:
        self._settings = settings
        self._plugins = plugins
        self._registry = registry
        self._calls = calls
        self._contributed = PluginMetrics(plugins)
        self._limit = LabelLimit()
        self._started_at = time.time()
        self._build = (version("mxgw"), platform.python_version(), version("grpcio"))

    def collect(self) -> Sequence[Metric]:
        """Return the present metrics: first the metrics of the gateway, then the metrics that plugins define."""
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
