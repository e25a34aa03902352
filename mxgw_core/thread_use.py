"""What a thread used, and how often it waited: this tells slow code from code that had to wait for a processor."""

from __future__ import annotations

import sys
import time

if sys.platform != "win32":
    import resource


def exact_thread_use() -> tuple[float, int, int]:
    """Return what this thread has used so far: seconds of processor time, how often it has slept or waited, and how
    often the system took the processor away from it.

    The two counts are always 0 where the system does not count this.
    """
    cpu_s = time.thread_time()
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return cpu_s, 0, 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_s, used.ru_nvcsw, used.ru_nivcsw


def thread_use() -> tuple[float, int]:
    """Return how many seconds of processor time this thread has used, to a few milliseconds, and how often it has slept
    or waited.

    This asks the system once, where `exact_thread_use` asks it twice.
    """
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return time.thread_time(), 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw
