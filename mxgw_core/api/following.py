"""Following a session: a plugin reads all events of any session, and holds them in the log until it has stored them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.types import ItemRecord


@dataclass(frozen=True, slots=True)
class FollowedItems:
    """Items of the session. The record of an item comes before the first batch that has an event of the item.

    The records of items that were removed meanwhile come too, as long as the session knows them: it keeps 2 MiB of
    records of removed items, and forgets the oldest beyond that. So a follower that is far behind, or begins late, can
    get events of an item whose record never comes. A new follower gets the records of all items that the session knows,
    so a record can come again after a restart; it is the same record then.
    """

    items: Sequence[ItemRecord]


@dataclass(frozen=True, slots=True)
class FollowedBatch:
    """Consecutive events. `events` is the encoded `mxgw.v1.EventBatch` with every event from `first` to `last`."""

    first: int
    last: int
    events: bytes


@dataclass(frozen=True, slots=True)
class FollowedGap:
    """No event from `first` to `last` will follow. `count` is how many events were lost; 0 when nobody knows.

    `reason` is WORKER_OUTBOX_OVERRUN or another reason of the worker for events that never came to the gateway;
    RING_EVICTED for events that the log did not have any more when the follower began; and QUEUE_DROPPED for events
    that the log released, because the follower was too far behind; gaps of the worker that lie among them are part of
    the range, and are not counted. `detail` says in words what helps.
    """

    first: int
    last: int
    count: int
    reason: GapReason.ValueType
    detail: str


Followed: TypeAlias = FollowedItems | FollowedBatch | FollowedGap


class Follower(Protocol):
    """Reads the events of one session, and holds what is not acknowledged yet. Made by `Gateway.follow`.

    It is an async iterator, which one task reads at a time, and an async context manager, which closes it. Batches and
    gaps come in the order of their sequences; each begins right behind the one before. Use it in the event loop only.

    The log keeps all events behind `acknowledged` for the follower, but not more than `events.follow_bytes` for one
    session and `events.follow_total_bytes` for all sessions together. Beyond these limits the oldest events are
    released: those that the follower was not handed yet become a `FollowedGap`. A worker never waits for a follower.

    The iteration ends after the last event, when the session has ended or is left to the next gateway; `end_error` then
    says which. It ends at once when `close` is called, which the gateway does when the plugin has failed. When the
    gateway shuts down, followers have the time that streams have, `gateway.drain_timeout_s`, to read the rest; then the
    iteration ends where it is.
    """

    @property
    def session_id(self) -> str:
        """The id of the session."""

    @property
    def epoch(self) -> bytes:
        """The epoch of the session. A position for `Gateway.follow` needs it beside the sequence."""

    @property
    def delivered(self) -> int:
        """Everything up to this sequence was handed over, as a batch or as a gap."""

    @property
    def acknowledged(self) -> int:
        """The last sequence that was acknowledged; at first the one behind which the follower began."""

    @property
    def end_error(self) -> GatewayError | None:
        """Why the session's events end; None before their end was decided.

        It is `SessionEnded` with its close reason, or `GatewayDraining` when the session goes on at the next gateway.
        """

    def __aiter__(self) -> Follower: ...

    async def __anext__(self) -> Followed:
        """Wait for the next items, events or gap, and return them.

        Raises:
            RuntimeError: another task waits already.
        """

    def acknowledge(self, sequence: int) -> None:
        """Release the events up to `sequence`, because the plugin has stored them for good.

        A smaller sequence than before changes nothing.

        Raises:
            ValueError: `sequence` is larger than `delivered`, or negative.
            TypeError: `sequence` is no whole number.
        """

    def close(self) -> None:
        """End the iteration and release everything. A follower that is never closed holds events up to its limits."""

    async def __aenter__(self) -> Follower: ...

    async def __aexit__(self, *exc_info: object) -> None: ...
