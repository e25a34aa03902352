"""What this system must be for MXAccess, and what only Windows has."""

from __future__ import annotations

import struct
import sys

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.mxaccess.alarms.consumer import AlarmConsumer, Use
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions
from mxgw_worker.backends.mxaccess.com import Pump


def check_system() -> None:
    """Check that this is a 32-bit Python on Windows.

    Raises:
        BackendUnavailable: it is not; the text says what to do.
    """
    if sys.platform != "win32":
        raise BackendUnavailable(
            "backend 'mxaccess' needs Windows, because MXAccess is a Windows component. Run the gateway on the machine"
            " with System Platform (docs/windows.md); clients connect from any system. Here 'sim' stands in for it"
        )
    bits = struct.calcsize("P") * 8
    if bits != 32:
        raise BackendUnavailable(
            f"backend 'mxaccess' needs a 32-bit Python, because MXAccess is a 32-bit component; this worker runs in a"
            f" {bits}-bit one ({sys.executable}). Set workers.python to a 32-bit Python (docs/windows.md)"
        )


def windows_pump() -> Pump:
    """Return a pump for a new apartment."""
    if sys.platform == "win32":
        from mxgw_worker.backends.mxaccess.windows.pump import WindowsPump

        return WindowsPump()
    raise AssertionError  # `check_system` has refused this system


def windows_consumer(options: AlarmOptions, use: Use) -> AlarmConsumer:
    """Make a consumer of alarms, as `MakeConsumer` does; comtypes is imported by then."""
    if sys.platform == "win32":
        from mxgw_worker.backends.mxaccess.windows.alarm_consumer import WnwrapConsumer

        return WnwrapConsumer(options, use)
    raise AssertionError  # as above
