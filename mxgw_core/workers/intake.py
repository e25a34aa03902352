"""What a worker's connection brings into the session's log, and where that of a worker taken back begins. Sans-io."""

from __future__ import annotations

from mxgw.v1.events_pb2 import GapReason
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.pieces import Gap
from mxgw_core.printable import printable

_GAP_REASONS = frozenset(GapReason.values())


class Intake:
    """One worker's events on their way into `distributor`; with `refills` the worker served an earlier gateway."""

    def __init__(self, distributor: Distributor, *, refills: bool) -> None:
        self._distributor = distributor
        self._refills = refills
        # What the worker had when it came back.
        self._refill_head = 0

    def resume_after(self, hello: w.Hello) -> int:
        """Return the sequence after which a worker that says this should send events."""
        if self._refills:
            # All that it kept refills the log. A Hello is only checked for sense, so far.
            return max(0, hello.outbox_oldest - 1)
        return self._distributor.log.head if hello.epoch == self._distributor.epoch else 0

    def welcomed(self, hello: w.Hello) -> None:
        """Let events of the worker that said this come."""
        self._distributor.epoch = hello.epoch
        if self._refills:
            self._distributor.refill_after(self.resume_after(hello))
            self._refill_head = hello.head_sequence

    @property
    def is_refilled(self) -> bool:
        """Whether all is here that the worker had when it came back: before, a resume could be ahead of the log."""
        return self._distributor.log.head >= self._refill_head

    def events(self, block: w.EventBlock) -> None:
        """Take a block of events; `Distributor.flush` has to follow.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        self._distributor.append(block.first_sequence, block.last_sequence, block.events)

    def gap(self, lost: w.WorkerGap) -> None:
        """Take a loss; `Distributor.flush` has to follow.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        reason = lost.reason if lost.reason in _GAP_REASONS else GapReason.GAP_REASON_UNSPECIFIED
        gap = Gap(lost.first_lost, lost.last_lost, reason, printable(lost.detail, 300), lost.count)
        if self._refills and reason == GapReason.GAP_REASON_WORKER_OUTBOX_OVERRUN:
            # Overwritten between Hello and the first block: as with what went before the Hello, subscribers may have
            # had it from the gateway before, and a history store may hold it. In front of a refill it is no hole.
            self._distributor.begin_behind(gap)
        else:
            self._distributor.append_gap(gap)
