"""Sends single events at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Iterator


def paced(rate: float) -> Iterator[int]:
    """Yield the number of events that must be sent now, without end; sleep in between.

    The events are spread evenly over the time. A producer that was delayed sends the missed events at once, as a real
    source does.
    """
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * rate) + 1
        if due > sent:
            yield due - sent
            sent = due
        # The kernel wakes a sleeping process about 50 us late, which delays all systems alike.
        time.sleep(max(0.0, began + sent / rate - time.monotonic()))
