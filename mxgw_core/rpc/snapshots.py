"""Snapshots: the last value of every advised item, from the worker that knows them, as frames and never as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as pb
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.events import EventFilter
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.session import Session

# One page of the worker's state: small enough for a frame, large enough for few round trips.
_PAGE_ITEMS = 2000
_TIMEOUT_S = 10.0
_DATA_CHANGE = int(e.EventKind.EVENT_KIND_DATA_CHANGE)
_UNADVISED = (pb.ADVISE_KIND_UNSPECIFIED, pb.ADVISE_KIND_NONE)


@dataclass(frozen=True, slots=True)
class SnapshotMessages:
    """The values as of `sequence`; every newer one follows as an event."""

    epoch: bytes
    sequence: int
    items: Sequence[e.SnapshotItem]

    @property
    def position(self) -> e.Position:
        return e.Position(epoch=self.epoch, sequence=self.sequence)

    def frames(self, filters: Sequence[EventFilter], limit_bytes: int) -> Iterator[bytes]:
        """Yield the snapshot in frames of about `limit_bytes`, of what the filters let pass, and its end."""
        part, size = e.Snapshot(position=self.position), 0
        for item in self.items:
            if not all(f.keep(item.server_handle, item.item_handle, _DATA_CHANGE, self.sequence) for f in filters):
                continue
            if size and size + item.ByteSize() > limit_bytes:
                yield StreamEventsResponse(snapshot=part).SerializeToString()
                part, size = e.Snapshot(position=self.position), 0
            part.items.append(item)
            size += item.ByteSize()
        if part.items:
            yield StreamEventsResponse(snapshot=part).SerializeToString()
        yield StreamEventsResponse(snapshot_end=e.SnapshotEnd(position=self.position)).SerializeToString()


async def fetch_snapshot(session: Session) -> SnapshotMessages:
    """Return the last values of all advised items, all as of one position.

    Raises:
        GatewayError: the worker did not answer, or the session ended.
    """
    async with session.snapshots:
        return await _fetched(session)


async def _fetched(session: Session) -> SnapshotMessages:
    items: list[e.SnapshotItem] = []
    sequence: int | None = None
    token = ""
    while sequence is None or token:
        request = w.GetState(include_values=True, of_one_position=True, page_size=_PAGE_ITEMS, page_token=token)
        state = (await call_worker(session, w.CommandRequest(get_state=request), _TIMEOUT_S)).state
        if sequence is None:
            sequence = state.position.sequence
        items += [
            e.SnapshotItem(
                server_handle=item.server_handle,
                item_handle=item.item_handle,
                sequence=item.last_sequence,
                value=item.last_value,
            )
            for item in state.items
            if item.advise not in _UNADVISED and item.last_sequence
        ]
        token = state.next_page_token
    return SnapshotMessages(session.distributor.epoch, sequence, items)
