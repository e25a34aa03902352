"""What plugins say of how much may be kept for one session, over what all others allow."""

from __future__ import annotations

from dataclasses import replace

from mxgw_core.api.events import BufferLimit, SubscriberLimits
from mxgw_core.api.types import SessionInfo
from mxgw_core.plugins import PluginHost


def buffer_limit(plugins: PluginHost, session: SessionInfo) -> BufferLimit | None:
    """Return the smallest of what the plugins say; None when none says anything."""
    answers = plugins.ask("mxgw_buffer_limit", session=session)
    limits = [answer.value for answer in answers if isinstance(answer.value, BufferLimit)]
    return min(limits, key=lambda limit: limit.bytes, default=None)


def bounded(limits: SubscriberLimits, buffer: BufferLimit | None) -> SubscriberLimits:
    """Return the limits of subscribers within the bound; no limit in bytes is more than any bound."""
    queue = limits.queue
    if buffer is None or 0 < queue.bytes <= buffer.bytes:
        return limits
    return replace(limits, queue=replace(queue, bytes=buffer.bytes, bytes_setting=buffer.setting))
