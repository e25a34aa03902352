"""The id that ties together what is logged, audited and answered of one call."""

from __future__ import annotations

from contextvars import ContextVar

# Set by the core as a call begins; it follows the call into the threads and tasks that it starts.
current_call: ContextVar[str] = ContextVar("mxgw_current_call", default="")


def correlation_id() -> str:
    """Return the id of the call that is being served, "" outside of one.

    A caller may have chosen it: it proves nothing. What goes on after its call, such as a session, is to be recorded
    without it.
    """
    return current_call.get()
