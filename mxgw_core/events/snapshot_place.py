"""The place of a snapshot in a stream: behind the events up to its position, and in front of those that follow."""

from __future__ import annotations

from dataclasses import dataclass

from mxgw_core.events.pieces import Chunk, Piece


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Fetch the last values now, and call `Subscriber.snapshot_fetched`."""


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Everything up to the snapshot's position was handed over: the snapshot comes here."""


class SnapshotAt:
    """A snapshot that is wanted in a stream: fetched at once, and placed behind the events up to its position."""

    __slots__ = ("_position", "is_fetching")

    def __init__(self) -> None:
        self.is_fetching = False
        self._position: int | None = None

    def fetched(self, position: int) -> None:
        """The snapshot is at hand and shows the values as of `position`."""
        self.is_fetching = False
        self._position = position

    def due(self, delivered: int) -> SnapshotWanted | SnapshotDue | None:
        """Return what comes next, before any piece, for a reader that was handed everything up to `delivered`.

        It is wanted anew when a gap passed its place: it would show less than the gap gives up.
        """
        if self.is_fetching or (self._position is not None and delivered < self._position):
            return None
        if delivered == self._position:
            return SnapshotDue()
        self.is_fetching, self._position = True, None
        return SnapshotWanted()

    def feed(self, piece: Piece) -> tuple[Piece, ...]:
        """Return a piece, in two parts where the snapshot's place lies within it."""
        position = self._position
        if position is not None and isinstance(piece, Chunk) and piece.first <= position < piece.last:
            return piece.split(position)
        return (piece,)
