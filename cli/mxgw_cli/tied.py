"""Run a module as `python -m` would, in a process that ends when its stdin does: its parent is gone then.

`python -m mxgw_cli.tied MODULE ARGUMENT...`. The demo starts its processes this way, because a parent
that was killed cannot end them itself.
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
    # As a stop from outside: what runs here ends in its own order.
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the module that the first argument names."""
    threading.Thread(target=_end_with_stdin, name="end-with-stdin", daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
