"""The place of a snapshot in a stream: after the events up to its position, and before the events that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mxgw_core.events.pieces import Chunk, Piece


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Asks the outlet to fetch the last values now, and then to call `Subscriber.snapshot_fetched`."""


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Asks the outlet to send the snapshot now: everything up to the snapshot's position was handed over."""


class SnapshotAt:
    """A snapshot that a stream needs: it is fetched at once, and sent after the events up to its position."""

    __slots__ = ("_is_fetching", "_is_wanted", "_position", "_was_passed")

    def __init__(self) -> None:
        self._is_wanted = True
        self._is_fetching = False
        # Whether a gap has passed the position of an earlier snapshot.
        self._was_passed = False
        # The position of the snapshot that was fetched; None while there is no such snapshot.
        self._position: int | None = None

    @property
    def is_fetching(self) -> bool:
        """Whether the outlet fetches a snapshot now."""
        return self._is_fetching

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
            self._position, self._is_wanted, self._was_passed = None, True, True
        if self._is_wanted and not is_ending:
            self._is_wanted, self._is_fetching, self._position = False, True, None
            return SnapshotWanted()
        return SnapshotDue() if delivered == self._position else None

    def feed(self, piece: Piece) -> tuple[Piece, ...]:
        """Return the piece; if the snapshot must be sent in the middle of it, return its two parts.

        A gap in which all events are lost is divided only after a gap has passed an earlier snapshot. A reader whose
        queue overflows during each fetch would otherwise get one gap after another, and never a snapshot.
        """
        position = self._position
        if position is None or not piece.first <= position < piece.last:
            return (piece,)
        if isinstance(piece, Chunk):
            return piece.split(position)
        if self._was_passed and not piece.runs and piece.count == piece.last - piece.first + 1:
            return (
                replace(piece, last=position, count=position - piece.first + 1),
                replace(piece, first=position + 1, count=piece.last - position),
            )
        return (piece,)
