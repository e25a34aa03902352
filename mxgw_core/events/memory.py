"""What is held in the gateway's memory for the events of one session, or of several, and for large requests."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class MemoryUse:
    """Bytes held, by what for; a new kind is a new field, which the metrics then have by itself."""

    # Events in the logs.
    log: int = 0
    # Messages joined of them for several readers, and what their filters let pass.
    joined: int = 0
    # Set aside for subscribers that fell behind.
    backlog: int = 0
    # What the workers said of the items that events are about.
    items: int = 0
    # Large requests, from their arrival until they are answered.
    requests: int = 0
    # Remembered answers of filters.
    answers: int = 0
    # Request ids of sessions that ended.
    request_ids: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.by_kind().values())

    @property
    def events(self) -> int:
        """What is held for events."""
        return self.total - self.requests

    def by_kind(self) -> dict[str, int]:
        """Return the bytes by kind."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def add(self, other: MemoryUse) -> None:
        """Count what another one holds."""
        for kind, size in other.by_kind().items():
            setattr(self, kind, getattr(self, kind) + size)
