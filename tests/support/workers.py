"""The workers that a test's own process started."""

from __future__ import annotations

import psutil


def started_workers() -> list[int]:
    """Return the pids of the worker processes below this one; servers that other tests share are none."""
    return [child.pid for child in psutil.Process().children() if "mxgw_worker" in child.cmdline()]
