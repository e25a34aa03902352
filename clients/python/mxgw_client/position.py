"""Places in an event stream, and the places where a stream can start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from mxgw.v1 import event_service_pb2, events_pb2

_PREFIX = "mxgw1"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the event stream of a session: right after the event with this `sequence`.

    Positions cannot be compared with `<`, because sequences of two epochs have no order. To go on in a later run of
    the program, store the text of `to_text()` together with the results of the program, and start the next stream with
    `after(Position.from_text(text))`.
    """

    epoch: bytes
    sequence: int

    def to_text(self) -> str:
        """Return the position as a printable text without spaces, for example for a file or a database column."""
        return f"{_PREFIX}.{self.epoch.hex()}.{self.sequence}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the position of a text that `to_text` returned.

        Raises:
            ValueError: the text is not such a text.
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
        """Return the protobuf message for this position."""
        return events_pb2.Position(epoch=self.epoch, sequence=self.sequence)

    @classmethod
    def from_message(cls, message: events_pb2.Position) -> Self:
        """Convert the protobuf message of a position."""
        return cls(message.epoch, message.sequence)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: one of `Start.OLDEST`, `Start.NOW`, `Start.SNAPSHOT`, or `after(position)`.

    OLDEST: the stream begins with the oldest event that the gateway still holds. NOW: it begins with the next event
    that happens. SNAPSHOT: it begins with the last values of all items (or all active alarms), and the events after
    these values follow.
    """

    kind: str
    position: Position | None = None

    OLDEST: ClassVar[Start]
    NOW: ClassVar[Start]
    SNAPSHOT: ClassVar[Start]

    def to_message(self) -> event_service_pb2.StartPosition:
        """Return the protobuf message for this start place."""
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
    """Return the start place right after `position`, to resume a stream.

    When the gateway no longer holds all events after `position`, the stream begins with a Gap.
    """
    return Start("after", position)
