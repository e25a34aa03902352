"""Counts over all sessions of a gateway run, ended ones included. They never decrease."""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter

from mxgw_core.api.errors import GatewayDraining, WorkerStartFailed
from mxgw_core.api.metrics import Distribution
from mxgw_core.api.types import CloseReason
from mxgw_core.events.counts import StreamTotals
from mxgw_core.events.distributor import Distributor
from mxgw_core.sessions.session import Session

# Around 25 ms with a warm pool and 150 ms without; workers.start_timeout_s is 20 s by default.
START_BOUNDS_S = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0)


class StartOutcome(enum.Enum):
    """The outcome of starting a worker for a session."""

    READY = "ready"
    FAILED = "failed"
    # The session was closed before its worker was ready.
    ABANDONED = "abandoned"


class AdoptionOutcome(enum.Enum):
    """The outcome for a worker of an earlier gateway run."""

    ADOPTED = "adopted"
    # It was to be adopted, but did not come back.
    FAILED = "failed"
    # No plugin wanted it, or one forbade it: its session ended.
    TERMINATED = "terminated"
    IGNORED = "ignored"
    # The session was closed while it waited for the worker.
    ABANDONED = "abandoned"


class SessionTotals:
    """The registry calls it when a session starts and when it ends. Belongs to the event loop."""

    def __init__(self) -> None:
        self.starts: Counter[StartOutcome] = Counter()
        self.start_duration = Distribution(START_BOUNDS_S)
        self.adoptions: Counter[AdoptionOutcome] = Counter()
        self.ended: Counter[CloseReason] = Counter()
        self._streams = StreamTotals()
        # Distributors of ended sessions that still have subscribers, which read the remaining events.
        self._lingering: list[Distributor] = []

    def starting(self, session: Session) -> None:
        """A session starts, and needs a worker."""
        began = time.monotonic()

        def opened(done: asyncio.Future[None]) -> None:
            match done.exception():
                case None:
                    self.starts[StartOutcome.READY] += 1
                    self.start_duration.observe(time.monotonic() - began)
                case WorkerStartFailed():
                    self.starts[StartOutcome.FAILED] += 1
                case _:
                    self.starts[StartOutcome.ABANDONED] += 1

        session.opened.add_done_callback(opened)

    def adopting(self, session: Session) -> None:
        """A session waits for its worker of an earlier gateway run."""

        def opened(done: asyncio.Future[None]) -> None:
            match done.exception():
                case None:
                    self.adoptions[AdoptionOutcome.ADOPTED] += 1
                case WorkerStartFailed():
                    self.adoptions[AdoptionOutcome.FAILED] += 1
                case GatewayDraining():
                    pass  # the next gateway adopts it
                case _:
                    self.adoptions[AdoptionOutcome.ABANDONED] += 1

        session.opened.add_done_callback(opened)

    def over(self, session: Session) -> None:
        """A session ended, or was left to the next gateway; only the first is counted."""
        if session.close_reason is not None:
            self.ended[session.close_reason] += 1
        self._lingering.append(session.distributor)
        self._settle()

    def streams(self) -> StreamTotals:
        """Return the sums over the sessions that ended."""
        self._settle()
        totals = StreamTotals()
        totals.add(self._streams)
        for distributor in self._lingering:
            totals.add(distributor.totals())
        return totals

    def _settle(self) -> None:
        for distributor in self._lingering:
            if not distributor.subscribers:
                self._streams.add(distributor.totals())
        self._lingering = [distributor for distributor in self._lingering if distributor.subscribers]
