"""Metrics in the two formats of monitoring systems, and which of them a client prefers.

Written here, because a page is made in the event loop of the gateway: prometheus-client needs 15 ms for one of 32 KiB,
which would delay every stream, and this module about 1 ms. Tests compare the pages with the parsers and the pages of
that library. Source: the text format 0.0.4 of Prometheus, and OpenMetrics 1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from prometheus_client.process_collector import ProcessCollector

from mxgw_core.api import Metric, MetricBuckets, MetricKind, MetricSample

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

# Scrapers name five types at most; further ones are ignored.
_ACCEPTED_TYPES = 32
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
# In the older format, quotes in a HELP line are not escaped.
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


def encoded(metrics: Iterable[Metric], content_type: str) -> bytes:
    """Return the metrics in the format of `content_type`."""
    is_strict = content_type == OPENMETRICS
    lines = list(chain.from_iterable(_lines(metric, is_strict) for metric in metrics))
    if is_strict:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines).encode()


def process_metrics(process: ProcessCollector) -> list[Metric]:
    """Return the metrics of this process, with the names that all Prometheus client libraries use."""
    return [
        Metric(sample.name, MetricKind(family.type), family.documentation, samples=(MetricSample(sample.value),))
        for family in process.collect()
        for sample in family.samples
    ]


def _lines(metric: Metric, is_strict: bool) -> Iterator[str]:
    # The family of a counter is named without the ending in OpenMetrics, and with it in the text format.
    family = metric.name.removesuffix("_total") if is_strict else metric.name
    yield f"# HELP {family} {metric.text.translate(_ESCAPES if is_strict else _HELP_ESCAPES)}"
    yield f"# TYPE {family} {metric.kind.value}"
    for sample in metric.samples:
        pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(metric.labels, sample.labels, strict=True)]
        if isinstance(sample.value, MetricBuckets):
            yield from _histogram(metric.name, ",".join(pairs), sample.value)
        else:
            labels = f"{{{','.join(pairs)}}}" if pairs else ""
            yield f"{metric.name}{labels} {_number(sample.value)}"


def _histogram(name: str, pairs: str, value: MetricBuckets) -> Iterator[str]:
    before = f"{name}_bucket{{{pairs}{',' if pairs else ''}le="
    for bound, count in zip(value.bounds, value.counts, strict=True):
        yield f'{before}"{_number(bound)}"}} {count}'
    yield f'{before}"+Inf"}} {value.count}'
    labels = f"{{{pairs}}}" if pairs else ""
    yield f"{name}_count{labels} {value.count}"
    yield f"{name}_sum{labels} {_number(value.sum)}"


def _escaped(value: str) -> str:
    return value if value.isidentifier() else value.translate(_ESCAPES)


def _number(value: float) -> str:
    """Return a number that both formats accept; bounds of buckets must be written as floats."""
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def content_type_for(accept: str) -> str:
    """Return the content type that `Accept` prefers of the two; plain text for a client that accepts neither.

    Source: RFC 9110, 12.5.1; only the versions that are made here match.
    """
    best = {OPENMETRICS: 0.0, TEXT: 0.0}
    for part in accept.split(",")[:_ACCEPTED_TYPES]:
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
