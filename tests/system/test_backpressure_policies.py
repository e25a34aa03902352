"""Each policy over a real gateway, worker and channel: gap ranges are what the worker produced and nobody delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc.aio
import pytest
from support.accounts import Account
from support.clients import Client, Refusal, client_of, refusal_of
from support.loads import LoadRecord, load_names, load_settings
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

# With small windows in the client a reader that stopped is seen after some 100 KB instead of some megabytes.
SMALL_WINDOWS = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 * 1024))
# The limit is what all of them together, in one process with the gateway, may be kept waiting for: 0.3 s.
ITEMS, RATE, LIMIT = 100, 5_000, 1_500
DROPPED, CONFLATED = e.GAP_REASON_QUEUE_DROPPED, e.GAP_REASON_CONFLATED


@dataclass
class Reader:
    """One stream on a channel of its own, that is read only when told to."""

    policy: str
    call: Any
    account: Account = field(default_factory=Account)
    opened: e.StreamOpened = field(default_factory=e.StreamOpened)
    snapshots: list[e.Snapshot] = field(default_factory=list)
    # When each event came, on the event loop's clock.
    times: dict[int, float] = field(default_factory=dict)
    end: Refusal | None = None

    async def read(self, frames: int = -1) -> None:
        """Read so many frames, or to the end."""
        now = asyncio.get_running_loop().time
        while frames and self.end is None:
            frames -= 1
            try:
                frame = await self.call.read()
            except grpc.aio.AioRpcError as error:
                self.end = refusal_of(error)
                return
            if frame.HasField("opened"):
                self.opened = frame.opened
            elif frame.HasField("snapshot"):
                self.snapshots.append(frame.snapshot)
            self.account.frame(frame)
            self.times.update((event.sequence, now()) for event in frame.events.events)


@dataclass
class Running:
    """A session under load, and its readers."""

    gateway: RunningGateway
    client: Client
    session_id: str
    readers: list[Reader]
    record: LoadRecord

    async def head(self, at_least: int) -> None:
        """Wait until the worker produced so many events."""

        await until(lambda: self.head_sequence >= at_least, 60)

    @property
    def head_sequence(self) -> int:
        info = self.gateway.api.session(self.session_id)
        assert info is not None
        return info.head_sequence

    async def subscribers(self) -> dict[str, ss.Subscriber]:
        """Return the subscribers by id."""
        response = await self.client.sessions.ListSubscribers(ss.ListSubscribersRequest(session_id=self.session_id))
        return {subscriber.subscriber_id: subscriber for subscriber in response.subscribers}

    def check(self, reader: Reader, head: int) -> None:
        """Every sequence is there once, and every event is what the worker produced under its number."""
        account = reader.account

        assert account.at == head, reader.policy
        assert set(account.events).isdisjoint(account.lost), reader.policy
        assert all(map(self.record.is_event, account.events.values())), reader.policy
        assert all(gap.count == sequences_lost(gap) for gap in account.gaps), reader.policy


def sequences_lost(gap: e.Gap) -> int:
    return sum(list(gap.runs)[::2]) or gap.last_lost - gap.first_lost + 1


@asynccontextmanager
async def under_load(
    *policies: tuple[str, dict[str, str]], always_reading: int = 0, **options: object
) -> AsyncIterator[Running]:
    """Run a session with one reader per policy, each stopped behind its first frame; the load begins at once.

    The last `always_reading` of them are to be read all the time.
    """
    settings = load_settings(
        ITEMS,
        RATE,
        **{
            "plugins.enabled": ["backpressure"],
            "plugins.backpressure.queue_events": LIMIT,
            "events.overflow_drain_s": 30.0,
            **options,
        },
    )
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client, AsyncExitStack() as channels:
        session = await client.open()
        readers = []
        for name, parameters in policies:
            # Those that read all the time have the usual windows: a moment's delay of this process must not matter.
            windows = SMALL_WINDOWS if len(readers) < len(policies) - always_reading else ()
            own = await channels.enter_async_context(client_of(gateway.target, options=windows))
            choice = es.OverflowPolicyChoice(name=name, parameters=parameters)
            call = own.stream(session.session_id, policy=choice, client_name=f"reader {name}")
            readers.append(Reader(name, call))
            await readers[-1].read(1)
        handles = await client.subscribe(session.session_id, load_names(ITEMS))
        yield Running(gateway, client, session.session_id, readers, LoadRecord(handles))


async def test_every_policy_on_one_session_names_exactly_what_it_did_not_deliver() -> None:
    policies: list[tuple[str, dict[str, str]]] = [
        ("disconnect", {}),
        ("drop_oldest", {}),
        ("drop_newest", {}),
        ("conflate", {}),
        ("sample", {"interval_ms": "200"}),
        ("resync", {}),
        ("disconnect", {}),
    ]
    async with under_load(*policies, always_reading=1) as run, asyncio.timeout(30):
        *stopped, healthy = run.readers
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(healthy.read())
            await run.head(10_000)
            seen = await run.subscribers()
            for reader in stopped:
                tasks.create_task(reader.read())
            await run.head(13_000)
            await run.client.close(run.session_id)
    head = healthy.account.at
    cut, oldest, newest, conflating, sampling, resyncing = stopped

    assert (healthy.end.reason if healthy.end else "") == "SESSION_CLOSED"
    assert healthy.account.lost == {}
    for reader in (oldest, newest, conflating, sampling, resyncing, healthy):
        run.check(reader, head)
    for reader in (oldest, newest, resyncing):
        assert set(reader.account.lost.values()) == {DROPPED}, reader.policy
        assert len(reader.account.lost) > 4_000, reader.policy
    for reader in (conflating, sampling):
        assert set(reader.account.lost.values()) == {CONFLATED}, reader.policy
        assert run.record.newest(head) <= set(reader.account.events), reader.policy

    assert cut.end is not None
    assert cut.end.reason == "SUBSCRIBER_OVERFLOW"
    assert int(cut.end.metadata["lost_from"]) == cut.account.at + 1
    assert cut.account.lost == {}
    assert "plugins.backpressure.queue_events" in cut.end.text

    # What was unread while they stood still: the newest, the oldest, one value of each item.
    def told(reader: Reader) -> ss.Subscriber:
        return seen[reader.opened.subscriber_id]

    assert [(told(r).policy, told(r).client_name) for r in stopped] == [
        (r.policy, f"reader {r.policy}") for r in stopped
    ]
    assert told(cut).ending
    assert LIMIT - 100 <= told(oldest).lag_events <= LIMIT
    assert told(oldest).backlog_bytes == 0
    assert LIMIT < told(newest).lag_events < 2 * LIMIT
    assert told(newest).backlog_bytes == told(newest).lag_bytes
    assert told(conflating).lag_events == ITEMS
    assert told(conflating).lag_age.ToTimedelta().total_seconds() > 0.5
    assert told(conflating).lag_bytes < told(conflating).backlog_bytes < 100_000
    assert told(sampling).lag_events <= 2 * ITEMS


async def test_sample_sends_no_item_twice_within_its_interval_and_every_last_value_within_one() -> None:
    policies = ("sample", {"interval_ms": "200"}), ("disconnect", {})
    async with under_load(*policies, always_reading=2) as run, asyncio.timeout(30):
        sampling, healthy = run.readers
        async with asyncio.TaskGroup() as tasks:
            for reader in run.readers:
                tasks.create_task(reader.read())
            await run.head(5_000)
            await run.client.close(run.session_id)
    head = healthy.account.at
    run.check(sampling, head)
    by_item: dict[int, list[int]] = {}
    for sequence in sampling.account.events:
        by_item.setdefault(run.record.item(sequence), []).append(sequence)
    pauses = [
        sampling.times[later] - sampling.times[earlier]
        for sequences in by_item.values()
        for earlier, later in pairwise(sequences[:-1])  # the end delivers the last values before their time
    ]
    delays = [sampling.times[s] - healthy.times[s] for s in sampling.account.events]

    assert set(sampling.account.lost.values()) == {CONFLATED}
    assert len(sampling.account.events) < head / 3  # 1 s in windows of 0.2 s, 100 items in each: about 600 of 5,000
    assert min(pauses) > 0.1  # 0.2 s, less what came late; without a pace it would be 0.02 s
    assert max(delays) < 0.2 + 0.5


async def test_resync_drops_what_is_unread_and_goes_on_from_a_snapshot() -> None:
    options = {"plugins.enabled": ["replay", "backpressure"], "plugins.replay.events": 2 * LIMIT}
    async with under_load(("resync", {}), **options) as run, asyncio.timeout(30):
        (reader,) = run.readers
        async with asyncio.TaskGroup() as tasks:
            await run.head(5_000)
            tasks.create_task(reader.read())
            await run.head(7_000)
            await run.client.close(run.session_id)

    assert set(reader.account.lost.values()) == {DROPPED}
    assert reader.account.at >= 7_000
    assert reader.snapshots
    values = {item.item_handle: item.sequence for part in reader.snapshots for item in part.items}
    assert set(values) == set(run.record.handles)
    assert all(run.record.item(sequence) == handle for handle, sequence in values.items())


SINGLE = {"plugins.backpressure.multiple_subscribers": False}


async def test_fail_session_ends_the_session_of_its_one_subscriber() -> None:
    async with under_load(("", {}), **SINGLE, **{"plugins.backpressure.policy": "fail_session"}) as run:
        (reader,) = run.readers
        async with asyncio.timeout(60):
            await until(lambda: run.gateway.api.session(run.session_id) is None, 60)
            await reader.read()
            request = ss.GetSessionRequest(session_id=run.session_id)
            session = (await run.client.sessions.GetSession(request)).session

    assert (reader.end.reason if reader.end else "") == "SUBSCRIBER_OVERFLOW"
    assert session.state == ss.SESSION_STATE_FAULTED
    assert session.close_reason == ss.CLOSE_REASON_OVERFLOW_FAIL_FAST
    assert "fell" in session.close_detail


async def test_block_lets_the_worker_wait_and_loses_nothing() -> None:
    options = {**SINGLE, "plugins.backpressure.policy": "block", "plugins.backpressure.block_timeout_s": 20.0}
    async with under_load(("", {}), **options) as run, asyncio.timeout(30):
        (reader,) = run.readers
        await run.head(LIMIT)
        before = 0
        while (head := run.head_sequence) != before:
            before = head
            await asyncio.sleep(0.2)  # the worker makes 1,000 more in this time, and keeps them
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.read())
            await run.head(before + 5_000)
            await run.client.close(run.session_id)

    assert reader.account.lost == {}
    assert reader.account.at >= before + 5_000
    assert all(map(run.record.is_event, reader.account.events.values()))


async def test_a_block_that_takes_too_long_disconnects_and_the_session_goes_on() -> None:
    options = {**SINGLE, "plugins.backpressure.policy": "block", "plugins.backpressure.block_timeout_s": 0.3}
    async with under_load(("", {}), **options) as run, asyncio.timeout(30):
        (reader,) = run.readers

        while not any(s.ending for s in (await run.subscribers()).values()):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
        await run.head(run.head_sequence + 1_000)
        await reader.read()

    assert (reader.end.reason if reader.end else "") == "SUBSCRIBER_OVERFLOW"
    assert reader.account.lost == {}


async def test_grace_lets_a_burst_pass_and_still_bounds_it() -> None:
    options: dict[str, object] = {
        "plugins.backpressure.grace.seconds": 30.0,
        "plugins.backpressure.grace.hard_events": 6_000,
        "plugins.backpressure.policy": "drop_oldest",
    }
    async with under_load(("", {}), ("drop_oldest", {}), **options) as run, asyncio.timeout(30):
        burst, stopped = run.readers
        async with asyncio.TaskGroup() as tasks:
            await run.head(4_500)  # far beyond the soft limit
            tasks.create_task(burst.read())
            await run.head(10_000)
            tasks.create_task(stopped.read())
            await run.client.close(run.session_id)

    assert burst.account.lost == {}
    run.check(stopped, burst.account.at)
    assert len(stopped.account.lost) > 1_000
