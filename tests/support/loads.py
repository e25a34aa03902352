"""The profile `load` of the simulator: settings for it, and the events that it must produce, computed from its rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mxgw.v1 import events_pb2 as e
from mxgw_worker.backends.sim.profiles.load import expected_text, expected_value


def load_settings(items: int, rate: float, text_bytes: int = 0, **settings: object) -> dict[str, object]:
    """Return settings of a gateway whose backend is the simulator with the profile `load`."""
    return {
        "backends.sim.profile": "load",
        "backends.sim.items": items,
        "backends.sim.rate": rate,
        **({"backends.sim.text_bytes": text_bytes} if text_bytes else {}),
        **settings,
    }


def load_names(items: int) -> list[str]:
    """Return the references of the first `items` items."""
    return [f"Load.Item{number:05d}" for number in range(1, items + 1)]


@dataclass(frozen=True)
class LoadRecord:
    """The events of a worker whose items were all advised in one call: first values first, then each item in turn."""

    handles: Sequence[int]
    text_bytes: int = 0

    def item(self, sequence: int) -> int:
        """Return the handle of the item to which the event with this sequence belongs."""
        return self.handles[(sequence - 1) % len(self.handles)]

    def is_event(self, event: e.Event) -> bool:
        """Return True when this event is the one that the worker produced with this sequence."""
        count, index = divmod(event.sequence - 1, len(self.handles))
        value = event.data_change.value
        if self.text_bytes:
            is_value = value.string == expected_text(index + 1, count, self.text_bytes)
        else:
            is_value = value.double == expected_value(index + 1, count)
        return is_value and event.item_handle == self.handles[index] and event.kind == e.EVENT_KIND_DATA_CHANGE

    def newest(self, until: int) -> set[int]:
        """Return the sequence of the newest value of each item, up to the sequence `until`."""
        return set(range(max(1, until - len(self.handles) + 1), until + 1))
