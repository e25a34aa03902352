"""One reading of the endpoint: fetches the metrics over HTTP, and finds samples by name and labels."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import click
from prometheus_client.parser import text_string_to_metric_families

from mxgw_metrics.settings import Address

_TIMEOUT_S = 5.0
_MOST_BYTES = 16 * 1024 * 1024


class Unreachable(click.ClickException):
    """Nothing answers at the address. The exit code is the same as in all commands that cannot reach a gateway."""

    exit_code = 3


class NoMetrics(click.ClickException):
    """A server answers at the address, but not with the metrics of a gateway."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All samples of the metrics at one moment, which `at_s` (monotonic clock) and `wall_s` (wall clock) name."""

    at_s: float
    wall_s: float
    samples: Mapping[str, list[tuple[Mapping[str, str], float]]] = field(repr=False)

    @classmethod
    def of(cls, text: str, at_s: float, wall_s: float) -> Reading:
        """Return a reading of `text`, a page in the text format of Prometheus.

        Raises:
            ValueError: the text is not in this format.
        """
        samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return cls(at_s, wall_s, samples)

    def find(self, name: str, **labels: str) -> Iterator[tuple[Mapping[str, str], float]]:
        """Yield labels and value of each sample that has this name and these labels."""
        for own, value in self.samples.get(name, ()):
            if all(own.get(label) == wanted for label, wanted in labels.items()):
                yield own, value

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples that have this name and these labels; None when there is no such sample."""
        values = [value for _, value in self.find(name, **labels)]
        return sum(values) if values else None

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have this name and these labels; 0 when there is no such sample."""
        return self.value(name, **labels) or 0.0

    def largest(self, name: str) -> float | None:
        """Return the largest sample of this name; None when there is no such sample."""
        return max((value for _, value in self.find(name)), default=None)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the sum of the samples for each value of `label`. Key: the label's value. Value: the sum."""
        sums: dict[str, float] = {}
        for own, value in self.find(name, **labels):
            sums[own.get(label, "")] = sums.get(own.get(label, ""), 0.0) + value
        return sums

    def buckets(self, name: str) -> dict[float, float]:
        """Return the buckets of a histogram, added up over all labels. Key: upper bound. Value: cumulative count."""
        counts: dict[float, float] = {}
        for own, value in self.find(f"{name}_bucket"):
            bound = float(own["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        return counts


def read(address: Address) -> Reading:
    """Fetch the metrics from the endpoint at `address`.

    Raises:
        Unreachable: nothing answers at the address.
        NoMetrics: the answer has no metrics of a gateway.
    """
    url = f"http://{address}/metrics"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignore the proxy of the environment
    request = urllib.request.Request(url, headers={"Accept": "text/plain; version=0.0.4"})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            body: bytes = response.read(_MOST_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        raise NoMetrics(f"{url} answers {error.code} {error.reason}: {_WRONG_PORT}") from None
    except (http.client.HTTPException, UnicodeDecodeError) as error:
        raise NoMetrics(f"what answers at {address} does not speak HTTP: {_WRONG_PORT}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"no metrics at {url}: {getattr(reason, 'strerror', None) or reason}.\nIs the gateway running, and the "
            "plugin metrics in its plugins.enabled? Its log says where the metrics are; name that with --at."
        ) from error
    try:
        reading = Reading.of(body.decode(), time.perf_counter(), time.time())
    except (ValueError, KeyError) as error:
        raise NoMetrics(f"{url} gives no metrics: {_WRONG_PORT}") from error
    if reading.value("mxgw_build_info") is None:
        raise NoMetrics(f"{url} gives metrics, but not those of a gateway: {_WRONG_PORT}")
    return reading


_WRONG_PORT = "name plugins.metrics.listen of the gateway with --at, which is not the port of its gRPC services."
