"""Keeps one subscription per server handle, with many monitored items in each.

When a subscription has to be created again, a gap is reported, and after it the current value of every item. Advises
and un-advises are collected for a moment and sent in bulk. A request that fails as a whole is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from asyncua import ua

from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_RECONNECTED

from . import status
from .batches import Refused, in_batches
from .emitter import Emitter
from .item_options import data_change_filter, sampling_interval_ms
from .items import Item
from .limits import operations_done
from .link import Link, check_session
from .options import OpcUaOptions
from .publisher import Publisher, Subscription
from .references import locate
from .server_connection import ServerConnection
from .session import UnreadableAnswer

log = logging.getLogger(__name__)

_COLLECT_S = 0.005
_RETRY_S = 1.0
_MAX_CLIENT_HANDLE = 2**32 - 1
_TRIGGERS = {
    "status": ua.DataChangeTrigger.Status,
    "status_value_timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}


class Subscriptions:
    """Keeps the monitored items at the server equal to the advised items.

    `maintain`, `watch` and `publisher.publish` run while the connection is up, each in its own task. `resume` runs
    before them, after every connect. The other methods can be called at any time.
    """

    def __init__(self, connection: ServerConnection, emitter: Emitter, options: OpcUaOptions) -> None:
        self._connection = connection
        self._emitter = emitter
        self._options = options
        self._by_handle: dict[int, Subscription] = {}
        self._orphans: list[int] = []  # Ids of subscriptions that must be deleted at the server.
        self._client_handles = 0
        # Every change that must be sent to the server sets this, and `maintain` clears it.
        self._wake = asyncio.Event()
        self.publisher = Publisher(connection, emitter, self.rebuild, self.discard)

    # Methods that the backend calls.

    def advise(self, item: Item) -> None:
        """Monitor the item. A failure is reported as a data change."""
        item.advised = True
        item.failure = 0
        self._of(item.server_handle).pending[item] = None
        self._wake.set()

    def un_advise(self, item: Item) -> None:
        """Stop monitoring the item. Notifications that are still under way do not become events."""
        item.advised = item.suspended = item.stale = False
        item.last = None
        item.buffer.clear()
        subscription = self._of(item.server_handle)
        for waiting in (subscription.pending, subscription.failed, subscription.gone, subscription.modes):
            waiting.pop(item, None)
        self._stop_monitoring(subscription, item)
        self._wake.set()

    def set_mode(self, item: Item) -> None:
        """Send the item's state `suspended`, true or false, to the server. An operation completion follows."""
        self._of(item.server_handle).modes[item] = None
        self._wake.set()

    def close(self, server_handle: int) -> None:
        """Forget the subscription of a server handle, and all its items."""
        subscription = self._by_handle.pop(server_handle, None)
        if subscription is None:
            return
        subscription.closing = True
        self._forget_id(subscription)
        self._wake.set()

    def discard(self, subscription_id: int) -> None:
        """Deliver nothing of a subscription any more, and delete it at the server as soon as possible."""
        self.publisher.remove(subscription_id)
        self._orphans.append(subscription_id)
        self._wake.set()

    def advised_items(self) -> list[Item]:
        """Return every advised item, including suspended ones."""
        return [
            item
            for subscription in self._by_handle.values()
            for item in (*subscription.items.values(), *subscription.pending, *subscription.failed)
        ]

    # Methods that run while the connection is up, or right before.

    async def resume(self, *, session_kept: bool) -> None:
        """Restore all subscriptions after a connect. A gap is reported where values were perhaps missed.

        Raises:
            ConnectionError, TimeoutError, ua.UaError: the connection failed again; call this again after the next
                connect.
        """
        self.publisher.forget_acknowledgements()
        for subscription in list(self._by_handle.values()):
            if subscription.id is None:
                continue
            if not session_kept:
                self.rebuild(subscription, "the server no longer had the session")
            elif not await self.publisher.take_back(subscription):
                self.rebuild(subscription, "the server no longer had the subscription or some of its messages")
            else:
                for item in list(subscription.items.values()):
                    if item.stale:
                        self._emitter.repeat(item)
        if not session_kept:
            self._orphans.clear()
        for subscription in self._by_handle.values():
            self._retry(subscription)
        self._wake.set()

    async def maintain(self) -> None:
        """Send the collected changes in bulk, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_COLLECT_S)
            self._wake.clear()
            try:
                await self._delete_orphans()
                for subscription in list(self._by_handle.values()):
                    await self._settle(subscription)
            except TimeoutError:
                log.warning("the server did not answer a subscription request in time; trying again")
                await asyncio.sleep(_RETRY_S)
                self._wake.set()

    async def watch(self) -> None:
        """Find subscriptions that have stopped without a message, and try refused items again. Runs until cancelled."""
        retry_at = time.perf_counter() + self._options.retry_failed_s
        pause_s = min(self._options.keep_alive_s / 2, self._options.retry_failed_s)
        while True:
            await asyncio.sleep(pause_s)
            now = time.perf_counter()
            for subscription in list(self.publisher.by_id.values()):
                if now - subscription.last_heard <= subscription.silence_limit_s:
                    continue
                # A subscription must be silent at two checks: after a pause of this process, messages can be unread in
                # the socket.
                if subscription.suspected:
                    self.rebuild(subscription, "the server stopped publishing without a word")
                subscription.suspected = True
            if now >= retry_at:
                retry_at = now + self._options.retry_failed_s
                for subscription in self._by_handle.values():
                    self._retry(subscription)
                self._wake.set()

    def rebuild(self, subscription: Subscription, why: str) -> None:
        """Create the subscription again with all its items, at the next run of `maintain`. A gap is reported before
        their first values. A subscription to events is not created here: its `on_lost` is called instead.
        """
        log.warning("subscription of server handle %d is created anew: %s", subscription.server_handle, why)
        self._forget_id(subscription)
        if subscription.on_lost is not None:
            subscription.on_lost(why)
            return
        subscription.gap_due = why
        for item in subscription.items.values():
            item.monitored_id = None
            subscription.pending[item] = None
        subscription.items.clear()
        subscription.gone.clear()
        subscription.doomed.clear()
        self._wake.set()

    def _retry(self, subscription: Subscription) -> None:
        """Try again to monitor the items that failed, and those whose node the server has deleted."""
        for item in subscription.gone:
            self._stop_monitoring(subscription, item)
            item.forget_node()
        subscription.pending.update(subscription.failed)
        subscription.pending.update(subscription.gone)
        subscription.failed.clear()
        subscription.gone.clear()

    def _stop_monitoring(self, subscription: Subscription, item: Item) -> None:
        subscription.items.pop(item.client_handle, None)
        if item.monitored_id is not None:
            subscription.doomed.append(item.monitored_id)
            item.monitored_id = None

    def _of(self, server_handle: int) -> Subscription:
        subscription = self._by_handle.get(server_handle)
        if subscription is None:
            subscription = self._by_handle[server_handle] = Subscription(server_handle)
        return subscription

    def _forget_id(self, subscription: Subscription) -> None:
        if subscription.id is not None:
            self.discard(subscription.id)
            subscription.id = None

    # Methods that send the collected changes to the server.

    async def _delete_orphans(self) -> None:
        orphans, self._orphans = self._orphans, []
        if orphans:
            try:
                await self._connection.session.delete_subscriptions(orphans)
            except ua.UaStatusCodeError as error:
                check_session(error)
                log.debug("deleting old subscriptions: %s", ua.StatusCode(error.code).name)
            except (OSError, TimeoutError):
                self._orphans += orphans
                raise

    async def _settle(self, subscription: Subscription) -> None:
        doomed, subscription.doomed = subscription.doomed, []
        if subscription.id is not None:
            try:
                await self._delete_items(subscription.id, doomed)
            except (OSError, TimeoutError):
                subscription.doomed += doomed
                raise
        if subscription.pending and subscription.id is None:
            await self._create(subscription)
        if subscription.id is not None:
            await self._add_pending(subscription)
        if subscription.modes:
            await self._change_modes(subscription)

    async def _delete_items(self, subscription_id: int, monitored_ids: Sequence[int]) -> None:
        link = self._connection.link

        async def send(some: Sequence[int]) -> Sequence[Any]:
            parameters = ua.DeleteMonitoredItemsParameters()
            parameters.SubscriptionId = subscription_id
            parameters.MonitoredItemIds = list(some)
            answers: Sequence[Any] = await link.session.delete_monitored_items(parameters)
            return answers

        for answer in await in_batches(link, "monitor", monitored_ids, send):
            if isinstance(answer, Refused):
                log.debug("deleting monitored items: %s", ua.StatusCode(answer.code).name)

    async def _create(self, subscription: Subscription) -> None:
        options = self._options
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = options.publishing_interval_ms
        keep_alive_count = max(1, round(options.keep_alive_s * 1000 / options.publishing_interval_ms))
        lifetime_count = round(options.subscription_lifetime_s * 1000 / options.publishing_interval_ms)
        parameters.RequestedMaxKeepAliveCount = keep_alive_count
        parameters.RequestedLifetimeCount = max(3 * keep_alive_count, lifetime_count)
        parameters.MaxNotificationsPerPublish = 0
        parameters.PublishingEnabled = True
        try:
            result = await self._connection.session.create_subscription(parameters, _unused)
        except ua.UaStatusCodeError as error:
            check_session(error)
            for item in list(subscription.pending):
                self._refuse(subscription, item, error.code)
            return
        if subscription.closing:
            self._orphans.append(result.SubscriptionId)
            self._wake.set()
            return
        subscription.id = result.SubscriptionId
        subscription.last_sequence = 0
        subscription.last_heard = time.perf_counter()
        subscription.suspected = False
        keep_alive_s = result.RevisedPublishingInterval * max(1, result.RevisedMaxKeepAliveCount) / 1000
        subscription.silence_limit_s = 2.5 * keep_alive_s
        if subscription.gap_due:
            why, subscription.gap_due = subscription.gap_due, ""
            self._emitter.gap(
                GAP_REASON_SOURCE_RECONNECTED, f"subscribed anew: {why}; values in between may be missing"
            )
        self.publisher.add(result.SubscriptionId, subscription)

    async def _add_pending(self, subscription: Subscription) -> None:
        while subscription.pending and subscription.id is not None:
            link = self._connection.link
            batch = list(subscription.pending)[: link.limits.monitor]
            usable = await self._resolve(link, subscription, batch)
            if usable:
                await self._monitor(link, subscription, usable)

    async def _resolve(self, link: Link, subscription: Subscription, batch: Sequence[Item]) -> list[Item]:
        """Resolve the references of items, and return the items that have a node id. The other items are refused."""
        unknown = [item for item in batch if item.node_on(link) is None]
        found_all: Sequence[ua.NodeId | int]
        try:
            found_all = await locate(link, [(item.definition, item.context) for item in unknown])
        except ua.UaStatusCodeError as error:
            check_session(error)
            found_all = [error.code] * len(unknown)
        for item, found in zip(unknown, found_all, strict=True):
            if isinstance(found, int):
                self._refuse(subscription, item, found)
            else:
                item.found(found, link)
        # Items can be un-advised, and nodes forgotten, while the server answers.
        return [item for item in batch if item in subscription.pending and item.node_on(link) is not None]

    async def _monitor(self, link: Link, subscription: Subscription, items: Sequence[Item]) -> None:
        on = subscription.id

        async def send(some: Sequence[Item]) -> list[None]:
            # After a rebuild in the meantime, the items wait for the new subscription.
            if subscription.id == on:
                usable = [item for item in some if item in subscription.pending and item.node_on(link) is not None]
                await self._create_items(link, subscription, usable)
            return [None] * len(some)

        results = await in_batches(link, "monitor", items, send)
        for item, result in zip(items, results, strict=True):
            if not isinstance(result, Refused):
                continue
            if result.code in (ua.StatusCodes.BadSubscriptionIdInvalid, ua.StatusCodes.BadNoSubscription):
                if subscription.id == on:
                    self.rebuild(subscription, "the server no longer had the subscription")
            elif item in subscription.pending:
                self._refuse(subscription, item, result.code)

    async def _create_items(self, link: Link, subscription: Subscription, items: Sequence[Item]) -> None:
        """Create the monitored items of `items` with one request.

        Raises:
            ConnectionError, TimeoutError, ua.UaError: the request failed. The items are pending again.
        """
        requests = []
        for item in items:
            self._client_handles = self._client_handles % _MAX_CLIENT_HANDLE + 1
            item.client_handle = self._client_handles
            # The item is registered before the answer comes, because the first notification can come even earlier.
            subscription.items[item.client_handle] = item
            subscription.pending.pop(item, None)
            requests.append(self._request(item))
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = on = subscription.id
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.ItemsToCreate = requests
        handles = [item.client_handle for item in items]
        results: Sequence[Any] = ()
        try:
            results = await link.session.create_monitored_items(parameters) if requests else ()
            if len(results) != len(requests):
                results = ()
                raise UnreadableAnswer("the server did not answer for each monitored item")
        except TimeoutError:
            # The server needs too long for so many. If it creates them later, nobody listens to their values.
            link.limits.lower("monitor", len(items))
            raise
        finally:
            # When there are no results, the items are put back, so that a later request creates their monitored items.
            # This is also done when the request was cancelled. In that case the server has perhaps created monitored
            # items, but they are not used.
            if not results:
                for item, handle in zip(items, handles, strict=True):
                    if subscription.items.pop(handle, None) is item:
                        subscription.pending[item] = None
        # After a rebuild in the meantime, the handles belong to the old subscription and are not used.
        if subscription.id != on:
            return
        done = operations_done(results)
        if done < len(results):
            # The server has created as many as it allows in one request. The others are pending again.
            link.limits.lower("monitor", 2 * done or len(results))
            for item, handle in zip(items[done:], handles[done:], strict=True):
                if subscription.items.pop(handle, None) is item:
                    subscription.pending[item] = None
        for item, handle, result in zip(items[:done], handles, results, strict=False):
            self._created(subscription, item, handle, result)

    def _created(self, subscription: Subscription, item: Item, handle: int, result: Any) -> None:
        good = result.StatusCode.is_good()
        # When the item was un-advised or its subscription rebuilt meanwhile, the new monitored item is deleted.
        if subscription.items.get(handle) is not item:
            if good:
                subscription.doomed.append(result.MonitoredItemId)
                self._wake.set()
        elif good:
            item.monitored_id = result.MonitoredItemId
        else:
            del subscription.items[handle]
            self._refuse(subscription, item, result.StatusCode.value)

    def _request(self, item: Item) -> ua.MonitoredItemCreateRequest:
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor = ua.ReadValueId(NodeId=item.node_id, AttributeId=ua.AttributeIds.Value)
        request.MonitoringMode = ua.MonitoringMode.Disabled if item.suspended else ua.MonitoringMode.Reporting
        parameters = request.RequestedParameters
        parameters.ClientHandle = item.client_handle
        parameters.SamplingInterval = sampling_interval_ms(item.options, self._options.sampling_interval_ms)
        parameters.QueueSize = self._options.queue_size
        parameters.DiscardOldest = True
        parameters.Filter = data_change_filter(item.options, _TRIGGERS.get(self._options.trigger))
        return request

    def _refuse(self, subscription: Subscription, item: Item, code: int) -> None:
        if item not in subscription.pending and not item.advised:
            return
        subscription.pending.pop(item, None)
        subscription.failed[item] = None
        item.forget_node()  # The reference is resolved again later, because the node may exist then.
        self._emitter.fail(item, code)

    async def _change_modes(self, subscription: Subscription) -> None:
        changed, subscription.modes = list(subscription.modes), {}
        for suspended, mode in ((True, ua.MonitoringMode.Disabled), (False, ua.MonitoringMode.Reporting)):
            items = [item for item in changed if item.suspended is suspended]
            there = [item for item in items if item.monitored_id is not None]
            codes = dict(zip(there, await self._set_mode(subscription, there, mode), strict=True))
            for item in items:
                code = codes.get(item, ua.StatusCodes.BadMonitoredItemIdInvalid)
                self._emitter.operation_complete(item, status.result_statuses(code))

    async def _set_mode(self, subscription: Subscription, items: Sequence[Item], mode: ua.MonitoringMode) -> list[int]:
        link = self._connection.link

        async def send(some: Sequence[Item]) -> Sequence[int]:
            parameters = ua.SetMonitoringModeParameters()
            parameters.SubscriptionId = subscription.id
            parameters.MonitoringMode = mode
            parameters.MonitoredItemIds = [item.monitored_id for item in some]
            return [code.value for code in await link.session.set_monitoring_mode(parameters)]

        answers = await in_batches(link, "monitor", items, send)
        return [answer.code if isinstance(answer, Refused) else answer for answer in answers]


async def _unused(_: Any) -> None:
    """The callback that the library requires for its own publish loop, which does not run here."""
