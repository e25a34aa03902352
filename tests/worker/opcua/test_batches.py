"""Many operations in few requests: order, limits, and the halving of what fails, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from mxgw_worker.backends.opcua.batches import Refused, in_batches
from mxgw_worker.backends.opcua.link import Limits, Link
from mxgw_worker.backends.opcua.session import NotSent, Session, UnreadableAnswer

_codes = ua.StatusCodes


class Server:
    """Doubles numbers. It refuses a request with one of `culprits` in it with `error`, and takes `most` at a time."""

    def __init__(self, error: Exception, culprits: Sequence[int] = (), most: int = 10**9) -> None:
        self._error, self._culprits, self._most = error, set(culprits), most
        self.sizes: list[int] = []

    async def send(self, some: Sequence[int]) -> list[int]:
        self.sizes.append(len(some))
        if len(some) > self._most:
            raise ua.UaStatusCodeError(_codes.BadTooManyOperations)
        if self._culprits.intersection(some):
            raise self._error
        return [2 * number for number in some]


def new_link(limit: int = 1000) -> Link:
    return Link(cast(Session, None), [], Limits(*[limit] * 5), lambda: None)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=5), st.integers(1, 300), st.integers(1, 300))
@pytest.mark.asyncio
async def test_each_operation_gets_its_result_whatever_the_limits(
    count: int, culprits: set[int], limit: int, most: int
) -> None:
    server, link = Server(NotSent(_codes.BadEncodingError, "no"), list(culprits), most), new_link(limit)
    results = await in_batches(link, "write", range(count), server.send)

    refused = Refused(_codes.BadEncodingError, sent=False)
    assert results == [refused if number in culprits else 2 * number for number in range(count)]
    assert max(server.sizes, default=0) <= limit


@pytest.mark.asyncio
async def test_one_culprit_among_a_thousand_costs_twenty_requests() -> None:
    server = Server(ua.UaStatusCodeError(_codes.BadDecodingError), [617])
    results = await in_batches(new_link(), "read", range(1000), server.send)

    assert [place for place, result in enumerate(results) if isinstance(result, Refused)] == [617]
    assert len(server.sizes) <= 21


@pytest.mark.asyncio
async def test_a_server_that_refuses_everything_is_asked_a_bounded_number_of_times() -> None:
    server = Server(ua.UaStatusCodeError(_codes.BadInternalError), range(5000))
    results = await in_batches(new_link(100_000), "monitor", range(5000), server.send)

    assert results == [Refused(_codes.BadInternalError)] * 5000
    assert len(server.sizes) < 450


@pytest.mark.asyncio
async def test_too_many_operations_are_halved_and_remembered() -> None:
    server, link = Server(RuntimeError(), most=10), new_link(100)
    await in_batches(link, "browse", range(100), server.send)
    server.sizes.clear()

    assert await in_batches(link, "browse", range(20), server.send) == [2 * number for number in range(20)]
    assert max(server.sizes) <= 10
    assert link.limits.read == 100


@pytest.mark.parametrize("error", [UnreadableAnswer("?"), ua.UaStatusCodeError(_codes.BadInternalError)])
@pytest.mark.asyncio
async def test_what_was_perhaps_done_is_not_sent_again(error: Exception) -> None:
    server = Server(error, [1])
    results = await in_batches(new_link(), "write", range(4), server.send, repeatable=False)

    assert all(isinstance(result, Refused) and result.sent for result in results)
    assert server.sizes == [4]


@pytest.mark.asyncio
async def test_a_server_that_answers_for_too_few_is_not_believed() -> None:
    async def send(some: Sequence[int]) -> Sequence[int]:
        return some[:-1]

    assert await in_batches(new_link(), "read", [1, 2], send) == [Refused(_codes.BadDecodingError)] * 2


@pytest.mark.asyncio
async def test_the_end_of_the_session_and_of_the_connection_are_raised() -> None:
    for error in (ua.UaStatusCodeError(_codes.BadSessionIdInvalid), ConnectionError(), TimeoutError()):
        with pytest.raises(type(error)):
            await in_batches(new_link(), "read", [1, 2], Server(error, [1]).send)


def test_a_link_that_was_replaced_sends_nothing() -> None:
    link = new_link()
    link.up = False

    with pytest.raises(ConnectionError):
        _ = link.session
