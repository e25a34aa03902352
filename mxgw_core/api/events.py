"""Types for plugins that decide about events: overflow policies, limits, retention, filters, pace, history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from mxgw_core.api.ranges import check_range
from mxgw_core.api.types import ItemRecord, SessionInfo


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The limits of a subscriber's lag. It is an overflow when the lag is beyond any one of them; 0 means no limit.

    `section` is the section of the settings that has these limits as queue_events, queue_bytes and queue_seconds. It is
    named in errors. `bytes_setting` is the full name of the setting for bytes, if it has another name; otherwise "".

    Raises:
        ValueError: a limit is negative or not finite.
    """

    events: int
    bytes: int
    seconds: float
    section: str = "events"
    bytes_setting: str = ""

    def __post_init__(self) -> None:
        check_range("QueueLimits.events", self.events)
        check_range("QueueLimits.bytes", self.bytes)
        check_range("QueueLimits.seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class SubscriberLimits:
    """How many subscribers a session can have, and the limits of the lag of each subscriber.

    `setting` is the setting that allows more subscribers. The error for a refused subscriber names it.

    Raises:
        ValueError: `maximum` is less than 1.
    """

    maximum: int
    queue: QueueLimits
    setting: str = ""

    def __post_init__(self) -> None:
        check_range("SubscriberLimits.maximum", self.maximum, least=1)


@dataclass(frozen=True, slots=True)
class BufferLimit:
    """How many bytes of events can be kept for one session.

    `setting` is the setting that allows more bytes. Errors name it.

    Raises:
        ValueError: `bytes` is less than 1.
    """

    bytes: int
    setting: str

    def __post_init__(self) -> None:
        check_range("BufferLimit.bytes", self.bytes, least=1)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a subscriber is behind at the moment when its policy is called.

    `events`, `bytes` and `seconds` count the unread events that were appended after the subscriber attached. Older
    events, which the subscriber asked for with its start place, do not count. `over_limit_s` is the time since the lag
    went beyond its limits; while a policy conflates, this time goes on until the subscriber has caught up.
    """

    subscriber_id: str
    events: int
    bytes: int
    seconds: float
    limits: QueueLimits
    over_limit_s: float


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End this subscriber's stream with SUBSCRIBER_OVERFLOW, after it has got the events that are unread now."""


@dataclass(frozen=True, slots=True)
class FailSession:
    """Like `Disconnect`, and end the session too, as FAULTED."""


@dataclass(frozen=True, slots=True)
class DropOldest:
    """Drop the oldest unread events until at most `keep_events` (0 or more) remain. A Gap replaces them."""

    keep_events: int


@dataclass(frozen=True, slots=True)
class DropNewest:
    """Drop new events until at most `resume_below_events` events (0 or more) are unread. A Gap replaces the dropped
    events.
    """

    resume_below_events: int


@dataclass(frozen=True, slots=True)
class Conflate:
    """Keep the newest data change of each item, and all events of other kinds. Exact Gaps replace the other events.

    New events are treated in the same way until the subscriber has caught up. The subscriber is disconnected when the
    events that must be kept are too many: when the events of other kinds are beyond the limits, or the newest data
    changes are beyond the limit in bytes.
    """


@dataclass(frozen=True, slots=True)
class Select:
    """Keep the unread events for which `keep(item, kind)` returns True. Exact Gaps replace the other events.

    `kind` is a number of the enum `mxgw.v1.EventKind`. `keep` is called once for each item and kind that has unread
    events, in any order. It must return True or False. All these calls together may take 1 ms, and 2 microseconds more
    for each call. The subscriber is disconnected when the kept events are still beyond the limits.

    An event always goes by the item that caused it, also when its item was removed meanwhile and the handle belongs to
    another item now. `keep` is not called for events of items that the gateway does not know, or no longer knows: these
    events are kept. The gateway knows a removed item until the records of items removed later take 2 MiB, which are
    some thousand items. In a feed of a plugin (`Feed`) no event has an item, so all events are kept there.
    """

    keep: Callable[[ItemRecord, int], bool]


@dataclass(frozen=True, slots=True)
class SelectEvents:
    """Like `Select`, but `keep(item, kind, sequence)` is called for each unread event, oldest first.

    `sequence` is the number of the event. An event that was kept, and is still unread when the policy answers
    `SelectEvents` again, is asked about again. A policy that counts must therefore remember up to which sequence it has
    counted, and answer True for older events: it has kept them before.

    The same time is allowed as for `Select`: 1 ms, and 2 microseconds more for each call. Meanwhile the event loop
    waits, so `Select` is better where all events of an item and kind get the same answer: there the calls are fewer by
    far.
    """

    keep: Callable[[ItemRecord, int, int], bool]


@dataclass(frozen=True, slots=True)
class Resync:
    """Drop all unread events. A Gap replaces them, and a snapshot follows if snapshots are enabled."""


@dataclass(frozen=True, slots=True)
class Tolerate:
    """Do nothing now. The policy is called again at the next event, or after `recheck_s` seconds (0 or more)."""

    recheck_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """Stop reading from the worker until this subscriber is within its limits again.

    This lasts for at most `timeout_s` seconds, which is a number from 0 to 60; then `then` is carried out. It delays
    all subscribers and also the command replies of the session. Meanwhile new events stay in the outbox of the worker.
    """

    timeout_s: float
    then: Disconnect | FailSession | DropOldest


Action: TypeAlias = (
    Disconnect | FailSession | DropOldest | DropNewest | Conflate | Select | SelectEvents | Resync | Tolerate | Block
)


@runtime_checkable
class OverflowPolicy(Protocol):
    """Decides what is done when the lag of its subscriber is beyond the limits. Each subscriber has its own object.

    The methods are called in the event loop, so they must not block: a call must return within 1 ms. When a call takes
    longer, raises an exception, or returns something that is no `Action`, or an action with a value out of its range,
    the policy `disconnect` replaces this policy for this subscriber. This is counted, and logged once with the name of
    the policy's distribution. An object that does not have the methods of this class is a failure of the hook
    `mxgw_overflow_policy`. `name`, and `interval_s` of a `PacedPolicy`, are read only once, as the stream opens.
    """

    @property
    def name(self) -> str:
        """The name that clients and operators see, for example "drop_oldest"."""

    def on_overflow(self, lag: Lag) -> Action:
        """Return what to do about the overflow. Called again whenever the lag is beyond its limits again."""


@runtime_checkable
class PacedPolicy(Protocol):
    """An overflow policy that sends its subscriber at most one data change per item in each interval.

    The newest data change of an item is always sent, after one interval at the latest. A CONFLATED gap replaces the
    older data changes of the interval. Events of other kinds keep their place in the order, so they wait for the
    interval too. `on_overflow` is called only when the newest data changes, or the events of other kinds, are beyond
    the limits.
    """

    @property
    def interval_s(self) -> float:
        """The interval in seconds, greater than 0."""


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """A new subscriber that needs an overflow policy.

    `name` is the policy that the client asks for; "" when it asks for none. `parameters` are the parameters that the
    client sent for the policy; they are not checked.
    """

    session: SessionInfo
    subscriber_id: str
    client_name: str
    name: str
    parameters: Mapping[str, str]
    limits: QueueLimits


@dataclass(frozen=True, slots=True)
class Retention:
    """How many events the log keeps after all subscribers have read them.

    An event is dropped when any one of the limits is reached. `events` 0 or `bytes` 0 means that nothing is kept;
    `seconds` 0 means that age is no limit. With `snapshots`, clients are allowed to request snapshots.

    Raises:
        ValueError: a limit is negative or not finite.
    """

    events: int
    bytes: int
    seconds: float
    snapshots: bool = False

    def __post_init__(self) -> None:
        check_range("Retention.events", self.events)
        check_range("Retention.bytes", self.bytes)
        check_range("Retention.seconds", self.seconds)

    def covering(self, other: Retention) -> Retention:
        """Return the smallest retention that keeps every event that this retention or `other` keeps."""
        return Retention(
            max(self.events, other.events),
            max(self.bytes, other.bytes),
            max(self.seconds, other.seconds) if self.seconds and other.seconds else 0.0,
            self.snapshots or other.snapshots,
        )


class EventFilter(Protocol):
    """Decides which events one subscriber gets. It is called for each event, so it must be quick and must not block.

    A filter that also implements `StandingFilter` is called only once for each item and kind.
    """

    def keep(self, item: ItemRecord, kind: int) -> bool:
        """Return whether the subscriber gets an event of this item. `kind` is a number of the enum `mxgw.v1.EventKind`.

        Return True or False. Anything else, also None, and an exception end the stream with ACCESS_DENIED.

        This is not called for events of items that the gateway does not know, or no longer knows: a subscriber with a
        filter does not get them.
        """


@runtime_checkable
class StandingFilter(EventFilter, Protocol):
    """An `EventFilter` whose answers stay the same until `revision` changes, so that they can be remembered.

    An answer must depend only on the arguments, and on things that never change without a change of `revision`. A call
    must have no effect. Filters must be hashable, and filters that are equal must give equal answers: then an event is
    decided only once for all subscribers with equal filters at the same place in the log. An object without a method
    `__eq__` is equal only to itself.
    """

    @property
    def revision(self) -> int:
        """A number that changes whenever an answer of `keep` can have changed."""


class StreamPace(Protocol):
    """Limits how many events per second one or more streams get.

    Events that wait count as unread, so they can cause an overflow. When a stream ends, its remaining events are sent
    without waiting. The methods are called in the event loop; an exception, or a wait that is negative or not finite,
    ends the stream with PLUGIN_FAILED.
    """

    def wait_s(self) -> float:
        """Return after how many seconds the next events can be sent; 0 when they can be sent now."""

    def sent(self, events: int) -> None:
        """Count events that are sent. Several events are sent together, so they can be more than the limit allows; the
        next wait must then be longer.
        """


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Consecutive older events: the encoded `mxgw.v1.EventBatch`, and its first and last sequence.

    `items` are the records of the items of these events, as `Gateway.follow` gave them to the plugin. A caller whose
    events are filtered (`EventFilter`) gets only events of items that are known: an event whose `item_serial` is
    neither in `items` nor known to the session is a gap for this caller.
    """

    first_sequence: int
    last_sequence: int
    events: bytes
    items: Sequence[ItemRecord] = ()


class History(Protocol):
    """A store of one session's older events, outside of the gateway.

    A call that takes longer than `events.history_page_timeout_s` is cancelled and counts as failed. A call that raises
    an exception, even `CancelledError`, counts as failed too. Each call runs in a single task from begin to end.
    """

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        """Return the first and the last sequence of the newest run of consecutive events of `epoch` in the store.

        Return None when the store has no events of the epoch. The answer decides only whether a resume counts as
        recovered: it does when this run covers everything from the client's position to the oldest event of the log.
        `read` is called for all events that the client needs and the log does not have, also for older events than this
        run.
        """

    def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        """Yield the events with `after < sequence <= until` in pages, oldest first. A page must have no hole.

        For sequences that are missing between pages, before the first or after the last page, the client gets a gap.
        But if `span` had promised these events, the stream ends with HISTORY_UNAVAILABLE. When the client then resumes,
        it gets the gap. From then on no answer of `span` is believed for these events, until the store has delivered
        them.
        """
