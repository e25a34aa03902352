"""Snapshots: the last value of every advised item. The worker knows these values; they are sent in their own frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.events.encoding import varint
from mxgw_core.events.filters import ItemFilters
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.session import Session

# The size of one page from the worker. To encode such a page, or to check it with a filter, takes about a millisecond.
_PAGE_BYTES = 64 * 1024
_TIMEOUT_S = 10.0
_DATA_CHANGE = int(e.EventKind.EVENT_KIND_DATA_CHANGE)
_SNAPSHOT_TAG = bytes([StreamEventsResponse.SNAPSHOT_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class SnapshotMessages:
    """A snapshot: the values as of `sequence`. Every newer value follows as an event.

    `pages` are encoded `Snapshot`s that have items and no position. `filters` decide which values the reader may see;
    None shows all.
    """

    epoch: bytes
    sequence: int
    pages: Sequence[bytes]
    filters: ItemFilters | None = None

    @property
    def position(self) -> e.Position:
        return e.Position(epoch=self.epoch, sequence=self.sequence)

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield frames of about `limit_bytes` with the values that the reader may see, and the end of the snapshot.

        An empty frame must not be sent: it only tells the caller to let other tasks run.
        """
        head = e.Snapshot(position=self.position).SerializeToString()
        for page in self.pages:
            parts = self._parts(page, limit_bytes) if self.filters is not None or len(page) > limit_bytes else (page,)
            for part in parts:
                yield b"".join((_SNAPSHOT_TAG, varint(len(head) + len(part)), head, part)) if part else b""
        yield StreamEventsResponse(snapshot_end=e.SnapshotEnd(position=self.position)).SerializeToString()

    def _parts(self, page: bytes, limit_bytes: int) -> Iterator[bytes]:
        """Yield what the reader may see of a page, in parts of about `limit_bytes`.

        An empty part only tells the caller to let other tasks run.
        """
        items = e.Snapshot.FromString(page).items
        filters = self.filters
        shown: list[e.SnapshotItem] = []
        for start in range(0, len(items), NAMES_AT_ONCE):
            if start and filters is not None:
                yield b""
            some = items[start : start + NAMES_AT_ONCE]
            if filters is not None:
                some = list(compress(some, filters.shown((item.item_serial for item in some), _DATA_CHANGE)))
            shown += some
        if len(shown) < len(items):
            page = e.Snapshot(items=shown).SerializeToString()
        if len(page) <= limit_bytes:
            yield page
            return
        part, size = e.Snapshot(), 0
        for item in shown:
            item_bytes = item.ByteSize()
            if size and size + item_bytes > limit_bytes:
                yield part.SerializeToString()
                part, size = e.Snapshot(), 0
            part.items.append(item)
            size += item_bytes
        yield part.SerializeToString()


async def fetch_snapshot(session: Session, filters: ItemFilters | None) -> SnapshotMessages:
    """Return the last values of all advised items, all as of one position. `filters` are the filters of the reader.

    Raises:
        GatewayError: the worker did not answer, or the session ended.
    """
    async with session.snapshots:
        return await _fetched(session, filters)


async def _fetched(session: Session, filters: ItemFilters | None) -> SnapshotMessages:
    pages: list[bytes] = []
    sequence: int | None = None
    token = ""
    while sequence is None or token:
        request = w.GetSnapshot(page_bytes=_PAGE_BYTES, page_token=token)
        page = (await call_worker(session, w.CommandRequest(get_snapshot=request), _TIMEOUT_S)).snapshot
        if sequence is None:
            sequence = page.sequence
        if page.items:
            pages.append(page.items)
        token = page.next_page_token
    return SnapshotMessages(session.distributor.epoch, sequence, pages, filters)
