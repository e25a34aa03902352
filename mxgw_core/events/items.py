"""What a subscriber hands to whoever serves its stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mxgw_core.api.errors import GatewayError
from mxgw_core.events.log import Chunk, LogGap


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to `sequence` was delivered, filtered or covered by a gap."""

    sequence: int


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over; `error` says why."""

    error: GatewayError


@dataclass(frozen=True, slots=True)
class Control:
    """A frame that is no event, ready to be sent."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Fetch the last values now, and tell the subscriber with `snapshot_fetched`."""


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Everything up to the snapshot's position was handed over: send the snapshot."""


Item: TypeAlias = Chunk | LogGap | Progress | Control | SnapshotWanted | SnapshotDue | End
