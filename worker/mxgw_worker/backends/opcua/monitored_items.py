"""Creates and deletes monitored items at the server, and has it sample them or not. Everything is sent in bulk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from asyncua import ua

from . import status
from .batches import Refused, in_batches
from .emitter import Emitter
from .item_options import data_change_filter, sampling_interval_ms
from .items import Item
from .limits import operations_done
from .link import Link, check_session
from .options import OpcUaOptions
from .publisher import Subscription
from .references import locate
from .server_connection import ServerConnection
from .session import UnreadableAnswer

log = logging.getLogger(__name__)

_MAX_CLIENT_HANDLE = 2**32 - 1
_TRIGGERS = {
    "status": ua.DataChangeTrigger.Status,
    "status_value_timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}


class MonitoredItems:
    """Sends to the server what a `Subscription` says of its items: which are pending, doomed or have another mode.

    `rebuild` is called with a subscription that the server no longer has, and with the reason; `wake` when there is
    something to send again.
    """

    def __init__(
        self,
        connection: ServerConnection,
        emitter: Emitter,
        options: OpcUaOptions,
        rebuild: Callable[[Subscription, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._emitter = emitter
        self._options = options
        self._rebuild = rebuild
        self._wake = wake
        self._client_handles = 0

    async def delete(self, subscription: Subscription) -> None:
        """Delete the doomed monitored items of a subscription that exists. After an error they are doomed still.

        Raises:
            OSError, TimeoutError, ua.UaError: a request failed.
        """
        link, on = self._connection.link, subscription.id
        doomed, subscription.doomed = subscription.doomed, []

        async def send(some: Sequence[int]) -> Sequence[Any]:
            parameters = ua.DeleteMonitoredItemsParameters()
            parameters.SubscriptionId = on
            parameters.MonitoredItemIds = list(some)
            answers: Sequence[Any] = await link.session.delete_monitored_items(parameters)
            return answers

        try:
            answers = await in_batches(link, "monitor", doomed, send)
        except BaseException:  # This task can also be cancelled, when the connection is lost.
            subscription.doomed += doomed
            raise
        for answer in answers:
            if isinstance(answer, Refused):
                log.debug("deleting monitored items: %s", ua.StatusCode(answer.code).name)

    async def add(self, subscription: Subscription) -> None:
        """Monitor the pending items of a subscription. Those that the server refuses are reported as failed.

        Raises:
            OSError, TimeoutError, ua.UaError: a request failed. Items without a monitored item are pending still.
        """
        while subscription.pending and subscription.id is not None:
            link = self._connection.link
            batch = list(subscription.pending)[: link.limits.monitor]
            usable = await self._resolve(link, subscription, batch)
            if usable:
                await self._monitor(link, subscription, usable)

    async def change_modes(self, subscription: Subscription) -> None:
        """Tell the server which items were suspended and activated; an operation completion for each follows.

        Raises:
            OSError, TimeoutError, ua.UaError: a request failed.
        """
        waiting, subscription.modes = subscription.modes, {}
        try:
            for suspended, mode in ((True, ua.MonitoringMode.Disabled), (False, ua.MonitoringMode.Reporting)):
                items = [item for item in waiting if item.suspended is suspended]
                there = [item for item in items if item.monitored_id is not None]
                codes = dict(zip(there, await self._set_mode(subscription, there, mode), strict=True))
                for item in items:
                    del waiting[item]
                    code = codes.get(item, ua.StatusCodes.BadMonitoredItemIdInvalid)
                    self._emitter.operation_complete(item, status.result_statuses(code))
        finally:
            # After an error, or when this task was cancelled because the connection was lost, they still have to be
            # sent. An item that changed again meanwhile is sent with what it is then.
            subscription.modes.update((item, None) for item in waiting if item.advised)

    def refuse(self, subscription: Subscription, item: Item, code: int) -> None:
        """Report that the item cannot be monitored; it is tried again later."""
        if item not in subscription.pending and not item.advised:
            return
        subscription.pending.pop(item, None)
        subscription.failed[item] = None
        item.forget_node()  # The reference is resolved again later, because the node may exist then.
        self._emitter.fail(item, code)

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
                self.refuse(subscription, item, found)
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
                    self._rebuild(subscription, "the server no longer had the subscription")
            elif item in subscription.pending:
                self.refuse(subscription, item, result.code)

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
                self._wake()
        elif good:
            item.monitored_id = result.MonitoredItemId
        else:
            del subscription.items[handle]
            self.refuse(subscription, item, result.StatusCode.value)

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
