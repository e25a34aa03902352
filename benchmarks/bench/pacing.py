"""Sending single events at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Iterator


def paced(rate: float) -> Iterator[int]:
    """Yield, for ever, the number of events that are due now; sleeps in between.

    Events are due evenly, one by one. A producer that was held up makes up for it, as a real source would.
    """
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * rate) + 1
        if due > sent:
            yield due - sent
            sent = due
        # The kernel wakes a sleeper some 50 us late, which shifts all systems alike.
        time.sleep(max(0.0, began + sent / rate - time.monotonic()))
