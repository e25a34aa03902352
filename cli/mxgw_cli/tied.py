"""`python -m mxgw_cli.tied MODULE ARGUMENT...` runs a module like `python -m MODULE`, and ends it with its parent.

The parent process has the other end of the pipe that is this process's stdin. The system closes the pipe even when the
parent is killed, and this process then ends.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from contextlib import suppress

from mxgw_worker.platform import stop_this_process


def _end_with_stdin() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    # The module ends in the same way as when a person stops it.
    stop_this_process()


def main() -> None:
    """Run the module that the first argument of the process names."""
    threading.Thread(target=_end_with_stdin, name="end-with-stdin", daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
