"""`python -m mxgw_cli.tied MODULE ARGUMENT...`: as `python -m MODULE`, in a process that ends with its parent.

The parent holds the other end of this process's stdin, which closes even when the parent is killed and can end
nothing itself.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress


def _end_with_stdin() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    # The module ends as it does when somebody stops it: in order.
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the module that the first argument names."""
    threading.Thread(target=_end_with_stdin, name="end-with-stdin", daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
