"""What a thread used, and how often it waited: this tells slow code from code that had to wait for a processor."""

from __future__ import annotations

import sys
import time

if sys.platform != "win32":
    import resource


def thread_waits() -> int:
    """Return how often this thread has slept or waited so far; always 0 where the system does not count this."""
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def thread_use() -> tuple[float, int]:
    """Return how many seconds of processor time this thread has used, to a few milliseconds, and its `thread_waits`.

    This asks the system once, where `time.thread_time` and `thread_waits` together ask it twice.
    """
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return time.thread_time(), 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw
