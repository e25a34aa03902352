"""The metrics of a gateway as a scraper gets them over HTTP, parsed by the parsers of prometheus_client."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_metrics import MetricsPlugin
from mxgw_metrics.settings import Address

OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True)
class Answer:
    """The answer of the endpoint."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Scrape:
    """The metric families of one scrape, and their samples."""

    families: Mapping[str, Family]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the sample of this name with these labels; None when there is no such sample.

        The sample can have other labels too. There must not be two such samples.
        """
        found = [value for own, value in self.all(name) if labels.items() <= own.items()]

        assert len(found) <= 1, found

        return found[0] if found else None

    def all(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the labels and values of all samples of a name."""
        return [(s.labels, s.value) for family in self.families.values() for s in family.samples if s.name == name]

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return all samples that must never decrease."""
        return {
            (s.name, frozenset(s.labels.items())): s.value
            for family in self.families.values()
            if family.type in ("counter", "histogram")
            for s in family.samples
        }

    def names(self) -> set[str]:
        """Return the names of all samples, as queries use them."""
        return {s.name for family in self.families.values() for s in family.samples}


class Scraped:
    """A gateway with the plugin metrics."""

    def __init__(self, gateway: RunningGateway, address: Address) -> None:
        self.gateway = gateway
        self.address = address

    @property
    def target(self) -> str:
        return self.gateway.target

    async def get(self, path: str = "/metrics", method: str = "GET", **headers: str) -> Answer:
        """Send one request on a new connection."""
        return await asyncio.to_thread(self._get, path, method, headers)

    def _get(self, path: str, method: str, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=60)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    async def scrape(self) -> Scrape:
        """Return the metrics in the OpenMetrics format, whose parser is the stricter one."""
        answer = await self.get(Accept=OPENMETRICS)

        assert answer.status == 200, answer.text

        return Scrape({family.name: family for family in openmetrics.text_string_to_metric_families(answer.text)})

    async def until(self, name: str, value: float, **labels: str) -> Scrape:
        """Scrape again and again until a sample has this value."""
        async with asyncio.timeout(60):
            while (scrape := await self.scrape()).value(name, **labels) != value:  # noqa: ASYNC110  as a scraper does
                await asyncio.sleep(0.02)
        return scrape


def families_of(text: str) -> dict[str, Family]:
    """Return the families in a page in the plain text format."""
    return {family.name: family for family in text_string_to_metric_families(text)}


@asynccontextmanager
async def scraped_gateway(*plugins: str, **settings: object) -> AsyncIterator[Scraped]:
    """Run a gateway with the plugin metrics and `plugins`. The keys of `settings` are dotted."""
    overrides = {"plugins.enabled": [*plugins, "metrics"], "plugins.metrics.listen": "127.0.0.1:0", **settings}
    async with running_gateway(overrides) as gateway:
        plugin = gateway.plugins._plugins.get_plugin("metrics")

        assert isinstance(plugin, MetricsPlugin)
        assert plugin.address is not None, [record for record in gateway.plugins.records if record.name == "metrics"]

        yield Scraped(gateway, plugin.address)
