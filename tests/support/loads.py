"""The simulator's load profile: settings for it, and what it must have produced, worked out from its rule alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mxgw.v1 import events_pb2 as e
from mxgw_worker.backends.sim.profiles.load import expected_text, expected_value

# All first values go out in one slice up to here, so that sequence and value follow from each other.
MOST_ITEMS = 500


def load_settings(items: int, rate: float, text_bytes: int = 0, **settings: object) -> dict[str, object]:
    """Return settings of a gateway whose backend is a load."""
    return {
        "backends.sim.profile": "load",
        "backends.sim.items": items,
        "backends.sim.rate": rate,
        **({"backends.sim.text_bytes": text_bytes} if text_bytes else {}),
        **settings,
    }


def load_names(items: int) -> list[str]:
    """Return the references of the first items."""
    return [f"Load.Item{number:05d}" for number in range(1, items + 1)]


@dataclass(frozen=True)
class LoadRecord:
    """What a worker produces whose items were all advised in one call: round robin, first values first."""

    handles: Sequence[int]
    text_bytes: int = 0

    def item(self, sequence: int) -> int:
        """Return the handle of the item whose value has this sequence."""
        return self.handles[(sequence - 1) % len(self.handles)]

    def is_event(self, event: e.Event) -> bool:
        """Return whether the event is what was produced under its number."""
        count, index = divmod(event.sequence - 1, len(self.handles))
        value = event.data_change.value
        if self.text_bytes:
            is_value = value.string == expected_text(index + 1, count, self.text_bytes)
        else:
            is_value = value.double == expected_value(index + 1, count)
        return is_value and event.item_handle == self.handles[index] and event.kind == e.EVENT_KIND_DATA_CHANGE

    def newest(self, until: int) -> set[int]:
        """Return the sequences of the newest value of each item."""
        return set(range(max(1, until - len(self.handles) + 1), until + 1))
