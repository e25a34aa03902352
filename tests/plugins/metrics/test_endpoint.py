"""The plugin on a real gateway: where it serves, where it refuses to, and what a broken start costs."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from support.clients import client_of
from support.scraping import OPENMETRICS, families_of, scraped_gateway

from mxgw_core.api.errors import PluginError, SettingsError
from mxgw_core.plugins import PluginState
from mxgw_core.testing import running_gateway
from mxgw_metrics.endpoint import Endpoint
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
        async with asyncio.timeout(10):
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
