"""Requests that servers refuse as a whole, answer late, wrongly or not at all: only what is concerned fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from asyncua import ua
from asyncua.common.connection import TransportLimits

from mxgw.convert import is_ok, to_value
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw_worker.backends.base import MxError
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.session import MAX_ANSWER_BYTES

from .harness import running_backend
from .plant import Plant

Original = Callable[[Any], Awaitable[Any]]


async def advised(backend: OpcUaBackend, *references: str) -> list[int]:
    handle = await backend.register("requests")
    items = [await backend.add_item(handle, reference) for reference in references]
    for item in items:
        await backend.advise(handle, item)
    return items


@contextmanager
def message_limits(plant: Plant, **limits: int) -> Iterator[None]:
    with patch.multiple(plant.limits, **limits):
        yield


@pytest.mark.parametrize(
    "limits",
    [
        {"max_message_size": 4000},
        {"max_chunk_count": 1, "max_recv_buffer": 8192, "max_send_buffer": 8192},
    ],
)
@pytest.mark.asyncio
async def test_requests_are_as_small_as_the_server_declares(plant: Plant, limits: dict[str, int]) -> None:
    plant.set_value("ns=2;s=A", ua.Variant([0.5] * 3000, ua.VariantType.Double))  # answers have no such limit
    with message_limits(plant, **limits):
        async with running_backend(plant.url) as (backend, sink):
            items = await advised(backend, *[f"/Objects/2:T{n % 8}" for n in range(100)], "ns=2;s=A")
            for item in items:
                await sink.first(item)
            handle = await backend.register("write")
            large = await backend.add_item(handle, "ns=2;s=A")
            written = [await backend.add_item(handle, "ns=2;s=A") for _ in range(10)]
            for item in (*written[:5], large, *written[5:]):
                await backend.write(handle, item, to_value([1.0] * (2000 if item == large else 100)), 0)
            refused = (await sink.written(large)).statuses[0]

            assert (refused.success, refused.raw_category, refused.raw_detail) == (0, 5, 1004)
            for item in written:
                assert is_ok((await sink.written(item)).statuses)
            assert len(sink.changes(items[-1])[0].message.array.doubles.elements) == 3000
            assert sink.healths() == [SOURCE_HEALTH_GOOD]


@pytest.mark.asyncio
async def test_a_limit_that_the_server_does_not_declare_is_found(plant: Plant) -> None:
    """The server closes the connection then. The same request must not break the next connection, and so on."""

    def within(limits: TransportLimits, size: int) -> bool:
        return size <= 9000 or limits.max_message_size == MAX_ANSWER_BYTES  # only the backend has this one

    with patch.object(TransportLimits, "is_msg_size_within_limit", within):
        async with running_backend(plant.url, {"reconnect_max_delay_s": 0.1}) as (backend, sink):
            items = await advised(backend, *[f"ns=2;s=T{n % 8}" for n in range(180)])
            await sink.until(lambda: all(sink.changes(item)[-1:] for item in items))
            await sink.until(lambda: all(sink.changes(item)[-1].quality == 192 for item in items))

            assert sink.healths().count(SOURCE_HEALTH_GOOD) <= 4


@pytest.mark.parametrize("code", ["BadDecodingError", "BadInternalError", "BadResponseTooLarge"])
@pytest.mark.asyncio
async def test_what_makes_a_request_fail_as_a_whole_is_found_and_fails_alone(plant: Plant, code: str) -> None:
    number = getattr(ua.StatusCodes, code)

    async def fail(original: Original, parameters: Any) -> Any:
        names = [request.ItemToMonitor.NodeId.Identifier for request in parameters.ItemsToCreate]
        if "T3" in names:
            raise ua.UaStatusCodeError(number)
        return await original(parameters)

    async with running_backend(plant.url) as (backend, sink):
        with plant.service("create_monitored_items", fail):
            items = await advised(backend, *[f"ns=2;s=T{n}" for n in range(8)])
            for place, item in enumerate(items):
                assert is_ok((await sink.first(item)).statuses) is (place != 3)

            assert len(plant.calls) == 7


@pytest.mark.parametrize(
    ("code", "requests"), [("BadTooManyOperations", 7), ("BadDecodingError", 7), ("BadInternalError", 1)]
)
@pytest.mark.asyncio
async def test_writes_are_sent_again_only_when_the_server_has_done_none_of_them(
    plant: Plant, code: str, requests: int
) -> None:
    async def fail(original: Original, parameters: Any) -> Any:
        if "T3" in [value.NodeId.Identifier for value in parameters.NodesToWrite]:
            raise ua.UaStatusCodeError(getattr(ua.StatusCodes, code))
        return await original(parameters)

    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("writes")
        items = [await backend.add_item(handle, f"ns=2;s=T{n}") for n in range(8)]
        with plant.service("write", fail):
            for item in items:
                await backend.write(handle, item, to_value(1.0), 0)
            results = [is_ok((await sink.written(item)).statuses) for item in items]

            assert results == [requests > 1 and place != 3 for place in range(8)]
            assert len(plant.calls) == requests


@pytest.mark.asyncio
async def test_too_many_operations_are_remembered(plant: Plant) -> None:
    async def few(original: Original, parameters: Any) -> Any:
        if len(parameters.NodesToWrite) > 3:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        return await original(parameters)

    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("few")
        items = [await backend.add_item(handle, f"ns=2;s=T{n}") for n in range(8)]
        with plant.service("write", few):
            for turn in (1, 2):
                plant.calls.clear()
                for item in items:
                    await backend.write(handle, item, to_value(1.0), 0)
                for item in items:
                    assert is_ok((await sink.written(item, turn)).statuses)
            sizes = [len(parameters.NodesToWrite) for (parameters,) in plant.calls]

            assert sizes == [2, 2, 2, 2]


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_read_fails_its_request_alone(plant: Plant) -> None:
    async def garble(original: Original, parameters: Any) -> Any:
        answers = await original(parameters)
        answers[0].References = [replace(reference, NodeClass=9999) for reference in answers[0].References]
        return answers

    async with running_backend(plant.url) as (backend, sink):
        with plant.service("browse", garble):
            with pytest.raises(MxError, match="BadDecodingError"):
                await backend.browse("")
            (item, loose) = await advised(backend, "ns=2;s=T1", "/Objects/T1")

            assert is_ok((await sink.first(item)).statuses)
            assert not is_ok((await sink.first(loose)).statuses)

        assert len(await backend.browse("")) > 8
        assert sink.healths() == [SOURCE_HEALTH_GOOD]


@pytest.mark.parametrize("service", ["browse", "read", "write", "translate_browsepaths_to_nodeids"])
@pytest.mark.asyncio
async def test_a_service_that_never_answers_ends_its_own_requests_in_time(plant: Plant, service: str) -> None:
    released = asyncio.Event()

    async def wait(_original: Original, *_parameters: Any) -> Any:
        await released.wait()
        return []

    # This server answers one request after the other, so it is silent altogether then.
    options = {"request_timeout_s": 0.3, "connect_timeout_s": 5, "reconnect_max_delay_s": 0.1}
    async with running_backend(plant.url, options) as (backend, sink):
        (still,) = await advised(backend, "ns=2;s=T1")
        await sink.first(still)
        handle = await backend.register("silent")
        item = await backend.add_item(handle, "/Objects/T2")
        with plant.service(service, wait):
            await backend.write(handle, item, to_value(1.0), 0)
            late = (await sink.written(item)).statuses[0]
            with pytest.raises(MxError):
                await backend.browse("/Objects/2:Odd")
        plant.release(released)
        await sink.until(lambda: sink.healths()[-1] == SOURCE_HEALTH_GOOD)
        async with asyncio.timeout(60):
            while True:  # until the server has worked off what waited
                before = len(sink.completions("write", item))
                await backend.write(handle, item, to_value(1.0), 0)
                if is_ok((await sink.written(item, before + 1)).statuses):
                    break

        assert (late.success, late.raw_category) == (0, 3)


@pytest.mark.soak
@pytest.mark.asyncio
async def test_a_server_that_needs_five_seconds_for_each_request_is_slow_and_not_lost(plant: Plant) -> None:
    async def slowly(original: Callable[..., Awaitable[Any]], *parameters: Any) -> Any:
        await asyncio.sleep(5)
        return await original(*parameters)

    services = ("read", "write", "browse", "translate_browsepaths_to_nodeids", "create_monitored_items")
    with plant.services(dict.fromkeys(services, slowly)):
        async with running_backend(plant.url, {"request_timeout_s": 30}) as (backend, sink):
            (item,) = await advised(backend, "/Objects/2:T1")
            assert is_ok((await sink.first(item)).statuses)
            await backend.write(1, item, to_value(5.0), 0)

            assert is_ok((await sink.written(item)).statuses)
            assert len(await backend.browse("")) > 8
            assert sink.healths() == [SOURCE_HEALTH_GOOD]
