"""Services of the system, on POSIX systems: they are not a matter of mxgw there, but of systemd and its like."""

from __future__ import annotations

import sys

assert sys.platform != "win32"

from mxgw_worker.platform.services import Services


def system_services() -> Services | None:
    """Return the services of this machine; None where the platform leaves them to a program of its own."""
    return None
