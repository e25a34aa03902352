"""A subscription, and the delivery of its messages in the order of their numbers.

Messages are numbered (OPC UA Part 4 section 5.14.1). When messages are missing, they are fetched with Republish before
the messages after them are delivered. When a missing message cannot be fetched, the subscription is created anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from asyncua import ua

from .emitter import Emitter
from .items import Item
from .options import OpcUaOptions
from .server_connection import ServerConnection

log = logging.getLogger(__name__)


class Subscription:
    """The subscription of one server handle: its state at the server, and the changes that must still be sent to the
    server.
    """

    def __init__(self, server_handle: int) -> None:
        self.server_handle = server_handle
        self.id: int | None = None
        self.items: dict[int, Item] = {}  # Key: client handle of a monitored item. Value: the item.
        self.pending: dict[Item, None] = {}  # Items that are advised, but not monitored yet.
        self.failed: dict[Item, None] = {}  # Items that the server refused. They are tried again at intervals.
        # Monitored items whose last value says that their node does not exist. They are created anew at intervals,
        # because a server that has the node again does not always report values to the old monitored item.
        self.gone: dict[Item, None] = {}
        self.doomed: list[int] = []  # Ids of monitored items that must be deleted.
        # Items that were suspended or activated, and whose new state was not sent to the server yet.
        self.modes: dict[Item, None] = {}
        self.last_sequence = 0
        self.last_heard = 0.0
        self.silence_limit_s = 0.0
        self.suspected = False  # True when the subscription was silent for too long at the last check.
        # Why values were missed; "" when none were. This is reported as a gap when the subscription exists again.
        self.gap_due = ""
        self.closing = False
        # `on_events` and `on_lost` are set only when this is a subscription to events, and not to items. `on_events` is
        # called with the events, and `on_lost` when events are missing.
        self.on_events: Callable[[Sequence[Any]], None] | None = None
        self.on_lost: Callable[[str], None] | None = None

    def begin(self, created: Any) -> None:
        """Take over what the server says about the subscription that it has just created."""
        self.id = created.SubscriptionId
        self.last_sequence = 0
        self.last_heard = time.perf_counter()
        self.suspected = False
        self.silence_limit_s = 2.5 * created.RevisedPublishingInterval * max(1, created.RevisedMaxKeepAliveCount) / 1000


def parameters_of(options: OpcUaOptions) -> ua.CreateSubscriptionParameters:
    """Return what a subscription is asked for when it is created."""
    parameters = ua.CreateSubscriptionParameters()
    parameters.RequestedPublishingInterval = options.publishing_interval_ms
    keep_alive_count = max(1, round(options.keep_alive_s * 1000 / options.publishing_interval_ms))
    lifetime_count = round(options.subscription_lifetime_s * 1000 / options.publishing_interval_ms)
    parameters.RequestedMaxKeepAliveCount = keep_alive_count
    parameters.RequestedLifetimeCount = max(3 * keep_alive_count, lifetime_count)
    parameters.MaxNotificationsPerPublish = 0
    parameters.PublishingEnabled = True
    return parameters


async def unused(_message: Any) -> None:
    """Do nothing: the library requires a callback, but `Publisher` receives the messages."""


_SEQUENCES = 2**32 - 1  # The largest sequence number. The next number after it is 1.
_REFUSED_PAUSE_S = 0.5
# How long the messages of a subscription come that nobody knows, until it is deleted.
_STRANGER_S = 1.0
_MAX_STRANGERS = 1000
# The answer to a transfer of a subscription that already belongs to this session.
_KEPT = frozenset({ua.StatusCodes.BadNothingToDo})
_UNSUPPORTED = frozenset(
    {ua.StatusCodes.BadServiceUnsupported, ua.StatusCodes.BadNotImplemented, ua.StatusCodes.BadNotSupported}
)


class Publisher:
    """Delivers the messages of the subscriptions in `by_id`.

    `rebuild` is called with a subscription whose messages cannot be delivered completely, and with the reason.
    `rebuild` has to call `remove`. `publish` runs while the connection is up, in one task for each publish request that
    should wait at the server.

    `discard` is called with the id of a subscription that nobody here knows: the answer to the request that created it
    came too late. `discard` has to delete it.
    """

    def __init__(
        self,
        connection: ServerConnection,
        emitter: Emitter,
        rebuild: Callable[[Subscription, str], None],
        discard: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._emitter = emitter
        self._rebuild = rebuild
        self._discard = discard
        # Key: id of a subscription that nobody here knows. Value: the time of its first message.
        self._strangers: dict[int, float] = {}
        self.by_id: dict[int, Subscription] = {}
        self._acks: list[ua.SubscriptionAcknowledgement] = []
        self._any = asyncio.Event()  # Set while a subscription exists. A publish request without one is an error.
        # This lock is held during a delivery: messages are delivered one after the other, also while a delivery waits
        # for Republish.
        self._taking = asyncio.Lock()
        self._publishers = 0

    def add(self, subscription_id: int, subscription: Subscription) -> None:
        """Deliver the messages of a new subscription from now on."""
        self.by_id[subscription_id] = subscription
        self._strangers.pop(subscription_id, None)
        self._any.set()

    def remove(self, subscription_id: int) -> None:
        """Deliver no further message of this subscription."""
        self.by_id.pop(subscription_id, None)
        if not self.by_id:
            self._any.clear()

    def forget_acknowledgements(self) -> None:
        """Drop the acknowledgements from before a reconnect. The server drops the acknowledged messages by itself."""
        self._acks.clear()
        self._strangers.clear()

    async def publish(self) -> None:
        """Keep one publish request at the server and handle its answers. Runs until cancelled, or until the server
        reports too many publish requests.
        """
        self._publishers += 1
        try:
            while True:
                await self._any.wait()
                acks, self._acks = self._acks, []
                try:
                    response = await self._connection.session.publish(acks)
                except ua.uaerrors.BadNoSubscription:
                    self._all_gone()
                except ua.uaerrors.BadTimeout:
                    continue
                except ua.uaerrors.BadTooManyPublishRequests:
                    if self._publishers > 1:
                        return
                    await asyncio.sleep(_REFUSED_PAUSE_S)
                except (ua.uaerrors.UaStructParsingError, ua.uaerrors.BadResponseTooLarge):
                    # The number of this message is unknown. The next message shows that a number is missing, and the
                    # message with this number is then requested again.
                    log.warning("a notification of the server could not be read")
                else:
                    async with self._taking:
                        await self.take(response.Parameters)
        finally:
            self._publishers -= 1

    async def take(self, result: Any) -> None:
        """Deliver the messages that are missing before a publish response, and then the response itself.

        Raises:
            ConnectionError, TimeoutError: the connection failed while missing messages were fetched; `take_back`
                fetches the rest.
        """
        message = result.NotificationMessage
        if message.NotificationData:
            self._acks.append(
                ua.SubscriptionAcknowledgement(
                    SubscriptionId=result.SubscriptionId, SequenceNumber=message.SequenceNumber
                )
            )
        subscription = self.by_id.get(result.SubscriptionId)
        if subscription is None:  # The subscription was removed.
            self._unknown(result.SubscriptionId)
            return
        subscription.last_heard = time.perf_counter()
        subscription.suspected = False
        sequence = message.SequenceNumber
        ahead = _distance(subscription.last_sequence, sequence) if subscription.last_sequence else 1
        if ahead > _SEQUENCES // 2 or ahead == 0:
            return  # The message was delivered before.
        # A keep-alive has the number of the next message, so it also reveals missing messages.
        if ahead > 1 and not await self._fill(subscription, ahead - 1):
            self._rebuild(subscription, "notifications were missing and the server no longer had them")
            return
        if message.NotificationData:
            self._deliver(subscription, message)

    def _unknown(self, subscription_id: int) -> None:
        now = time.perf_counter()
        # The first message can be here before the answer with the id.
        if now - self._strangers.setdefault(subscription_id, now) > _STRANGER_S:
            del self._strangers[subscription_id]
            self._discard(subscription_id)
        elif len(self._strangers) > _MAX_STRANGERS:
            self._strangers.clear()

    async def _fill(self, subscription: Subscription, count: int) -> bool:
        for _ in range(count):
            if not await self._republish(subscription):
                return False
        return True

    async def _republish(self, subscription: Subscription) -> bool:
        """Fetch and deliver the message after the last delivered one. Return False when the server did not have it any
        more.
        """
        wanted = _after(subscription.last_sequence)
        try:
            message = await self._connection.session.republish(subscription.id, wanted)
        except ua.UaError as error:
            log.debug("republish %d: %s", wanted, type(error).__name__)
            return False
        if message.SequenceNumber != wanted:
            return False
        self._deliver(subscription, message)
        return True

    def _deliver(self, subscription: Subscription, message: Any) -> None:
        subscription.last_sequence = message.SequenceNumber
        for data in message.NotificationData or ():
            if isinstance(data, ua.DataChangeNotification):
                gone = self._emitter.notify(data.MonitoredItems or (), subscription.items)
                if gone or subscription.gone:
                    self._keep_gone(subscription, data.MonitoredItems, gone)
            elif isinstance(data, ua.EventNotificationList) and subscription.on_events is not None:
                subscription.on_events(data.Events or ())
            elif isinstance(data, ua.StatusChangeNotification):
                self._rebuild(subscription, f"the server ended it ({ua.StatusCode(data.Status.value).name})")

    def _keep_gone(self, subscription: Subscription, notifications: Sequence[Any], gone: Sequence[Item]) -> None:
        for notification in notifications:
            item = subscription.items.get(notification.ClientHandle)
            if item is not None:
                subscription.gone.pop(item, None)
        subscription.gone.update(dict.fromkeys(gone))

    async def take_back(self, subscription: Subscription) -> bool:
        """Return True when the server kept the subscription, and everything that the server published on it during the
        outage was delivered.
        """
        parameters = ua.TransferSubscriptionsParameters()
        parameters.SubscriptionIds = [subscription.id]
        parameters.SendInitialValues = False
        available: Sequence[int] = ()
        try:
            results = await self._connection.session.transfer_subscriptions(parameters)
        except ua.UaError as error:
            # This server cannot transfer subscriptions. It keeps the subscription in the session, so nothing has to be
            # transferred.
            if not isinstance(error, ua.UaStatusCodeError) or error.code not in _UNSUPPORTED:
                return False
        else:
            if not results:
                return False
            result = results[0]
            if not result.StatusCode.is_good() and result.StatusCode.value not in _KEPT:
                return False
            available = result.AvailableSequenceNumbers or ()
        while await self._republish(subscription):
            pass
        subscription.last_heard = time.perf_counter()
        return not any(0 < _distance(subscription.last_sequence, n) <= _SEQUENCES // 2 for n in available)

    def _all_gone(self) -> None:
        for subscription in list(self.by_id.values()):
            self._rebuild(subscription, "the server says it has no subscription")


def _after(sequence: int) -> int:
    return sequence % _SEQUENCES + 1


def _distance(last: int, sequence: int) -> int:
    """Return how many numbers `sequence` is after `last`. After 4294967295 the numbers start at 1 again."""
    return (sequence - last) % _SEQUENCES
