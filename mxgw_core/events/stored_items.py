"""The items by which filters decide about the events of a history store; where an item is unknown, there is a gap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.filters import KnownItems, identity_of, kept_of, opened
from mxgw_core.events.pieces import Chunk, Gap, Piece


class StoredItems:
    """The items that are known while a store's events are filtered: those of the session, and those of the page.

    Attributes:
        is_reported: whether the log names the store already, because an event's item is unknown.
    """

    def __init__(self, session: KnownItems) -> None:
        self._session = session
        self._page: dict[int, ItemRecord] = {}
        self.is_reported = False

    def get(self, serial: int) -> ItemRecord | None:
        """Return the item with this serial; None when it is unknown. The session's own record is preferred."""
        return self._session.get(serial) or self._page.get(serial)

    def known(self, chunk: Chunk, items: Sequence[ItemRecord]) -> Iterator[Piece]:
        """Use the records of a page. Yield its events, and a gap for each run of events whose items are unknown.

        Raises:
            MalformedBatch: the events do not begin as the contract says.
        """
        self._page = {item.serial: item for item in items}
        events = opened(chunk)
        serials = [identity_of(key)[0] for key in events.keys]
        # Serial 0 is no item. Filters drop such an event, as they do when it comes from the log.
        unknown = {serial for serial in set(serials) if serial and self.get(serial) is None}
        if not unknown:
            yield chunk
            return
        at = 0
        for is_unknown, run in groupby(serial in unknown for serial in serials):
            first, at = at, at + sum(1 for _ in run)
            if is_unknown:
                detail = "the history store does not know the items of these events, so that no filter can decide"
                yield Gap(chunk.first + first, chunk.first + at - 1, GapReason.GAP_REASON_RING_EVICTED, detail)
            else:
                yield kept_of(chunk.first + first, chunk.first + at - 1, events.bodies[first:at], at - first)
