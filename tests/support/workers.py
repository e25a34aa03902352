"""The workers that a test's own process started."""

from __future__ import annotations

import psutil


def started_workers() -> list[int]:
    """Return the pids of the worker processes below this one; servers that other tests share are none."""
    children = psutil.Process().children()
    return [one.pid for one in children if one.status() != psutil.STATUS_ZOMBIE and "mxgw_worker" in one.cmdline()]
