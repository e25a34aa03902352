"""Encodes metrics in the two formats that monitoring systems read, and chooses the format that a client prefers.

The library prometheus-client can do the same, but too slowly: a page is made in the event loop of the gateway, and for
a page of 32 KiB the library needs 15 ms, which would delay every stream; this module needs about 1 ms. Tests parse the
pages with that library and compare them with its pages. Source: the text format 0.0.4 of Prometheus, and OpenMetrics
1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from prometheus_client.process_collector import ProcessCollector

from mxgw_core.api import Metric, MetricBuckets, MetricKind, MetricSample

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

# How many content types of an `Accept` header are read. Monitoring systems send at most five.
_ACCEPTED_TYPES = 32
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
# The text format, unlike OpenMetrics, does not escape quotes in a HELP line.
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
    """Return metrics about the gateway's process, with the names that all Prometheus client libraries use."""
    return [
        Metric(sample.name, MetricKind(family.type), family.documentation, samples=(MetricSample(sample.value),))
        for family in process.collect()
        for sample in family.samples
    ]


def _lines(metric: Metric, is_strict: bool) -> Iterator[str]:
    # OpenMetrics names the family of a counter without the ending "_total"; the text format keeps the ending.
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
    """Return a number as text that both formats accept. It has a decimal point, as OpenMetrics demands for bounds."""
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def content_type_for(accept: str) -> str:
    """Return `OPENMETRICS` or `TEXT`, whichever the `Accept` header prefers; `TEXT` when the header accepts neither.

    A content type in the header counts only if it names no version, or the version that this module writes. Source:
    RFC 9110, 12.5.1.
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
