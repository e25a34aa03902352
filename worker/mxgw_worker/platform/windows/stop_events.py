"""Stop events: with the event of a process, another process asks it to stop. Windows has no signals between processes.

The name of the event contains pid and start time, so it belongs to one process only. The event is global, because an
administrator who drains a service works in another session of the system than the service.
"""

from __future__ import annotations

import os
import sys

assert sys.platform == "win32"

from mxgw_worker.platform.windows import security, winapi
from mxgw_worker.platform.windows.facts import start_ticks


def stop_event_of(pid: int, ticks: int) -> str:
    """Return the name of the stop event of the process with this pid and start time."""
    return rf"Global\mxgw-stop-{pid}-{ticks:x}"


def own_stop_event() -> str:
    """Return the name of the stop event of this process."""
    return stop_event_of(os.getpid(), start_ticks(os.getpid()))


def create_stop_event() -> int:
    """Create the stop event of this process, or open it if it exists already; return its handle.

    Raises:
        OSError: the event cannot be created, or another user has created it.
    """
    with security.attributes(security.stoppable()) as attributes:
        event = winapi.create_event(attributes, own_stop_event())
    if security.owner_of(event, security.KERNEL_OBJECT) != security.current_user():
        winapi.close(event)
        raise winapi.error_of(winapi.ERROR_ACCESS_DENIED, own_stop_event())
    return event
