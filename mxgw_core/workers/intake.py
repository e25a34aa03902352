"""Passes a worker's events to the event log of its session, and acknowledges them to the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mxgw.v1.events_pb2 import GapReason
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.pieces import Gap
from mxgw_core.printable import printable

_GAP_REASONS = frozenset(GapReason.values())


class Intake:
    """Passes one worker's events to `distributor`.

    `refills` is true for a worker that an earlier gateway started: the events in the worker's outbox fill the new,
    empty event log again.
    """

    def __init__(self, distributor: Distributor, *, refills: bool) -> None:
        self._distributor = distributor
        self._refills = refills
        # The worker's newest sequence at the moment when it connected to this gateway.
        self._refill_head = 0

    def resume_after(self, hello: w.Hello) -> int:
        """Return the sequence after which the worker should send events. `hello` is the worker's first message."""
        if self._refills:
            # The worker should send everything that its outbox holds. It has not proved yet that it knows the secret,
            # so `outbox_oldest` can be any number.
            return max(0, hello.outbox_oldest - 1)
        return self._distributor.log.head if hello.epoch == self._distributor.epoch else 0

    def welcomed(self, hello: w.Hello) -> None:
        """Prepare the log for the events of a worker whose connection was accepted. `hello` is the worker's first
        message.
        """
        self._distributor.epoch = hello.epoch
        if self._refills:
            self._distributor.refill_after(self.resume_after(hello))
            self._refill_head = hello.head_sequence

    @property
    def is_refilled(self) -> bool:
        """Whether the log has reached the newest sequence that the worker had when it connected.

        As long as this is false, a client can have a position that is ahead of the log.
        """
        return self._distributor.log.head >= self._refill_head

    def events(self, block: w.EventBlock) -> None:
        """Append a block of events. The caller calls `Distributor.flush` afterwards.

        Raises:
            OutOfOrder: the block does not begin right after the head of the log.
        """
        self._distributor.append(block.first_sequence, block.last_sequence, block.events)

    def gap(self, lost: w.WorkerGap) -> None:
        """Append a gap. The caller calls `Distributor.flush` afterwards.

        Raises:
            OutOfOrder: the gap does not begin right after the head of the log.
        """
        reason = lost.reason if lost.reason in _GAP_REASONS else GapReason.GAP_REASON_UNSPECIFIED
        gap = Gap(lost.first_lost, lost.last_lost, reason, printable(lost.detail, 300), lost.count)
        if self._refills and reason == GapReason.GAP_REASON_WORKER_OUTBOX_OVERRUN:
            # The worker's outbox dropped these events after the worker connected (Hello message) and before it sent its
            # first block of events. Perhaps subscribers received these events from the earlier gateway, or a history
            # store has them. So the log begins after these events, and has no gap for them.
            self._distributor.begin_behind(gap)
        else:
            self._distributor.append_gap(gap)


_EVENTS = 256
_DELAY_S = 0.05


class Acks:
    """Acknowledges the sequence `head()` to the worker, after 256 new events, or 50 ms after the first new event.

    Source: docs/reference/streams.md#acknowledgements.
    """

    def __init__(self, head: Callable[[], int], send: Callable[[int], None]) -> None:
        self._head = head
        self._send = send
        self._acked = 0
        self._timer: asyncio.TimerHandle | None = None

    def appended(self) -> None:
        """Events were appended to the log: acknowledge them now or soon."""
        if self._head() - self._acked >= _EVENTS:
            self._now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._now)

    def _now(self) -> None:
        self.cancel()
        self._acked = self._head()
        self._send(self._acked)

    def cancel(self) -> None:
        """Drop the acknowledgement that is scheduled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
