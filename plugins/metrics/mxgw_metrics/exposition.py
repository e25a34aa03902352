"""Metrics in the formats that monitoring reads, and which of them a client wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.exposition import generate_latest as as_text
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mxgw_core.api import Metric, MetricBuckets, MetricKind

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


def encoded(metrics: Iterable[Metric], process: ProcessCollector, content_type: str) -> bytes:
    """Return the metrics, and those of this process, in the format of `content_type`."""
    families = _Collected([*map(_family, metrics), *process.collect()])
    if content_type == OPENMETRICS:
        return bytes(as_openmetrics(families))  # type: ignore[no-untyped-call]  # the library's own omission
    return bytes(as_text(families))


class _Collected(Collector):
    """What was collected already, as the library wants it."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def _family(metric: Metric) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily
    match metric.kind:
        case MetricKind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for sample in metric.samples:
                assert isinstance(sample.value, MetricBuckets)
                histogram.add_metric(sample.labels, _buckets(sample.value), sample.value.sum)
            return histogram
        case MetricKind.COUNTER:
            family = CounterMetricFamily(metric.name, metric.text, labels=metric.labels)
        case MetricKind.GAUGE:
            family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for sample in metric.samples:
        assert not isinstance(sample.value, MetricBuckets)
        family.add_metric(sample.labels, sample.value)
    return family


def _buckets(value: MetricBuckets) -> list[tuple[str, float]]:
    pairs = [
        (str(floatToGoString(bound)), float(count))  # type: ignore[no-untyped-call]  # the library's own omission
        for bound, count in zip(value.bounds, value.counts, strict=True)
    ]
    return [*pairs, ("+Inf", float(value.count))]


def content_type_for(accept: str) -> str:
    """Return the type to answer with: what `Accept` prefers of the two, and plain text for whoever wants neither.

    Source: RFC 9110, 12.5.1; the version of a type must be one that is made here.
    """
    best = {OPENMETRICS: 0.0, TEXT: 0.0}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        quality = _quality(given.get("q", "1"))
        version = given.get("version", "").strip('"')
        if media == "application/openmetrics-text" and version in ("", "1.0.0"):
            best[OPENMETRICS] = max(best[OPENMETRICS], quality)
        elif media in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4"):
            best[TEXT] = max(best[TEXT], quality)
    return OPENMETRICS if best[OPENMETRICS] > 0 and best[OPENMETRICS] >= best[TEXT] else TEXT


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
