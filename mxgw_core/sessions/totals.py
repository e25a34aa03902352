"""What all sessions of a gateway's run add up to, those that ended included: no figure in here ever falls."""

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
    """What became of a worker that a session asked for."""

    READY = "ready"
    FAILED = "failed"
    # The session was closed before.
    ABANDONED = "abandoned"


class AdoptionOutcome(enum.Enum):
    """What became of a worker of an earlier gateway run."""

    ADOPTED = "adopted"
    # It was to be adopted, and did not come back.
    FAILED = "failed"
    # It was not wanted, or not allowed; its session is over.
    TERMINATED = "terminated"
    IGNORED = "ignored"
    # The session was closed while it waited.
    ABANDONED = "abandoned"


class SessionTotals:
    """Fed by the registry, at the beginning and the end of a session; lives in the event loop."""

    def __init__(self) -> None:
        self.starts: Counter[StartOutcome] = Counter()
        self.start_duration = Distribution(START_BOUNDS_S)
        self.adoptions: Counter[AdoptionOutcome] = Counter()
        self.ended: Counter[CloseReason] = Counter()
        self._streams = StreamTotals()
        # Of sessions that ended while somebody still reads what is left.
        self._lingering: list[Distributor] = []

    def starting(self, session: Session) -> None:
        """A session asks for a worker."""
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
        """A session waits for the worker that an earlier gateway gave it."""

        def opened(done: asyncio.Future[None]) -> None:
            match done.exception():
                case None:
                    self.adoptions[AdoptionOutcome.ADOPTED] += 1
                case WorkerStartFailed():
                    self.adoptions[AdoptionOutcome.FAILED] += 1
                case GatewayDraining():
                    pass  # the next gateway decides
                case _:
                    self.adoptions[AdoptionOutcome.ABANDONED] += 1

        session.opened.add_done_callback(opened)

    def over(self, session: Session) -> None:
        """A session ended. One that is left to the next gateway did not."""
        if session.close_reason is not None:
            self.ended[session.close_reason] += 1
        self._lingering.append(session.distributor)
        self._settle()

    def streams(self) -> StreamTotals:
        """Return what the sessions that ended add up to."""
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
