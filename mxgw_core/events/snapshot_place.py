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
        # The position of the snapshot that was fetched; None while there is no such snapshot.
        self._position: int | None = None

    def want_again(self) -> None:
        """Let another snapshot be fetched.

        A snapshot that was fetched before is sent only if the stream ends before the other one is fetched.
        """
        self._is_wanted = True

    def fetched(self, position: int) -> None:
        """Record that the snapshot was fetched, and that it shows the values as of `position`."""
        self._is_fetching = False
        self._position = position

    def due(self, delivered: int, *, is_ending: bool) -> SnapshotWanted | SnapshotDue | None:
        """Return what to do before the next piece, for a reader that was handed everything up to `delivered`.

        None means that the reader gets the next piece first. When a gap covers the snapshot's position and reaches
        beyond it, a new snapshot is fetched, because the old one lacks values that were lost in the gap. For a stream
        that is ending no snapshot is fetched, because the stream would end before the snapshot's position.
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
        """Return the piece; if the snapshot must be sent in the middle of it, return its two parts."""
        position = self._position
        if position is not None and isinstance(piece, Chunk) and piece.first <= position < piece.last:
            return piece.split(position)
        return (piece,)
