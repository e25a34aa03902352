"""Whether code of a plugin that took too long is to blame for that, or something else had the processor meanwhile."""

from __future__ import annotations

from mxgw_worker.platform import ThreadUse

# After this many unexplained delays in succession the code is to blame. On a machine that has too little processor time
# for all its programs, one of a hundred short calls is delayed, and hardly five of them one after the other.
DELAYS = 5


def is_to_blame(before: ThreadUse, after: ThreadUse, allowed_s: float, step_s: float) -> bool | None:
    """Return whether code that took longer than `allowed_s` is to blame. None when the system does not say.

    `before` and `after` are what its thread had used when the code began, and when it ended. `step_s` is by how much
    the difference of their processor times can be wrong (`THREAD_TIME_STEP_S`).

    It is to blame when it used more processor time than allowed. When it slept or waited, it is to blame only if the
    system did not take the processor away from it meanwhile: a thread that gets the processor back has to wait for
    Python's lock, which looks like any other waiting.
    """
    (cpu_before_s, waits_before, interruptions_before), (cpu_s, waits, interruptions) = before, after
    if cpu_s - cpu_before_s - step_s > allowed_s:
        return True
    if waits is None or waits_before is None:
        return None
    return waits > waits_before and interruptions == interruptions_before


class Delays:
    """Counts the delays in succession of code for which the system does not say whether the code is to blame."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def none(self) -> None:
        """Record that the code ran without a delay."""
        self.count = 0

    def one(self) -> bool:
        """Record a delay. Return whether the code is to blame, because so many came one after the other."""
        self.count += 1
        return self.count >= DELAYS
