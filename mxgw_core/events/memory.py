"""How much memory the gateway uses for the events of one or more sessions, and for large requests."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class MemoryUse:
    """The bytes of memory in use, one field for each purpose. The metrics report all fields, including future ones."""

    # The memory of the events in the event logs.
    log: int = 0
    # The memory of the joined messages (see log.py), and of the chunks that filters made of these messages.
    joined: int = 0
    # The memory of the events that lie in the backlogs of subscribers that fell behind.
    backlog: int = 0
    # The memory of the item records.
    items: int = 0
    # The memory of large requests, from their arrival until they are answered.
    requests: int = 0
    # The memory of the filters' answers that are remembered.
    answers: int = 0
    # The memory of the request ids that are remembered for sessions that have ended.
    request_ids: int = 0

    @property
    def total(self) -> int:
        """The sum of all fields."""
        return sum(self.by_kind().values())

    @property
    def events(self) -> int:
        """The sum of all fields except `requests`."""
        return self.total - self.requests

    def by_kind(self) -> dict[str, int]:
        """Return the bytes of each field. Key: the field's name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def add(self, other: MemoryUse) -> None:
        """Add the bytes of `other` to these, field by field."""
        for kind, size in other.by_kind().items():
            setattr(self, kind, getattr(self, kind) + size)
