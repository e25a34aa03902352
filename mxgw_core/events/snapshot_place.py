"""The place of a snapshot in a stream: after the events up to its position, and before the events that follow."""

from __future__ import annotations

from dataclasses import dataclass

from mxgw_core.events.pieces import Chunk, Piece


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Asks the outlet to fetch the last values now, and then to call `Subscriber.snapshot_fetched`."""


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Asks the outlet to send the snapshot now: everything up to the snapshot's position was handed over."""


class SnapshotAt:
    """A snapshot that a stream needs: it is fetched at once, and sent after the events up to its position."""

    __slots__ = ("_is_fetching", "_is_wanted", "_position")

    def __init__(self) -> None:
        self._is_wanted = True
        self._is_fetching = False
        # The position of the snapshot that was fetched; None as long as there is none.
        self._position: int | None = None

    def want_again(self) -> None:
        """Fetch another snapshot. The one that is there, if any, is sent only when the stream ends before that."""
        self._is_wanted = True

    def fetched(self, position: int) -> None:
        """Record that the snapshot was fetched, and that it shows the values as of `position`."""
        self._is_fetching = False
        self._position = position

    def due(self, delivered: int, *, is_ending: bool) -> SnapshotWanted | SnapshotDue | None:
        """Return what to do before the next piece, for a reader that was handed everything up to `delivered`.

        None means that the next piece comes first. When a gap has passed the snapshot's place, a new snapshot is
        fetched, because the old one lacks values that were lost in the gap. A stream that is ending fetches no
        snapshot: it would end before it could reach the snapshot's position.
        """
        if self._is_fetching:
            return None
        if self._position is not None and delivered > self._position:
            self._position, self._is_wanted = None, True
        if self._is_wanted and not is_ending:
            self._is_wanted, self._is_fetching, self._position = False, True, None
            return SnapshotWanted()
        return SnapshotDue() if delivered == self._position else None

    def feed(self, piece: Piece) -> tuple[Piece, ...]:
        """Return the piece, or its two parts if the snapshot's place lies within it."""
        position = self._position
        if position is not None and isinstance(piece, Chunk) and piece.first <= position < piece.last:
            return piece.split(position)
        return (piece,)
