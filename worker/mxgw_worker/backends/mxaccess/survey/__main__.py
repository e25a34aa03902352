"""`python -I -m mxgw_worker.backends.mxaccess.survey`: the survey as a process.

It reads one JSON object from standard input, the fields of `Request` and `done`, and writes one JSON object per line.
When its standard input ends, it ends too: nothing may be left of it when the command that started it is killed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import NoReturn

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.mxaccess.backend import MxAccessBackend
from mxgw_worker.backends.mxaccess.com import Com
from mxgw_worker.backends.mxaccess.survey.client import Request
from mxgw_worker.backends.mxaccess.survey.recording import Recorder
from mxgw_worker.backends.mxaccess.survey.run import Survey
from mxgw_worker.platform import ignore_interrupts

# So long may the object take to be released when the command no longer wants answers.
_LEAVE_S = 5.0
_HUNG = 3


def main() -> int:
    """Run the survey, and return the exit code."""
    # Ctrl-C in a terminal is meant for the command, which then closes the standard input of this process.
    ignore_interrupts()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    given = json.loads(line)
    fields = {field.name for field in dataclasses.fields(Request)}
    request = Request(**{name: value for name, value in given.items() if name in fields})
    try:
        MxAccessBackend({})  # which refuses a machine that cannot have MXAccess
    except BackendUnavailable as error:
        _report({"refused": str(error)})
        return 1
    is_over = asyncio.run(_survey(request, given.get("done", ())))
    return 0 if is_over else _leave(_HUNG)


async def _survey(request: Request, done: list[str]) -> bool:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def end_with_stdin() -> None:
        # Not by the object `sys.stdin`: a thread that waits in it disturbs the end of the interpreter.
        while os.read(0, 4096):
            pass
        last_resort = threading.Timer(_LEAVE_S, _leave, (1,))
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(task.cancel)

    threading.Thread(target=end_with_stdin, name="end-with-stdin", daemon=True).start()
    if sys.platform == "win32":
        from mxgw_worker.backends.mxaccess.windows.pump import WindowsPump
        from mxgw_worker.backends.mxaccess.windows.registration import registration

        return await Survey(request, _report, _connect, WindowsPump(), done, registration).run()
    raise AssertionError  # the backend has refused this system


def _connect(recorder: Recorder) -> Com:
    if sys.platform == "win32":
        # comtypes must be imported here, in the apartment.
        try:
            from mxgw_worker.backends.mxaccess.windows.observed_proxy import ObservedProxy
        except ModuleNotFoundError as error:
            raise BackendUnavailable(
                f"MXAccess needs the package {error.name}: pip install 'mxgw[mxaccess]' in this Python"
            ) from None
        return ObservedProxy(recorder)
    raise AssertionError  # as above


def _report(report: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(report, default=repr) + "\n")
    sys.stdout.flush()


def _leave(code: int) -> NoReturn:
    """End this process without waiting for its threads, one of which is in a call that does not return."""
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
