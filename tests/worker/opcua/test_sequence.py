"""Numbered messages: holes are filled before what follows, across the rollover, or told as a gap.

A live server leaves no holes on a live connection, so a stand-in for the server's side of the session makes them; items
and values go through the real emitter.
"""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua

from mxgw_worker.backends.opcua.emitter import Emitter
from mxgw_worker.backends.opcua.items import Item
from mxgw_worker.backends.opcua.limits import Limits
from mxgw_worker.backends.opcua.options import OpcUaOptions
from mxgw_worker.backends.opcua.publisher import Subscription
from mxgw_worker.backends.opcua.subscriptions import Subscriptions

from .harness import Sink

LAST = 2**32 - 1


class ServerSide:
    """Keeps messages for Republish, as a server does; answers with `BadMessageNotAvailable` for others."""

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}
        self.available: list[int] = []
        self.namespaces: list[str] = []
        self.limits = Limits(*[1000] * 5)
        self.session = self

    async def republish(self, _subscription: int, sequence: int) -> Any:
        if sequence not in self.kept:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadMessageNotAvailable)
        return self.kept[sequence]

    async def transfer_subscriptions(self, _parameters: Any) -> list[Any]:
        return [ua.TransferResult(AvailableSequenceNumbers=self.available)]


def message(sequence: int, *values: int) -> Any:
    data = ua.DataChangeNotification()
    for value in values:
        notification = ua.MonitoredItemNotification()
        notification.ClientHandle = 1
        notification.Value = ua.DataValue(ua.Variant(value, ua.VariantType.Int32))
        data.MonitoredItems.append(notification)
    result = ua.NotificationMessage()
    result.SequenceNumber = sequence
    result.NotificationData = [data] if values else []
    return result


class Rig:
    def __init__(self, last_sequence: int) -> None:
        self.server, self.sink = ServerSide(), Sink()
        emitter = Emitter(100)
        emitter.open(self.sink)
        options = OpcUaOptions(url="opc.tcp://127.0.0.1:1")
        self.subscriptions = Subscriptions(self.server, emitter, options)  # type: ignore[arg-type]
        self.item = Item(1, 1, "ns=2;s=a", "", advised=True, client_handle=1, monitored_id=7)
        self.subscription = Subscription(1)
        self.subscription.id = 5
        self.subscription.last_sequence = last_sequence
        self.subscription.items[1] = self.item
        self.subscriptions._by_handle[1] = self.subscription
        self.subscriptions.publisher.add(5, self.subscription)

    async def take(self, taken: Any) -> None:
        await self.subscriptions.publisher.take(ua.PublishResult(5, NotificationMessage=taken))

    @property
    def values(self) -> list[object]:
        return [change.value for change in self.sink.changes()]

    @property
    def rebuilding(self) -> bool:
        return self.subscription.id is None and self.item in self.subscription.pending


@pytest.mark.parametrize("last", [1, 7, LAST - 2, LAST - 1, LAST])
@pytest.mark.asyncio
async def test_missing_messages_are_fetched_before_the_next_is_delivered(last: int) -> None:
    rig = Rig(last)
    numbers = [(last + n - 1) % LAST + 1 for n in range(1, 5)]
    rig.server.kept = {number: message(number, place) for place, number in enumerate(numbers)}
    await rig.take(message(numbers[3], 3))

    assert rig.values == [0, 1, 2, 3]
    assert not rig.rebuilding


@pytest.mark.asyncio
async def test_a_keep_alive_shows_a_hole_too() -> None:
    rig = Rig(7)
    rig.server.kept = {8: message(8, 80), 9: message(9, 90)}
    await rig.take(message(10))
    await rig.take(message(10))

    assert rig.values == [80, 90]
    assert not rig.rebuilding


@pytest.mark.asyncio
async def test_messages_that_were_delivered_before_are_not_delivered_again() -> None:
    rig = Rig(LAST)
    for sequence in (LAST, LAST - 1, 1, 1, LAST):
        await rig.take(message(sequence, sequence % 1000))

    assert rig.values == [1]


@pytest.mark.asyncio
async def test_a_hole_that_cannot_be_filled_has_the_subscription_created_anew() -> None:
    rig = Rig(7)
    rig.server.kept = {8: message(8, 80)}
    await rig.take(message(10, 100))

    assert rig.values == [80]
    assert rig.rebuilding
    assert rig.subscription.gap_due


@pytest.mark.asyncio
async def test_after_a_reconnect_everything_published_meanwhile_comes_before_the_item_is_called_good_again() -> None:
    rig = Rig(7)
    rig.item.stale = True
    rig.server.kept = {8: message(8, 80), 9: message(9, 90)}
    rig.server.available = [6, 7, 8, 9]
    await rig.subscriptions.resume(session_kept=True)

    assert rig.values == [80, 90]
    assert not rig.rebuilding


@pytest.mark.asyncio
async def test_after_a_reconnect_messages_the_server_dropped_are_a_gap() -> None:
    rig = Rig(7)
    rig.server.available = [9, 10]  # 8 was pushed out
    rig.server.kept = {9: message(9, 90), 10: message(10, 100)}
    await rig.subscriptions.resume(session_kept=True)

    assert rig.rebuilding


@pytest.mark.asyncio
async def test_a_subscription_ended_by_the_server_is_created_anew() -> None:
    rig = Rig(7)
    ended = message(8)
    ended.NotificationData = [ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))]
    await rig.take(ended)

    assert rig.rebuilding
