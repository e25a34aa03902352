"""Data changes of a real server: the recording, a load, names that fail late, buffered and suspended items."""

from __future__ import annotations

from collections import defaultdict

import pytest

from mxgw.convert import is_ok
from mxgw_worker.backends.base import E_INVALIDARG, E_NOTIMPL, MxError
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.values import to_ns
from mxgw_worker.backends.sim.profiles.recording import STEEL_WEEK, attribute_name
from mxgw_worker.backends.sim.recordings import read_recording

from .harness import NS, Sink, demo_process, dropped_subscriptions, endpoint_of, running_backend


@pytest.mark.asyncio
async def test_the_recorded_week_arrives_value_for_value_and_in_order(demo: str) -> None:
    recording = read_recording(STEEL_WEEK)
    # Each change of time counts, so that equal neighbours in the recording are not merged.
    async with running_backend(demo, {"trigger": "status_value_timestamp"}) as (backend, sink):
        server = await backend.register("steel")
        items = {}
        for column in recording.columns:
            name = attribute_name(column.header)
            items[await backend.add_item(server, f"/Objects/2:Steel/2:{name}")] = column
        for item in items:
            await backend.advise(server, item)
        await sink.until(lambda: all(len(sink.changes(item)) >= 12 for item in items))
        row_of = {to_ns(time): row for row, time in enumerate(recording.times)}
        for item, column in items.items():
            changes = sink.changes(item)
            rows = [row_of[change.time_ns or 0] for change in changes]

            assert rows == [(rows[0] + n) % len(recording.times) for n in range(len(rows))]
            assert [change.value for change in changes] == [column.values[row] for row in rows]
        assert sink.gaps() == []


@pytest.mark.asyncio
async def test_a_thousand_items_at_ten_changes_a_second_lose_nothing() -> None:
    with demo_process("--items", "1000", "--rate", "10") as process:
        async with running_backend(endpoint_of(process)) as (backend, sink):
            await _load(backend, sink)


async def _load(backend: OpcUaBackend, sink: Sink) -> None:
    server = await backend.register("load")
    for number in range(1000):
        await backend.advise(server, await backend.add_item(server, f"{NS}Load.{number}"))
    await sink.until(lambda: len(sink.log) > 20_000)
    counts: dict[int, list[object]] = defaultdict(list)
    for change in sink.changes():
        counts[change.item].append(change.value)

    assert len(counts) == 1000
    for values in counts.values():
        first = values[0]
        assert isinstance(first, int)
        assert values == list(range(first, first + len(values)))
    assert sink.gaps() == []


@pytest.mark.asyncio
async def test_advises_of_one_moment_become_one_subscription_of_many_items(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("bulk")
        names = ("Int16", "Int32", "Int64", "Double", "String")
        items = {await backend.add_item(server, f"{NS}Writable.{names[n % 5]}") for n in range(5000)}
        for item in items:
            await backend.advise(server, item)
        await sink.until(lambda: len(sink.log) > 5000)

        assert {change.item for change in sink.changes()} == items
        assert len(backend._subscriptions.publisher.by_id) == 1


@pytest.mark.parametrize(
    "name", [NS + "Nowhere", "ns=2;i=x", "nsu=urn:nobody;s=a", "/Objects/2:Steel/2:Nothing", "Steel/Nothing", "a//b"]
)
@pytest.mark.asyncio
async def test_a_wrong_name_is_accepted_and_fails_late_as_a_data_change(demo: str, name: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("late")
        item = await backend.add_item(server, name)
        await backend.advise(server, item)
        change = await sink.first(item)

        assert change.quality == 4
        assert change.message.WhichOneof("kind") is None
        first = change.statuses[0]
        assert (first.success, first.raw_category, first.raw_detail) == (0, 4, 6)


@pytest.mark.asyncio
async def test_one_wrong_name_among_many_fails_alone(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("mixed")
        good = [await backend.add_item(server, f"{NS}Writable.{name}") for name in ("Double", "Int32")]
        bad = await backend.add_item(server, NS + "Nowhere")
        for item in (good[0], bad, good[1]):
            await backend.advise(server, item)
        changes = [await sink.first(item) for item in (*good, bad)]

        assert [is_ok(change.statuses) for change in changes] == [True, True, False]


@pytest.mark.asyncio
async def test_a_failure_is_told_once_although_it_is_tried_again(demo: str) -> None:
    async with running_backend(demo, {"retry_failed_s": 0.1}) as (backend, sink):
        server = await backend.register("again")
        wrong = await backend.add_item(server, NS + "Nowhere")
        await backend.advise(server, wrong)
        await sink.first(wrong)
        counter = await backend.add_item(server, NS + "Load.0")
        await backend.advise(server, counter)
        await sink.until(lambda: len(sink.changes(counter)) > 10)  # a second: ten retries

        assert len(sink.changes(wrong)) == 1


@pytest.mark.parametrize(
    ("definition", "context"),
    [
        ("/Objects/Steel/Row", ""),
        ("/0:Objects/2:Steel/2:Row", ""),
        ("Steel/Row", ""),
        ("Row", "ns=2;s=Steel"),
        ("2:Row", "/Objects/2:Steel"),
        ("nsu=urn:mxgw:demo;s=Steel.Row", "/ignored"),
    ],
)
@pytest.mark.asyncio
async def test_paths_contexts_and_namespace_uris_lead_to_the_node(demo: str, definition: str, context: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("paths")
        item = await backend.add_item2(server, definition, context)
        await backend.advise(server, item)

        assert (await sink.first(item)).quality == 192


@pytest.mark.asyncio
async def test_nothing_follows_un_advise_and_advising_again_reports_the_value_again(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("un-advise")
        item = await backend.add_item(server, NS + "Load.1")
        other = await backend.add_item(server, NS + "Load.2")
        await backend.advise(server, item)
        await backend.advise(server, other)
        await sink.first(item)
        await backend.un_advise(server, item)
        seen = len(sink.changes(item))
        reached = len(sink.changes(other))
        await sink.until(lambda: len(sink.changes(other)) > reached + 5)

        assert len(sink.changes(item)) == seen
        await backend.advise(server, item)
        await backend.advise(server, item)
        await sink.until(lambda: len(sink.changes(item)) > seen + 3)
        values = [change.value for change in sink.changes(item)[seen:]]

        assert len(set(values)) == len(values)  # advised twice, but each change once


@pytest.mark.asyncio
async def test_a_removed_item_and_an_unregistered_handle_are_gone(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("remove")
        item = await backend.add_item(server, NS + "Load.1")
        await backend.advise(server, item)
        await sink.first(item)
        await backend.remove_item(server, item)
        with pytest.raises(MxError) as gone:
            await backend.advise(server, item)
        assert gone.value.hresult == E_INVALIDARG
        await backend.unregister(server)
        with pytest.raises(MxError):
            await backend.add_item(server, NS + "Load.1")
        # The next handle starts afresh.
        again = await backend.register("remove")
        item = await backend.add_item(again, NS + "Load.3")
        await backend.advise(again, item)

        assert (await sink.first(item)).server == again


@pytest.mark.asyncio
async def test_buffered_items_send_arrays_that_leave_nothing_out(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("buffered")
        await backend.set_buffered_update_interval(server, 500)
        item = await backend.add_buffered_item(server, "Load/7", "")
        await backend.advise(server, item)
        await sink.until(lambda: len(sink.buffered()) >= 3)
        events = sink.buffered()
        values: list[object] = []
        for event in events:
            assert isinstance(event.values, list)
            assert len(event.values) == len(event.qualities) == len(event.times_ns)
            values += event.values

        assert sink.changes() == []
        assert len(values) > len(events)
        first = values[0]
        assert isinstance(first, int)
        assert values == list(range(first, first + len(values)))
        assert {event.data_type for event in events} == {2}


@pytest.mark.asyncio
async def test_a_full_buffer_is_sent_early(demo: str) -> None:
    async with running_backend(demo, {"queue_size": 3, "buffered_interval_ms": 3_600_000}) as (backend, sink):
        server = await backend.register("buffered")
        item = await backend.add_buffered_item(server, NS + "Load.7", "")
        await backend.advise(server, item)
        await sink.until(lambda: len(sink.buffered()) >= 2)

        assert {len(event.qualities) for event in sink.buffered()} == {3}


@pytest.mark.asyncio
async def test_a_shorter_buffered_interval_applies_at_once(demo: str) -> None:
    async with running_backend(demo, {"buffered_interval_ms": 3_600_000}) as (backend, sink):
        server = await backend.register("buffered")
        item = await backend.add_buffered_item(server, NS + "Load.7", "")
        await backend.advise(server, item)
        await backend.set_buffered_update_interval(server, 100)
        await sink.until(lambda: len(sink.buffered()) >= 2)
        with pytest.raises(MxError):
            await backend.set_buffered_update_interval(server, 0)


@pytest.mark.asyncio
async def test_suspend_silences_an_item_and_activate_wakes_it(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("suspend")
        item = await backend.add_item(server, NS + "Load.1")
        other = await backend.add_item(server, NS + "Load.2")
        await backend.advise(server, item)
        await backend.advise(server, other)
        await sink.first(item)
        assert (await backend.activate(server, item)).raw_category == 0
        assert (await backend.suspend(server, item)).raw_category == 1
        assert (await backend.suspend(server, item)).raw_category == 0
        await sink.until(lambda: len(sink.completions("operation", item)) == 1)
        assert is_ok(sink.completions("operation", item)[0].statuses)
        # What was sampled before may still be on its way for one publishing interval.
        reached = len(sink.changes(other))
        await sink.until(lambda: len(sink.changes(other)) > reached + 3)
        seen, reached = len(sink.changes(item)), len(sink.changes(other))
        await sink.until(lambda: len(sink.changes(other)) > reached + 5)

        assert len(sink.changes(item)) == seen
        await backend.activate(server, item)
        await sink.until(lambda: len(sink.changes(item)) > seen)
        assert len(sink.completions("operation", item)) == 2


@pytest.mark.asyncio
async def test_what_opc_ua_has_no_form_for_says_so(demo: str) -> None:
    async with running_backend(demo) as (backend, _):
        server = await backend.register("refused")
        for call in (backend.authenticate_user(server, "me", "geheim"), backend.archestra_user_to_id(server, "{}")):
            with pytest.raises(MxError) as refused:
                await call
            assert refused.value.hresult == E_NOTIMPL
        with pytest.raises(MxError) as refused:
            await backend.suspend(server, 99)

        assert refused.value.hresult == E_INVALIDARG


@pytest.mark.asyncio
async def test_stopping_takes_the_subscription_off_the_server_and_ends_all_events(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        handle = await backend.register("stop")
        item = await backend.add_item(handle, NS + "Load.0")
        await backend.advise(handle, item)
        await sink.first(item)
    seen = len(sink.log)

    assert await dropped_subscriptions(demo) == 0
    assert len(sink.log) == seen
