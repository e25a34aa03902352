"""What a thread used and how often it waited: this tells code that is slow from code that had to wait for a processor."""

from __future__ import annotations

import sys
import time

if sys.platform != "win32":
    import resource


def thread_use() -> tuple[float, int]:
    """Return how many seconds of processor time this thread has used, and how often it has slept or waited.

    The second number is always 0 where the system does not count this.
    """
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return time.thread_time(), 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw
