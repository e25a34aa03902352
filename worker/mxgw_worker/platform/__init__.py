"""What differs between operating systems: sockets, processes, requests to stop, private files, locks, machine facts.

Only this package calls the operating system in a way that one platform does not have (tests/house/test_platform.py). It
needs the standard library only. Gateway, worker and command line import the names from here; plugins get what they need
from `mxgw_core.api`. `posix` and `windows` have the same modules and names with the same signatures.
"""

import sys

from mxgw_worker.platform.shared import (
    DirectoryInUse,
    LocksUnsupported,
    PeerCredentials,
    StopKind,
    StopRequest,
    ThreadUse,
)

__all__ = ["DirectoryInUse", "LocksUnsupported", "PeerCredentials", "StopKind", "StopRequest", "ThreadUse"]

if sys.platform == "win32":
    from mxgw_worker.platform import windows
    from mxgw_worker.platform.windows import *  # noqa: F403

    __all__ += windows.__all__
else:
    from mxgw_worker.platform import posix
    from mxgw_worker.platform.posix import *  # noqa: F403

    __all__ += posix.__all__
