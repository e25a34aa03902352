"""A worker's events on their way into the session's log, and the acknowledgements that go back."""

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
    """Passes one worker's events to `distributor`. With `refills`, the worker served an earlier gateway, and what it
    kept refills the log.
    """

    def __init__(self, distributor: Distributor, *, refills: bool) -> None:
        self._distributor = distributor
        self._refills = refills
        # The head sequence of the worker when it came back.
        self._refill_head = 0

    def resume_after(self, hello: w.Hello) -> int:
        """Return the sequence after which the worker with this Hello should send events."""
        if self._refills:
            # The worker sends all that it kept. Its Hello is not proved yet, so the number may be wrong.
            return max(0, hello.outbox_oldest - 1)
        return self._distributor.log.head if hello.epoch == self._distributor.epoch else 0

    def welcomed(self, hello: w.Hello) -> None:
        """The worker with this Hello is accepted; its events follow."""
        self._distributor.epoch = hello.epoch
        if self._refills:
            self._distributor.refill_after(self.resume_after(hello))
            self._refill_head = hello.head_sequence

    @property
    def is_refilled(self) -> bool:
        """Whether the log has all events up to the head that the worker had when it came back. Before, a client could
        resume at a position ahead of the log.
        """
        return self._distributor.log.head >= self._refill_head

    def events(self, block: w.EventBlock) -> None:
        """Append a block of events. The caller calls `Distributor.flush` afterwards.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        self._distributor.append(block.first_sequence, block.last_sequence, block.events)

    def gap(self, lost: w.WorkerGap) -> None:
        """Append a gap. The caller calls `Distributor.flush` afterwards.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        reason = lost.reason if lost.reason in _GAP_REASONS else GapReason.GAP_REASON_UNSPECIFIED
        gap = Gap(lost.first_lost, lost.last_lost, reason, printable(lost.detail, 300), lost.count)
        if self._refills and reason == GapReason.GAP_REASON_WORKER_OUTBOX_OVERRUN:
            # These events were overwritten between the Hello and the first block. Subscribers may have received them
            # from the earlier gateway, and a history store may have them, as all events before the Hello. So the log
            # begins behind them, without a gap.
            self._distributor.begin_behind(gap)
        else:
            self._distributor.append_gap(gap)


_EVENTS = 256
_DELAY_S = 0.05


class Acks:
    """Acknowledges `head()` to the worker after 256 events or 50 ms, whichever is first.

    Source: docs/reference/streams.md#acknowledgements.
    """

    def __init__(self, head: Callable[[], int], send: Callable[[int], None]) -> None:
        self._head = head
        self._send = send
        self._acked = 0
        self._timer: asyncio.TimerHandle | None = None

    def appended(self) -> None:
        """Events were appended to the log, and are safe there."""
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
