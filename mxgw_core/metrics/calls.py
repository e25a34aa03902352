"""Metrics of calls: what became of them, how long they took, who was let in."""

from __future__ import annotations

from collections import Counter

from mxgw_core.api.metrics import Metric, MetricKind, MetricSample
from mxgw_core.rpc.figures import AccessOutcome, CallFigures

UNLISTED = "unlisted"


def call_metrics(calls: CallFigures) -> list[Metric]:
    """Return them as of now. Methods are those that are served; all others together are "unlisted"."""
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
