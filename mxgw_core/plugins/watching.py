"""A thread that watches the event loop's thread for calls of plugins that do not return.

Such a call cannot be ended. So while the gateway serves, the call is only logged, with the name of the plugin. While
the gateway starts, a process of its own is ended after `plugins.start_timeout_s`, so that whatever supervises it is
told; and after `plugins.stop_timeout_s` when all sessions have ended and the contexts of plugins are left. In a process
that is not the gateway's own, for example that of a test, this is only logged, so that a debugger can stop there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from mxgw_core.plugins.call_times import LOADING, Span
from mxgw_core.plugins.calls import PluginCalls

log = logging.getLogger(__name__)

# A call is reported while it still runs when it has taken this many times `plugins.slow_call_ms`.
HANGS = 10
# The exit code of a gateway that ends for such a call. Source: sysexits.h, EX_SOFTWARE.
EXIT_CODE = 70


class CallWatch:
    """Watches the calls of plugins in the thread that makes this object. Use it with `with`.

    `end` is called, once for a call, when a call does not return while the gateway starts, or while it ends. Its
    argument says which call. Without `end`, the text is logged.
    """

    def __init__(self, calls: PluginCalls, start_timeout_s: float, end: Callable[[str], None] | None = None) -> None:
        self._calls = calls
        self._end = end or log.error
        # How long a call can take now, and the name of the setting; None while the gateway serves.
        self._limit: tuple[float, str] | None = (start_timeout_s, "plugins.start_timeout_s")
        self._watched = threading.get_ident()
        # The call with which `end` was called.
        self._ended: Span | None = None
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
        self._limit = None

    def leaving(self, stop_timeout_s: float) -> None:
        """Call this when only the contexts of plugins are left to end."""
        self._limit = stop_timeout_s, "plugins.stop_timeout_s"

    def _watch(self) -> None:
        while not self._stopping.wait(self._calls.slow_call_s):
            self.look()

    def look(self) -> None:
        """Look once at the call that runs in the watched thread, if there is one."""
        calls = self._calls
        span = calls.spans.get(self._watched)
        if span is None:
            return
        lasts_s = calls.clock() - span.wall
        # To import a plugin takes long on a busy machine, and nothing waits for it but the start.
        is_hanging = lasts_s > HANGS * calls.slow_call_s and span.owner.hook != LOADING
        if is_hanging and not span.is_reported:
            span.is_reported = True
            calls.hangs(span)
        limit = self._limit
        if limit is not None and lasts_s > limit[0] and span is not self._ended:
            self._ended = span
            who = calls.in_words(span.owner, span.what)
            self._end(f"{who} has not returned for {lasts_s:.0f} s ({limit[1]}), and a call cannot be ended")
