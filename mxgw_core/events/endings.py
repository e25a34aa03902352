"""How a stream ends for a reader that was too slow."""

from __future__ import annotations

from mxgw_core.api.errors import GatewayError, SubscriberOverflow
from mxgw_core.events.subscriber import Subscriber


def overflow_error(subscriber: Subscriber, lag_events: int, head: int) -> SubscriberOverflow:
    """Return the error that says how far behind it was, where the loss begins, and what helps."""
    limits = subscriber.limits
    section = limits.section
    bytes_setting = limits.bytes_setting or f"{section}.queue_bytes"
    return SubscriberOverflow(
        f"the subscriber fell {lag_events} events behind (limits: {limits.events} events, {limits.bytes} bytes, "
        f"{limits.seconds:g} s). Resume after the last position received; read faster, ask for another overflow "
        f"policy, or raise {section}.queue_events, {bytes_setting} or {section}.queue_seconds in the gateway's "
        "settings.",
        metadata={
            "policy": subscriber.policy_name,
            "lag_events": str(lag_events),
            "limit_events": str(limits.events),
            # What is unread now is still delivered; the loss begins behind it.
            "lost_from": str(head + 1),
        },
        retry_after_s=0.2,
    )


def cut_error(error: GatewayError, written: int, drain_s: float) -> GatewayError:
    """Return what a stream ends with whose reader did not even take what was queued for it.

    Everything up to sequence `written` went to its transport.
    """
    if not isinstance(error, SubscriberOverflow):
        return error
    return SubscriberOverflow(
        f"{error.message} What was queued is lost as well, because nothing was read for {drain_s:g} s.",
        metadata={**error.metadata, "lost_from": str(written + 1)},
        retry_after_s=error.retry_after_s,
    )
