"""Many subscribers on one session, each on a connection of its own: all get everything, none hurts another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from support.accounts import Account
from support.clients import Client, client_of
from support.loads import LoadRecord, load_names
from support.waiting import until

from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.event_service_pb2 import StreamEventsRequest, StreamEventsResponse
from mxgw_core.testing import running_gateway

STREAM = "/mxgw.v1.EventService/StreamEvents"
STALLED = Path(__file__).parent.parent / "support" / "stalled.py"
MIB = 1024 * 1024


@contextmanager
def gateway_process(settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """Serve a gateway as sites do, as a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mxgw-bp-", dir="/tmp") as name:
        Path(name, "settings.toml").write_text(settings)
        command = ["-m", "mxgw_cli", "serve", "--json", "--listen", f"unix:{name}/g.sock"]
        process = subprocess.Popen(
            [sys.executable, *command, "--set", f"gateway.data_dir={name}/d"],
            cwd=name,
            env={key: value for key, value in os.environ.items() if not key.startswith("MXGW_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["addresses"][0]
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


def load(rate: int, items: int, text_bytes: int = 0, **backpressure: object) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in backpressure.items()]
    return f"""
[plugins]
enabled = ["backpressure"]
[plugins.backpressure]
{chr(10).join(lines)}
[events]
overflow_drain_s = 1.0
[backends.sim]
profile = "load"
rate = {rate}
items = {items}
{f"text_bytes = {text_bytes}" if text_bytes else ""}
"""


@asynccontextmanager
async def raw_readers(target: str, session_id: str, count: int) -> AsyncIterator[list[Any]]:
    """Open streams that give frames as bytes, each on a connection of its own."""
    channels = [
        grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(count)
    ]
    request = StreamEventsRequest(session_id=session_id).SerializeToString()
    try:
        yield [channel.unary_stream(STREAM)(request) for channel in channels]
    finally:
        for channel in channels:
            await channel.close()


async def collected(call: Any, until_s: float) -> list[bytes]:
    """Read frames until that time (monotonic); what they hold is looked at later."""
    frames: list[bytes] = []
    try:
        async with asyncio.timeout_at(until_s):
            while True:
                frames.append(await call.read())
    except TimeoutError:
        return frames


def account_of(frames: list[bytes]) -> Account:
    account = Account()
    for frame in frames:
        account.frame(StreamEventsResponse.FromString(frame))
    return account


async def subscribers(client: Client, session_id: str) -> ss.ListSubscribersResponse:
    response: ss.ListSubscribersResponse = await client.sessions.ListSubscribers(
        ss.ListSubscribersRequest(session_id=session_id)
    )
    return response


@pytest.mark.asyncio
async def test_eight_subscribers_at_ten_thousand_events_a_second_each_get_everything_in_order() -> None:
    with gateway_process(load(10_000, 200)) as (target, _):
        async with client_of(target) as client:
            session_id = (await client.open()).session_id
            async with raw_readers(target, session_id, 8) as calls:
                opened = [await call.read() for call in calls]
                handles = await client.subscribe(session_id, load_names(200))
                until_s = asyncio.get_running_loop().time() + 2.5
                async with asyncio.TaskGroup() as tasks:
                    reading = [tasks.create_task(collected(call, until_s)) for call in calls]
                    await asyncio.sleep(1.5)
                    table = await subscribers(client, session_id)

    assert len(opened) == 8
    accounts = [account_of(task.result()) for task in reading]
    record = LoadRecord(handles)
    for account in accounts:
        assert account.lost == {}
        assert account.at > 2.5 * 10_000 * 0.8
        assert all(map(record.is_event, account.events.values()))
    assert len(table.subscribers) == 8
    assert {(s.policy, s.ending, len(s.lost)) for s in table.subscribers} == {("disconnect", False, 0)}
    assert table.maximum_subscribers == 8


@pytest.mark.asyncio
async def test_seven_that_stall_are_cut_and_shown_to_go_while_the_eighth_misses_nothing() -> None:
    text_bytes, items = 1_000, 100
    with gateway_process(load(3_000, items, text_bytes, queue_events=1_000)) as (target, process):
        async with client_of(target) as client:
            session_id = (await client.open()).session_id
            async with raw_readers(target, session_id, 1) as (healthy,):
                await healthy.read()
                handles = await client.subscribe(session_id, load_names(items))
                before = process.memory_info().rss
                stalled = stalled_readers(target, session_id, 7)
                loop = asyncio.get_running_loop()
                try:
                    async with asyncio.TaskGroup() as tasks:
                        reading = tasks.create_task(collected(healthy, loop.time() + 5.0))
                        ids = json.loads(await asyncio.to_thread(readline, stalled))
                        peak, most_lag, ending = 0, 0, 0
                        while len((table := await subscribers(client, session_id)).subscribers) > 1:
                            behind = [s for s in table.subscribers if s.subscriber_id in ids]
                            peak = max(peak, process.memory_info().rss)
                            most_lag = max(most_lag, *(s.lag_events for s in behind))
                            ending = max(ending, sum(s.ending for s in behind))
                            await asyncio.sleep(0.05)
                        went = loop.time()
                        # Nobody reads, so nobody can be told; the streams wait for that, and hold nothing else.
                        assert stalled.stdin is not None
                        stalled.stdin.write(b"read\n")
                        stalled.stdin.flush()
                        told = json.loads(await asyncio.to_thread(readline, stalled))
                finally:
                    stalled.kill()
                    stalled.communicate()

    account = account_of(reading.result())
    record = LoadRecord(handles, text_bytes)

    assert account.lost == {}
    assert account.at > 5.0 * 3_000 * 0.7
    assert all(map(record.is_event, account.events.values()))

    assert went < loop.time()
    assert 500 < most_lag <= 1_400  # the limit, and a block or two
    assert ending == 7
    assert (peak - before) / 7 < 8 * MIB
    counted = {(c.name, *sorted(c.labels.values())): c.value for c in table.counters}
    assert counted["mxgw_subscriber_overflow_total", "Disconnect", "disconnect"] == 7
    assert counted["mxgw_subscriber_disconnects_total", "SUBSCRIBER_OVERFLOW"] == 7

    assert len(told) == 7
    for one in told:
        assert one["reason"] == "SUBSCRIBER_OVERFLOW"
        assert one["gaps"] == 0
        assert one["events"] == one["last"] - one["first"] + 1
        assert one["events"] > 2_000  # the transport took megabytes before a write waited
        assert one["first"] < one["lost_from"] <= one["last"] + 1


def stalled_readers(target: str, session_id: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(STALLED), target, session_id, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def readline(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


# a stream that was cut and is never read again


@pytest.mark.asyncio
async def test_a_cut_stream_that_nobody_reads_holds_only_its_call_and_goes_with_its_connection() -> None:
    settings = {
        "plugins.enabled": ["backpressure"],
        "plugins.backpressure.queue_events": 200,
        "events.overflow_drain_s": 0.2,
        "backends.sim.profile": "load",
        "backends.sim.items": 100,
        "backends.sim.rate": 5_000,
    }
    small = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 * 1024))

    def calls() -> int:
        return sum("EventService/StreamEvents" in task.get_name() for task in asyncio.all_tasks())

    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        before = calls()
        async with client_of(gateway.target, options=small) as reader:
            stream = reader.stream(session_id)
            await stream.read()
            await client.subscribe(session_id, load_names(100))
            info = gateway.api.session
            await until(lambda: (s := info(session_id)) is not None and s.subscribers == 0, 60)
            began = time.monotonic()
            while time.monotonic() - began < 0.5:
                assert calls() == before + 1
                assert not stream.done()
                await asyncio.sleep(0.1)
        await until(lambda: calls() == before)
        session = info(session_id)

    assert session is not None  # it does not notice
