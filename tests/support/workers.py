"""The worker processes that the process of a test has started."""

from __future__ import annotations

import psutil


def started_workers() -> list[int]:
    """Return the process ids of the workers that are children of this process itself.

    A server that several tests share is a separate process, so its workers are not included.
    """
    return [child.pid for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "mxgw_worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False  # the process ended between the two calls
