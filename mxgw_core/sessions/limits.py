"""Finds the limits of a session from settings and plugins: for the memory of its events, and for its subscribers."""

from __future__ import annotations

from dataclasses import replace

from mxgw_core.api.events import BufferLimit, QueueLimits, SubscriberLimits
from mxgw_core.api.types import SessionInfo
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost


def subscriber_limits(settings: Settings, plugins: PluginHost, session: SessionInfo | None) -> SubscriberLimits:
    """Return the limits of a session's subscribers. If no plugin answers, the limits come from the settings.

    With `session` None, return the limits that hold for any session.
    """
    for answer in plugins.ask("mxgw_subscriber_limits", session=session):
        if answer.error is None:
            limits: SubscriberLimits = answer.value
            return limits
    events = settings.events
    return SubscriberLimits(1, QueueLimits(events.queue_events, events.queue_bytes, events.queue_seconds))


def buffer_limit(plugins: PluginHost, session: SessionInfo) -> BufferLimit | None:
    """Return the smallest limit that a plugin sets for the events of a session; None when no plugin sets a limit."""
    answers = plugins.ask("mxgw_buffer_limit", session=session)
    limits: list[BufferLimit] = [answer.value for answer in answers if answer.error is None]
    return min(limits, key=lambda limit: limit.bytes, default=None)


def bounded(limits: SubscriberLimits, buffer: BufferLimit | None) -> SubscriberLimits:
    """Return `limits`, but with a limit in bytes that is not higher than the limit `buffer`.

    A limit of 0 bytes means no limit, so `buffer` replaces it.
    """
    queue = limits.queue
    if buffer is None or 0 < queue.bytes <= buffer.bytes:
        return limits
    return replace(limits, queue=replace(queue, bytes=buffer.bytes, bytes_setting=buffer.setting))
