"""Counts that cover all sessions of a gateway run, live and ended. The counts never decrease."""

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

# Bounds of the histogram of start times. A start takes about 25 ms with a warm pool and 150 ms without one, and ends
# after `workers.start_timeout_s` at the latest, by default 20 s.
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
    # The gateway tried to adopt the worker, but it did not connect or did not become ready.
    FAILED = "failed"
    # The worker was ended, and its session too, because of the verdicts of plugins or the state of the session.
    TERMINATED = "terminated"
    IGNORED = "ignored"
    # The session was closed while the gateway waited for the worker.
    ABANDONED = "abandoned"


class SessionTotals:
    """Counts the starts and ends of sessions, which the `SessionRegistry` reports. Use it in the event loop only."""

    def __init__(self) -> None:
        self.starts: Counter[StartOutcome] = Counter()
        self.start_duration = Distribution(START_BOUNDS_S)
        self.adoptions: Counter[AdoptionOutcome] = Counter()
        self.ended: Counter[CloseReason] = Counter()
        self._streams = StreamTotals()
        # The event logs and readers (distributors) of sessions that are over, while subscribers still read the
        # remaining events. Meanwhile the counts of these sessions can grow.
        self._lingering: list[Distributor] = []

    def starting(self, session: Session) -> None:
        """Count the outcome when the worker of this new session has started, or failed to start."""
        began = time.perf_counter()

        def opened(done: asyncio.Future[None]) -> None:
            match done.exception():
                case None:
                    self.starts[StartOutcome.READY] += 1
                    self.start_duration.observe(time.perf_counter() - began)
                case WorkerStartFailed():
                    self.starts[StartOutcome.FAILED] += 1
                case _:
                    self.starts[StartOutcome.ABANDONED] += 1

        session.opened.add_done_callback(opened)

    def adopting(self, session: Session) -> None:
        """Count the outcome when the orphan of this session is adopted, or cannot be adopted."""

        def opened(done: asyncio.Future[None]) -> None:
            match done.exception():
                case None:
                    self.adoptions[AdoptionOutcome.ADOPTED] += 1
                case WorkerStartFailed():
                    self.adoptions[AdoptionOutcome.FAILED] += 1
                case GatewayDraining():
                    pass  # not counted: the next gateway will adopt the worker
                case _:
                    self.adoptions[AdoptionOutcome.ABANDONED] += 1

        session.opened.add_done_callback(opened)

    def over(self, session: Session) -> None:
        """Count a session that ended, or was left to the next gateway. Only ended sessions are counted in `ended`."""
        if session.close_reason is not None:
            self.ended[session.close_reason] += 1
        self._lingering.append(session.distributor)
        self._settle()

    def streams(self) -> StreamTotals:
        """Return the counts of events and streams, summed over all sessions that are over."""
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
