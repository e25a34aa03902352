"""Places in an event stream, and where a stream may start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from mxgw.v1 import event_service_pb2, events_pb2

_PREFIX = "mxgw1"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one session's stream: right after the event with this `sequence`.

    An epoch begins with a worker process. Sequences of two epochs must never be compared, so positions have no order
    and are stored whole: keep `to_text()` beside what the application made of the events, and resume with
    `after(Position.from_text(text))`.
    """

    epoch: bytes
    sequence: int

    def to_text(self) -> str:
        """Return one printable word without spaces, for a file, a database column or a log."""
        return f"{_PREFIX}.{self.epoch.hex()}.{self.sequence}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the position that `to_text` wrote.

        Raises:
            ValueError: the text is not a position.
        """
        prefix, _, rest = text.strip().partition(".")
        epoch, _, sequence = rest.partition(".")
        if prefix != _PREFIX or not epoch or not (sequence.isascii() and sequence.isdigit()):
            raise ValueError(f"not a position: {text[:80]!r}; expected the text that Position.to_text() returned")
        try:
            return cls(bytes.fromhex(epoch), int(sequence))
        except ValueError:
            raise ValueError(f"not a position: {text[:80]!r}; its epoch is not hexadecimal") from None

    def __repr__(self) -> str:
        return f"Position({self.to_text()})"

    def to_message(self) -> events_pb2.Position:
        """Return the contract's message."""
        return events_pb2.Position(epoch=self.epoch, sequence=self.sequence)

    @classmethod
    def from_message(cls, message: events_pb2.Position) -> Self:
        """Return the position in a message."""
        return cls(message.epoch, message.sequence)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: one of `Start.OLDEST`, `Start.NOW`, `Start.SNAPSHOT`, or `after(position)`.

    OLDEST begins with the oldest event that the gateway still holds, NOW with the next one. SNAPSHOT sends the last
    known values (or the active alarms) first, then goes on with the events after them.
    """

    kind: str
    position: Position | None = None

    OLDEST: ClassVar[Start]
    NOW: ClassVar[Start]
    SNAPSHOT: ClassVar[Start]

    def to_message(self) -> event_service_pb2.StartPosition:
        """Return the contract's message."""
        message = event_service_pb2.StartPosition()
        if self.position is not None:
            message.after.CopyFrom(self.position.to_message())
        elif self.kind == "now":
            message.now.SetInParent()
        elif self.kind == "snapshot_then_live":
            message.snapshot_then_live.SetInParent()
        else:
            message.oldest_retained.SetInParent()
        return message


Start.OLDEST = Start("oldest_retained")
Start.NOW = Start("now")
Start.SNAPSHOT = Start("snapshot_then_live")


def after(position: Position) -> Start:
    """Return the start right after `position`. A Gap comes first when the gateway no longer holds all that follow."""
    return Start("after", position)
