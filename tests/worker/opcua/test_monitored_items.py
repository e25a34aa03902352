"""What has to be sent to the server about monitored items, and is not lost when a request fails or is given up."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest
from asyncua import ua

from mxgw.convert import is_ok
from mxgw_worker.backends.opcua.emitter import Emitter
from mxgw_worker.backends.opcua.items import Item
from mxgw_worker.backends.opcua.limits import Limits
from mxgw_worker.backends.opcua.monitored_items import MonitoredItems
from mxgw_worker.backends.opcua.options import OpcUaOptions
from mxgw_worker.backends.opcua.publisher import Subscription
from mxgw_worker.backends.opcua.subscriptions import Subscriptions

from .harness import Sink


class ServerSide:
    """Stands for connection, link and session. A request raises `fault`, or waits for ever when there is none; after
    `heal` the server does what it is asked for.
    """

    def __init__(self, fault: Exception | None) -> None:
        self._fault = fault
        self._is_well = False
        self.asked, self.made = asyncio.Event(), asyncio.Event()
        self.modes: list[tuple[ua.MonitoringMode, list[int]]] = []
        self.deleted: list[int] = []
        self.created: list[int] = []
        self.subscriptions = 0
        self.namespaces: list[str] = []
        self.limits = Limits(*[1000] * 5)
        self.link = self.session = self

    def heal(self) -> None:
        self._is_well = True

    async def _answer(self) -> None:
        self.asked.set()
        if self._is_well:
            return
        if self._fault is None:
            await asyncio.Event().wait()
        else:
            raise self._fault

    async def create_monitored_items(self, parameters: Any) -> list[Any]:
        await self._answer()
        self.created.append(parameters.SubscriptionId)
        self.made.set()
        return [ua.MonitoredItemCreateResult(MonitoredItemId=7) for _ in parameters.ItemsToCreate]

    async def create_subscription(self, _parameters: Any, _callback: Any) -> Any:
        self.subscriptions += 1
        return ua.CreateSubscriptionResult(self.subscriptions, 100.0, 1000, 100)

    async def delete_subscriptions(self, ids: list[int]) -> None:
        self.deleted += ids

    async def set_monitoring_mode(self, parameters: Any) -> list[ua.StatusCode]:
        await self._answer()
        self.modes.append((parameters.MonitoringMode, parameters.MonitoredItemIds))
        return [ua.StatusCode(0)] * len(parameters.MonitoredItemIds)

    async def delete_monitored_items(self, parameters: Any) -> list[ua.StatusCode]:
        await self._answer()
        self.deleted += parameters.MonitoredItemIds
        return [ua.StatusCode(0)] * len(parameters.MonitoredItemIds)


class Rig:
    def __init__(self, fault: Exception | None = None) -> None:
        self.server, self.sink = ServerSide(fault), Sink()
        emitter = Emitter(100)
        emitter.open(self.sink)
        options = OpcUaOptions(url="opc.tcp://127.0.0.1:1")
        self.monitored = MonitoredItems(
            self.server,  # type: ignore[arg-type]
            emitter,
            options,
            lambda *_: pytest.fail("nothing is rebuilt here"),
            lambda: None,
        )
        self.subscription = Subscription(1)
        self.subscription.id = 5

    async def fail(self, work: Any) -> None:
        """Run until the server has failed, or until the task is cancelled as it is when the connection is lost."""
        async with asyncio.timeout(60):
            task = asyncio.get_running_loop().create_task(work)
            await self.server.asked.wait()
            task.cancel()
            await asyncio.wait([task])

        assert task.cancelled() or task.exception() is not None

        self.server.heal()


FAULTS = pytest.mark.parametrize(
    "fault", [TimeoutError(), ConnectionError(), ua.uaerrors.BadSessionIdInvalid(), None], ids=repr
)


@FAULTS
@pytest.mark.asyncio
async def test_a_mode_that_was_not_sent_is_sent_later_and_completes_once(fault: Exception | None) -> None:
    rig = Rig(fault)
    items = [Item(1, number, "a", "", advised=True, suspended=number < 2, monitored_id=number) for number in range(4)]
    rig.subscription.modes.update(dict.fromkeys(items))
    await rig.fail(rig.monitored.change_modes(rig.subscription))
    items[0].advised = False  # as un-advised in the meantime
    rig.subscription.modes.pop(items[0], None)

    assert list(rig.subscription.modes) == items[1:]

    await rig.monitored.change_modes(rig.subscription)

    assert rig.server.modes == [(ua.MonitoringMode.Disabled, [1]), (ua.MonitoringMode.Reporting, [2, 3])]
    assert [done.item for done in rig.sink.completions("operation")] == [1, 2, 3]
    assert all(is_ok(done.statuses) for done in rig.sink.completions("operation"))
    assert not rig.subscription.modes


@FAULTS
@pytest.mark.asyncio
async def test_what_was_not_deleted_is_deleted_later(fault: Exception | None) -> None:
    rig = Rig(fault)
    rig.subscription.doomed = [1, 2]
    await rig.fail(rig.monitored.delete(rig.subscription))
    await rig.monitored.delete(rig.subscription)

    assert rig.server.deleted == [1, 2]
    assert not rig.subscription.doomed


@pytest.mark.asyncio
async def test_items_for_which_the_server_needs_too_long_are_created_in_smaller_parts() -> None:
    rig = Rig(TimeoutError())
    rig.server.limits.monitor = 8
    items = [Item(1, number, "ns=2;s=a", "", advised=True) for number in range(8)]
    for item in items:
        item.found(ua.NodeId("a", 2), rig.server)  # type: ignore[arg-type]
    rig.subscription.pending.update(dict.fromkeys(items))
    with pytest.raises(TimeoutError):
        await rig.monitored.add(rig.subscription)

    assert rig.server.limits.monitor == 4
    assert list(rig.subscription.pending) == items
    assert not rig.subscription.items


@pytest.mark.asyncio
async def test_monitored_items_that_the_server_creates_too_late_do_not_stay_there() -> None:
    rig = Rig(TimeoutError())
    emitter = Emitter(100)
    emitter.open(rig.sink)
    subscriptions = Subscriptions(rig.server, emitter, OpcUaOptions(url="opc.tcp://127.0.0.1:1"))  # type: ignore[arg-type]
    item = Item(1, 1, "ns=2;s=a", "", node_id=ua.NodeId("a", 2), link=rig.server)  # type: ignore[arg-type]
    subscriptions.advise(item)
    with patch("mxgw_worker.backends.opcua.subscriptions._RETRY_S", 0):
        maintaining = asyncio.get_running_loop().create_task(subscriptions.maintain())
        await rig.server.asked.wait()
        rig.server.heal()
        async with asyncio.timeout(60):
            await rig.server.made.wait()
        maintaining.cancel()
        await asyncio.wait([maintaining])

    assert rig.server.deleted == [1]
    assert rig.server.created == [2]
    assert rig.sink.gaps() == []
