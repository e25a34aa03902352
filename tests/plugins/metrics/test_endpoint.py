"""The plugin on a real gateway: where it serves, where it refuses to, and what a broken start costs."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from prometheus_client import Metric as Family
from prometheus_client.exposition import generate_latest as as_text
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from support.clients import client_of
from support.scraping import families_of, scraped_gateway

from mxgw_core.api import Metric, MetricBuckets, MetricKind, MetricSample
from mxgw_core.api.errors import PluginError, SettingsError
from mxgw_core.plugins import PluginState
from mxgw_core.testing import running_gateway
from mxgw_metrics.endpoint import Endpoint
from mxgw_metrics.exposition import OPENMETRICS, TEXT, encoded, process_metrics
from mxgw_metrics.http import Request
from mxgw_metrics.settings import Address, MetricsSettings

ENABLED = {"plugins.enabled": ["metrics"]}


def test_it_is_off_and_on_loopback_by_default() -> None:
    assert MetricsSettings().address == Address("127.0.0.1", 9464)
    assert not MetricsSettings().allow_remote


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464", "plant.example:9464", "[::ffff:10.0.0.1]:1"]
)
async def test_beyond_loopback_it_refuses_to_start_without_an_explicit_word(listen: str) -> None:
    with pytest.raises(SettingsError, match=r"plugins\.metrics\.allow_remote = true"):
        async with running_gateway({**ENABLED, "plugins.metrics.listen": listen}):
            pass


@pytest.mark.asyncio
async def test_with_an_explicit_word_it_serves_other_machines() -> None:
    async with scraped_gateway(
        **{"plugins.metrics.listen": "0.0.0.0:0", "plugins.metrics.allow_remote": True}
    ) as gateway:
        answer = await gateway.get()

    assert answer.status == 200


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:", ":9464", "127.0.0.1:70000", "::1:9464", "unix:/x"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"host:port or \[ipv6\]:port"):
        MetricsSettings(listen=listen)


@pytest.mark.asyncio
async def test_a_port_in_use_fails_the_plugin_and_the_gateway_serves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with (
            running_gateway({**ENABLED, "plugins.metrics.listen": listen}) as gateway,
            client_of(gateway.target) as client,
        ):
            await client.open()
            (record,) = [record for record in gateway.plugins.records if record.name == "metrics"]

    assert record.state is PluginState.FAILED
    assert f"plugins.metrics.listen: {listen} cannot be used" in record.detail


@pytest.mark.asyncio
async def test_a_port_in_use_stops_the_start_where_the_plugin_is_required() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PluginError, match="cannot be used"):
            async with running_gateway({**ENABLED, "plugins.required": ["metrics"], "plugins.metrics.listen": listen}):
                pass


@pytest.mark.asyncio
async def test_both_formats_say_the_same_and_each_says_what_it_is() -> None:
    async with scraped_gateway("replay") as gateway:
        plain = await gateway.get()
        scrape = await gateway.scrape()
        strict = await gateway.get(Accept=OPENMETRICS)

    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert strict.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert strict.text.endswith("# EOF\n")
    assert {family.removesuffix("_total") for family in families_of(plain.text)} == scrape.families.keys()
    assert all(family.documentation for family in scrape.families.values())


@pytest.mark.asyncio
async def test_it_answers_until_the_gateway_has_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with scraped_gateway() as gateway:
        gateway.gateway.app.stop()
        answers = []
        async with asyncio.timeout(60):
            while True:
                try:
                    answers.append(await gateway.get())
                except OSError:
                    break

    assert all(answer.status == 200 for answer in answers)
    assert f"metrics are at http://{gateway.address}/metrics" in caplog.text


def test_many_scrapers_share_one_collection() -> None:
    now = [100.0]
    collections: list[float] = []

    def collect() -> list[object]:
        collections.append(now[0])
        return []

    endpoint = Endpoint(collect, lambda: now[0])  # type: ignore[arg-type]
    request = Request("GET", "/metrics", {}, is_kept_alive=True)
    strict = Request("GET", "/metrics", {"accept": OPENMETRICS}, is_kept_alive=True)
    for _ in range(50):
        endpoint.answer(request)
        endpoint.answer(strict)

    assert len(collections) == 1

    now[0] += 0.2
    endpoint.answer(request)

    assert len(collections) == 2


def test_the_pages_say_what_the_library_s_own_would() -> None:
    metrics = [
        Metric("mxgw_a_total", MetricKind.COUNTER, 'A "text"\nwith\\all', ("x", "y"), [MetricSample(3, ("1", "é"))]),
        Metric("mxgw_b", MetricKind.GAUGE, "B.", ("x",), [MetricSample(-1.5, ('q"\\\n',)), MetricSample(2e30, ("z",))]),
        Metric("mxgw_c", MetricKind.GAUGE, "C.", samples=[MetricSample(float("inf"))]),
        Metric("mxgw_d", MetricKind.GAUGE, "None now."),
        Metric(
            "mxgw_e",
            MetricKind.HISTOGRAM,
            "E.",
            ("x",),
            [MetricSample(MetricBuckets((0.001, 1, 100_000), (1, 2, 3), 4, 7.5), ("m",))],
        ),
        Metric("mxgw_f", MetricKind.HISTOGRAM, "F.", samples=[MetricSample(MetricBuckets((1,), (0,), 0, 0.0))]),
        *process_metrics(ProcessCollector(registry=None)),
    ]
    ours = {OPENMETRICS: encoded(metrics, OPENMETRICS).decode(), TEXT: encoded(metrics, TEXT).decode()}
    theirs = _Collected([_family(metric) for metric in metrics])
    strict = as_openmetrics(theirs).decode()  # type: ignore[no-untyped-call]
    plain = as_text(theirs).decode()

    for parse, own, other in (
        (openmetrics.text_string_to_metric_families, ours[OPENMETRICS], strict),
        (text_string_to_metric_families, ours[TEXT], plain),
    ):
        assert list(parse(own)) == list(parse(other))
        comments = [line for line in own.splitlines() if line.startswith("#")]
        assert comments == [line for line in other.splitlines() if line.startswith("#")]


class _Collected(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _family(metric: Metric) -> Family:
    """Return a metric as the library's own value."""
    family = Family(metric.name.removesuffix("_total"), metric.text, metric.kind.value)
    for sample in metric.samples:
        labels = dict(zip(metric.labels, sample.labels, strict=True))
        if not isinstance(sample.value, MetricBuckets):
            family.add_sample(metric.name, labels, sample.value)
            continue
        value = sample.value
        for bound, count in [*zip(value.bounds, value.counts, strict=True), (float("inf"), value.count)]:
            le = "+Inf" if bound == float("inf") else str(float(bound))
            family.add_sample(f"{metric.name}_bucket", {**labels, "le": le}, count)
        family.add_sample(f"{metric.name}_count", labels, value.count)
        family.add_sample(f"{metric.name}_sum", labels, value.sum)
    return family
