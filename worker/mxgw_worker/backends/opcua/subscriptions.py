"""Keeps one subscription per server handle, with many monitored items in each.

When a subscription has to be created again, a gap is reported, and after it the current value of every item. Advises
and un-advises are collected for a moment and sent in bulk. A request that fails as a whole is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from asyncua import ua

from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_RECONNECTED

from .emitter import Emitter
from .items import Item
from .link import check_session
from .monitored_items import MonitoredItems
from .options import OpcUaOptions
from .publisher import Publisher, Subscription, parameters_of, unused
from .server_connection import ServerConnection

log = logging.getLogger(__name__)

_COLLECT_S = 0.005
_RETRY_S = 1.0


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
        # Every change that must be sent to the server sets this, and `maintain` clears it.
        self._wake = asyncio.Event()
        self._monitored = MonitoredItems(connection, emitter, options, self.rebuild, self._wake.set)
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
                for subscription in self._by_handle.values():
                    # The server can create monitored items when nobody waits for them any more. They would stay as
                    # long as their subscription, so one that has no others is not used again.
                    if subscription.pending and not subscription.items:
                        self._forget_id(subscription)
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
            except BaseException:  # This task can also be cancelled, when the connection is lost.
                self._orphans += orphans
                raise

    async def _settle(self, subscription: Subscription) -> None:
        if subscription.id is None:
            subscription.doomed.clear()  # They went with the subscription to which they belonged.
        else:
            await self._monitored.delete(subscription)
        if subscription.pending and subscription.id is None:
            await self._create(subscription)
        if subscription.id is not None:
            await self._monitored.add(subscription)
        if subscription.modes:
            await self._monitored.change_modes(subscription)

    async def _create(self, subscription: Subscription) -> None:
        try:
            result = await self._connection.session.create_subscription(parameters_of(self._options), unused)
        except ua.UaStatusCodeError as error:
            check_session(error)
            for item in list(subscription.pending):
                self._monitored.refuse(subscription, item, error.code)
            return
        if subscription.closing:
            self._orphans.append(result.SubscriptionId)
            self._wake.set()
            return
        subscription.begin(result)
        if subscription.gap_due:
            why, subscription.gap_due = subscription.gap_due, ""
            self._emitter.gap(
                GAP_REASON_SOURCE_RECONNECTED, f"subscribed anew: {why}; values in between may be missing"
            )
        self.publisher.add(result.SubscriptionId, subscription)
