"""The workers that a test's own process started."""

from __future__ import annotations

import psutil


def started_workers() -> list[int]:
    """Return the pids of the worker processes below this one; servers that other tests share are none."""
    return [child.pid for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "mxgw_worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False  # it ended between the two questions
