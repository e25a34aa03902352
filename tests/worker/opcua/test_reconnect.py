"""Outages: what is lost is told, what is not lost is not, and nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from contextlib import ExitStack
from itertools import pairwise

import pytest

from mxgw.convert import is_ok, to_value
from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_RECONNECTED, SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.opcua import OpcUaBackend

from .harness import (
    NS,
    Change,
    Gap,
    Sink,
    demo_process,
    dropped_subscriptions,
    endpoint_of,
    port_of,
    running_backend,
    running_proxy,
)

LOAD = ("--items", "5", "--rate", "20")


def good(sink: Sink, item: int) -> list[Change]:
    return [change for change in sink.changes(item) if change.quality == 192]


async def advised(backend: OpcUaBackend, *names: str) -> list[int]:
    handle = await backend.register("reconnect")
    items = [await backend.add_item(handle, name) for name in names]
    for item in items:
        await backend.advise(handle, item)
    return items


@pytest.mark.asyncio
async def test_a_cut_that_the_server_outlives_loses_nothing_and_is_no_gap(demo: str) -> None:
    async with running_proxy(port_of(demo)) as proxy:
        url = f"opc.tcp://127.0.0.1:{proxy.port}/mxgw/demo"
        async with running_backend(url) as (backend, sink):
            counters = [NS + f"Load.{number}" for number in range(5)]
            *counting, still = await advised(backend, *counters, NS + "Writable.Double")
            await sink.until(lambda: all(len(sink.changes(item)) > 5 for item in counting))
            await sink.first(still)
            proxy.cut()
            await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths())
            await proxy.refused.wait()

            await backend.write(1, still, to_value(9.0), 0)
            refused = (await sink.written(still)).statuses[0]
            assert (refused.success, refused.raw_category) == (0, 3)

            proxy.heal()
            await sink.until(lambda: sink.healths()[-1] == SOURCE_HEALTH_GOOD)
            reached = len(sink.log)
            await sink.until(lambda: len(sink.log) > reached + 50)

            assert sink.healths() == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST, SOURCE_HEALTH_GOOD]
            assert sink.gaps() == []
            for item in counting:
                values = [change.value for change in good(sink, item)]
                steps = {b - a for a, b in pairwise(values)}  # type: ignore[operator]

                assert steps <= {0, 1}, "a counter skipped"
                assert values.count(max(values)) <= 2
            for item in (*counting, still):
                lost = [change for change in sink.changes(item) if change.quality != 192]

                assert [(c.quality, c.statuses[0].raw_category, c.value) for c in lost] == [(24, 3, None)]
            # The one that did not change meanwhile is good again all the same, with its own time.
            first, _, again = sink.changes(still)

            assert (again.value, again.quality, again.time_ns) == (first.value, 192, first.time_ns)


@pytest.mark.asyncio
async def test_a_restarted_server_is_a_gap_before_the_items_come_back() -> None:
    with ExitStack() as stack:
        old = stack.enter_context(demo_process(*LOAD))
        endpoint = endpoint_of(old)
        async with running_backend(endpoint, {"reconnect_max_delay_s": 0.5}) as (backend, sink):
            counter, still, wrong = await advised(
                backend, "/Objects/Load/0", "nsu=urn:mxgw:demo;s=Writable.Double", NS + "Nowhere"
            )
            await sink.until(lambda: len(sink.changes(counter)) > 5 and bool(sink.changes(still)))
            await sink.first(wrong)
            handle = await backend.register("idle")  # has no subscription, so it lost nothing
            written = await backend.add_item(handle, "nsu=urn:mxgw:demo;s=Writable.Int32")
            await backend.write(handle, written, to_value(1), 0)
            assert is_ok((await sink.written(written)).statuses)
            old.kill()
            old.wait()
            await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths())
            # The demo's namespace gets another index, so that every reference has to be looked up anew.
            stack.enter_context(demo_process(*LOAD, "--other-namespaces", "3", port=port_of(endpoint)))
            await sink.until(lambda: len(good(sink, still)) == 2 and len(sink.changes(wrong)) == 3)
            reached = len(sink.changes(counter))
            await sink.until(lambda: len(sink.changes(counter)) > reached + 5)
            later = await backend.add_item(handle, "Writable/Int32")
            await backend.advise(handle, later)
            await sink.first(later)
            # It was never advised, and its node has another id now.
            await backend.write(handle, written, to_value(2), 0)
            assert is_ok((await sink.written(written, 2)).statuses)
            await sink.until(lambda: sink.changes(later)[-1].value == 2)

            assert [gap.reason for gap in sink.gaps()] == [GAP_REASON_SOURCE_RECONNECTED]
            gap = sink.log.index(sink.gaps()[0])
            for item in (counter, still):
                before = [sink.log.index(change) for change in sink.changes(item) if change.quality == 192]

                assert any(place < gap for place in before)
                assert any(place > gap for place in before)
            assert sink.log.index(sink.changes(still)[1]) < gap < sink.log.index(sink.changes(still)[2])
            assert [change.quality for change in sink.changes(wrong)] == [4, 24, 4]


@pytest.mark.asyncio
async def test_a_subscription_that_died_in_silence_is_found_and_told(demo: str) -> None:
    options = {"keep_alive_s": 0.2, "subscription_lifetime_s": 5}
    async with running_backend(demo, options) as (backend, sink):
        counter, still = await advised(backend, NS + "Load.0", NS + "Writable.Double")
        await sink.until(lambda: len(sink.changes(counter)) > 5 and bool(sink.changes(still)))

        assert await dropped_subscriptions(demo) == 1
        await sink.until(lambda: bool(sink.gaps()))
        reached = len(sink.changes(counter))
        await sink.until(lambda: len(sink.changes(counter)) > reached + 5 and len(sink.changes(still)) == 2)

        assert [type(entry) for entry in sink.log].count(Gap) == 1
        assert sink.healths() == [SOURCE_HEALTH_GOOD]  # the session was never lost


@pytest.mark.asyncio
async def test_a_quiet_subscription_is_kept_by_its_keep_alives(demo: str) -> None:
    options = {"keep_alive_s": 0.2, "subscription_lifetime_s": 5}
    async with running_backend(demo, options) as (backend, sink):
        (still,) = await advised(backend, NS + "Writable.Double")
        await sink.first(still)
        # Far longer than the silence that would have it created anew.
        with pytest.raises(TimeoutError):
            await sink.until(lambda: len(sink.log) > 2, timeout_s=1.8)


@pytest.mark.asyncio
async def test_items_advised_while_the_server_is_away_come_with_it(demo: str) -> None:
    async with running_proxy(port_of(demo)) as proxy:
        url = f"opc.tcp://127.0.0.1:{proxy.port}/mxgw/demo"
        async with running_backend(url) as (backend, sink):
            proxy.cut()
            await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths())
            (item,) = await advised(backend, NS + "Load.0")
            assert (await sink.first(item)).quality == 24
            proxy.heal()
            await sink.until(lambda: len(good(sink, item)) > 3)

            assert is_ok(good(sink, item)[0].statuses)
            assert sink.gaps() == []


@pytest.mark.asyncio
async def test_a_server_that_stops_answering_is_lost_although_its_socket_lives(
    demo: str, process: subprocess.Popen[str]
) -> None:
    options = {"probe_interval_s": 0.2, "request_timeout_s": 0.5, "connect_timeout_s": 0.5}
    async with running_backend(demo, options) as (backend, sink):
        (item,) = await advised(backend, NS + "Load.0")
        await sink.until(lambda: len(sink.changes(item)) > 3)
        process.send_signal(signal.SIGSTOP)
        try:
            await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths(), timeout_s=60)
        finally:
            process.send_signal(signal.SIGCONT)
        await sink.until(lambda: sink.healths()[-1] == SOURCE_HEALTH_GOOD)
        reached = len(good(sink, item))
        await sink.until(lambda: len(good(sink, item)) > reached + 5)
        values = [change.value for change in good(sink, item)]

        assert {b - a for a, b in pairwise(values)} <= {0, 1}  # type: ignore[operator]


@pytest.mark.asyncio
async def test_connecting_to_a_black_hole_ends_in_time_with_the_cure() -> None:
    # A full backlog: the kernel drops further connection requests, as a firewall would.
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        address = hole.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            for connect_timeout_s in (0.3, 0.6):
                backend = OpcUaBackend(
                    {"url": f"opc.tcp://127.0.0.1:{address[1]}", "connect_timeout_s": connect_timeout_s}
                )
                with pytest.raises(BackendUnavailable, match=r"no answer from .* connect_timeout_s"):
                    await backend.start(Sink())


@pytest.mark.asyncio
async def test_a_closed_port_and_an_unknown_host_are_told_apart() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(BackendUnavailable, match="refuses connections"):
            await OpcUaBackend({"url": f"opc.tcp://127.0.0.1:{port}"}).start(Sink())
    with pytest.raises(BackendUnavailable, match=r"cannot be found|no answer"):
        await OpcUaBackend({"url": "opc.tcp://host.invalid:4840", "connect_timeout_s": 3}).start(Sink())


@pytest.mark.asyncio
async def test_stopping_during_an_outage_is_quick_and_final(demo: str) -> None:
    async with running_proxy(port_of(demo)) as proxy:
        patient = {"connect_timeout_s": 300, "request_timeout_s": 300}
        backend, sink = OpcUaBackend({"url": f"opc.tcp://127.0.0.1:{proxy.port}/mxgw/demo", **patient}), Sink()
        await backend.start(sink)
        await advised(backend, NS + "Load.0")
        proxy.cut()
        await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths())
        # What is under way is not waited for: that would take minutes here.
        async with asyncio.timeout(60):
            await backend.stop()

        assert sink.failures == []
