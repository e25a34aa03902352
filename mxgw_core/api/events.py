"""What a plugin may say about events: overflow policies, retention, filters, history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from mxgw_core.api.types import ItemRecord, SessionInfo


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How far a subscriber may fall behind. Whichever is passed first counts; 0 switches a limit off.

    `section` of the settings has these limits as queue_events, queue_bytes and queue_seconds; the error names it.
    `bytes_setting` is what sets the bytes when it is something else.
    """

    events: int
    bytes: int
    seconds: float
    section: str = "events"
    bytes_setting: str = ""


@dataclass(frozen=True, slots=True)
class SubscriberLimits:
    """How many subscribers a session may have, and the queue limits of each.

    `setting` is what allows more of them; the refusal names it.
    """

    maximum: int
    queue: QueueLimits
    setting: str = ""


@dataclass(frozen=True, slots=True)
class BufferLimit:
    """How many bytes of events may be kept for one session; `setting`, named in errors, allows more."""

    bytes: int
    setting: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a subscriber is behind when its policy is asked.

    `events`, `bytes` and `seconds` count what was appended since the subscriber attached and is not yet read; a
    backlog that it asked for itself does not count. `over_limit_s` is the time since the limit was first passed; while
    a policy conflates it goes on until the reader has caught up.
    """

    subscriber_id: str
    events: int
    bytes: int
    seconds: float
    limits: QueueLimits
    over_limit_s: float


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End this subscriber's stream with SUBSCRIBER_OVERFLOW once it has what was unread at this moment."""


@dataclass(frozen=True, slots=True)
class FailSession:
    """As `Disconnect`, and fault the session."""


@dataclass(frozen=True, slots=True)
class DropOldest:
    """Drop the oldest unread events until at most `keep_events` remain; a Gap takes their place."""

    keep_events: int


@dataclass(frozen=True, slots=True)
class DropNewest:
    """Drop arriving events until at most `resume_below_events` are unread; a Gap takes their place."""

    resume_below_events: int


@dataclass(frozen=True, slots=True)
class Conflate:
    """Keep the newest data change of every item, and every event of another kind; exact Gaps replace the rest.

    It goes on until the reader has caught up. When events of other kinds are more than the limits, or the newest values
    alone more than the limit in bytes, the subscriber is disconnected: queues are bounded.
    """


@dataclass(frozen=True, slots=True)
class Select:
    """Keep the unread events that `keep(server_handle, item_handle, kind)` wants; exact Gaps replace the rest.

    `kind` is the number of `mxgw.v1.EventKind`. `keep` is asked once per item and kind, and all its answers together
    have the policy's 1 ms. When what is kept still exceeds the limits the subscriber is disconnected: queues are
    bounded.
    """

    keep: Callable[[int, int, int], bool]


@dataclass(frozen=True, slots=True)
class Resync:
    """Drop everything unread; a Gap takes its place, and a snapshot follows where snapshots are available."""


@dataclass(frozen=True, slots=True)
class Tolerate:
    """Do nothing now; ask again at the next event, and at the latest after `recheck_s` seconds."""

    recheck_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """Stop taking events from the worker until this subscriber is within its limits, for at most `timeout_s` seconds.

    At most 60 s. Delays everything of the session, command replies included; afterwards `then` is carried out. The
    worker goes on collecting into its outbox.
    """

    timeout_s: float
    then: Disconnect | FailSession | DropOldest


Action: TypeAlias = Disconnect | FailSession | DropOldest | DropNewest | Conflate | Select | Resync | Tolerate | Block


@runtime_checkable
class OverflowPolicy(Protocol):
    """Decides what happens to one subscriber that fell further behind than its limits.

    One object per subscriber. Called in the event loop, so it must not block: it has 1 ms. An exception, a return
    that is no `Action`, or an overrun of that budget puts `disconnect` in its place for this subscriber; it is
    counted, and logged once with the name of the distribution the policy comes from. An object that is no policy at
    all is replaced by `disconnect` when its subscriber attaches.
    """

    @property
    def name(self) -> str:
        """Shown to clients and operators, for example "drop_oldest"."""

    def on_overflow(self, lag: Lag) -> Action:
        """Return what to do; asked again whenever the limit is passed again."""


@runtime_checkable
class PacedPolicy(Protocol):
    """An overflow policy that also paces its subscriber: at most one data change per item and interval is sent.

    The last value of an item is always sent within one interval; what came in between is a CONFLATED gap. Events of
    other kinds keep their place among them, so they wait as well. `on_overflow` is asked only when those, or the
    newest values alone, exceed the limits.
    """

    @property
    def interval_s(self) -> float:
        """Seconds between two deliveries, greater than 0."""


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """What a subscriber asked for. `name` is "" for the default; `parameters` are the client's own words."""

    session: SessionInfo
    subscriber_id: str
    client_name: str
    name: str
    parameters: Mapping[str, str]
    limits: QueueLimits


@dataclass(frozen=True, slots=True)
class Retention:
    """What the log keeps after every subscriber has read it. Whichever is passed first counts; 0 keeps nothing.

    `seconds` 0 is no limit of age. With `snapshots`, clients may ask for the last values of all advised items.
    """

    events: int
    bytes: int
    seconds: float
    snapshots: bool = False

    def covering(self, other: Retention) -> Retention:
        """Return what satisfies both; an age of 0 is no limit of age."""
        return Retention(
            max(self.events, other.events),
            max(self.bytes, other.bytes),
            max(self.seconds, other.seconds) if self.seconds and other.seconds else 0.0,
            self.snapshots or other.snapshots,
        )


class EventFilter(Protocol):
    """Decides which events one subscriber may see; called per event, so it must be quick and must not block.

    One that implements `StandingFilter` as well is asked once for each item and kind.
    """

    def keep(self, item: ItemRecord, kind: int) -> bool:
        """Return whether an event of this item may pass; `kind` is the number of `mxgw.v1.EventKind`.

        Not asked for events of items that the gateway does not know (any more): to a filtered subscriber they do not
        pass.
        """


@runtime_checkable
class StandingFilter(EventFilter, Protocol):
    """An `EventFilter` whose answers stay the same until `revision` changes: they are remembered by item and kind.

    Answers depend on the arguments and on nothing that changes without `revision`, and asking leaves no trace. Filters
    that are equal answer alike: an event is decided once for all their subscribers at the same place. So it
    must be hashable; an object that has no `__eq__` of its own equals itself alone.
    """

    @property
    def revision(self) -> int:
        """A number that is another one whenever any answer may be."""


class StreamPace(Protocol):
    """Holds the events of a stream back, so that no more go out than somebody may have; may serve many streams.

    What is held back is unread: it counts as lag, and is the overflow policy's business once it is too much. Frames
    that are no events, and what is left when a stream ends, are not held back. Called in the event loop; an exception
    ends the stream.
    """

    def wait_s(self) -> float:
        """Return for how many seconds no events may go out; 0: they may now."""

    def sent(self, events: int) -> None:
        """So many events went out. They come in pieces, so it may be more than was due: then let the next wait."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Consecutive older events: an encoded `mxgw.v1.EventBatch`, and the sequences it spans."""

    first_sequence: int
    last_sequence: int
    events: bytes


class History(Protocol):
    """Older events of one session from an outside store.

    One that takes too long (see `events.history_page_timeout_s`) is cancelled, and counts as one that raised; so does a
    `CancelledError` of its own. Each call of its methods runs in one task.
    """

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        """Return the oldest and the newest sequence of the newest run without a hole that the store has of `epoch`.

        None when it has none. It decides only whether a resume counts as complete: the run must reach from the
        position to what the log holds. What is older than the run is asked for all the same.
        """

    def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        """Yield pages with `after < sequence <= until`, oldest first; within a page nothing is missing.

        What is missing between pages, and at either end, is a gap for the client. Where `span` had promised
        it, the stream ends with HISTORY_UNAVAILABLE instead; its client resumes, and has the gap then: what `span`
        says of it counts for nobody until it was given.
        """
