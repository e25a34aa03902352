"""What a plugin may say about events: overflow policies, retention, filters, history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mxgw_core.api.types import SessionInfo


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How far a subscriber may fall behind. Whichever is passed first counts; 0 switches a limit off."""

    events: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SubscriberLimits:
    """How many subscribers a session may have, and the queue limits of each."""

    maximum: int
    queue: QueueLimits


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a subscriber is behind when its policy is asked.

    `events`, `bytes` and `seconds` count what was appended since the subscriber attached and is not yet read; a
    backlog that it asked for itself does not count. `over_limit_s` is the time since the limit was first passed.
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
    """Drop the oldest unread events until at most `keep_events` remain; a Gap stands in their place."""

    keep_events: int


@dataclass(frozen=True, slots=True)
class DropNewest:
    """Drop arriving events until at most `resume_below_events` are unread; a Gap stands in their place."""

    resume_below_events: int


Verdict: TypeAlias = Disconnect | FailSession | DropOldest | DropNewest


class OverflowPolicy(Protocol):
    """Decides what happens to one subscriber that fell further behind than its limits.

    One object per subscriber. Called in the event loop, so it must not block; an exception or a return that is no
    `Verdict` ends the subscriber as `Disconnect` would, is counted, and is logged once with the plugin's name.
    """

    @property
    def name(self) -> str:
        """Shown to clients and operators, for example "drop_oldest"."""

    def on_overflow(self, lag: Lag) -> Verdict:
        """Return what to do; asked again whenever the limit is passed again."""


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
    """What the log keeps after every subscriber has read it. Whichever is passed first counts."""

    events: int
    bytes: int
    seconds: float


class EventFilter(Protocol):
    """Decides which events one subscriber may see; called per event, so it must be quick and must not block."""

    def keep(self, item_handle: int, kind: int) -> bool:
        """Return whether the event may pass. `kind` is the number of `mxgw.v1.EventKind`."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Consecutive older events: an encoded `mxgw.v1.EventBatch`, and the sequences it spans."""

    first_sequence: int
    last_sequence: int
    events: bytes


class History(Protocol):
    """Older events of one session from an outside store."""

    async def oldest_sequence(self, epoch: bytes) -> int | None:
        """Return the oldest sequence the store has of `epoch`, None when it has none."""

    def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        """Yield pages with `after < sequence <= until`, oldest first, without holes from the first page on."""
