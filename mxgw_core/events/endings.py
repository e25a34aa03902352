"""How a stream ends for a reader that was too slow."""

from __future__ import annotations

from mxgw_core.api.errors import SubscriberOverflow
from mxgw_core.events.subscriber import Subscriber


def overflow_error(subscriber: Subscriber, lag_events: int, head: int) -> SubscriberOverflow:
    """Return the error that says how far behind it was, where the loss begins, and what helps."""
    limits = subscriber.limits
    section = limits.section
    return SubscriberOverflow(
        f"the subscriber fell {lag_events} events behind (limits: {limits.events} events, {limits.bytes} bytes, "
        f"{limits.seconds:g} s). Resume after the last position received; read faster, ask for another overflow "
        f"policy, or raise {section}.queue_events, {section}.queue_bytes or {section}.queue_seconds in the gateway's "
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
