"""A thread that watches the event loop's thread for calls of plugins that do not return.

Such a call cannot be ended. So while the gateway serves, the call is only logged, with the name of the plugin. While
the gateway starts, the process is ended after `plugins.start_timeout_s`, so that whatever supervises it is told.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from mxgw_core.plugins.call_times import LOADING
from mxgw_core.plugins.calls import PluginCalls

# A call is reported while it still runs when it has taken this many times `plugins.slow_call_ms`.
HANGS = 10
# Source: sysexits.h, EX_SOFTWARE.
EXIT_CODE = 70


def end_process(text: str) -> None:
    """Report a text on stderr, and end the process at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class CallWatch:
    """Watches the calls of plugins in the thread that makes this object. Use it with `with`.

    `end` is called when a call does not return while the gateway starts.
    """

    def __init__(self, calls: PluginCalls, start_timeout_s: float, end: Callable[[str], None] = end_process) -> None:
        self._calls = calls
        self._start_timeout_s = start_timeout_s
        self._end = end
        self._is_starting = True
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="plugin-calls", daemon=True)

    def __enter__(self) -> CallWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def started(self) -> None:
        """Call this when the gateway begins to serve."""
        self._is_starting = False

    def _watch(self) -> None:
        while not self._stopping.wait(self._calls.slow_call_s):
            if self.look():
                return

    def look(self) -> bool:
        """Look once at the call that runs in the watched thread, if there is one. Return whether `end` was called."""
        calls = self._calls
        span = calls.spans.get(self._watched)
        if span is None:
            return False
        lasts_s = calls.clock() - span.wall
        # To import a plugin takes long on a busy machine, and nothing waits for it but the start.
        is_hanging = lasts_s > HANGS * calls.slow_call_s and span.owner.hook != LOADING
        if is_hanging and not span.is_reported:
            span.is_reported = True
            calls.hangs(span)
        if not self._is_starting or lasts_s <= self._start_timeout_s:
            return False
        who = calls.in_words(span.owner, span.what)
        self._end(
            f"the gateway ends, because it cannot start: {who} has not returned for {lasts_s:.0f} s "
            "(plugins.start_timeout_s), and a call cannot be ended"
        )
        return True
