"""A run of consecutive events, as it came in one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from mxgw.v1 import events_pb2
from mxgw_client.events import DATA_CHANGE, OTHERS, DataChange, Event, StreamContext, UnknownEvent, view_of
from mxgw_client.position import Position


class EventBatch(Sequence[Event]):
    """Consecutive events, oldest first, never empty. Each look at an event makes a new view of it.

    `raw` has the contract's messages, for those who want to read them without views.
    """

    __slots__ = ("_context", "raw")

    def __init__(self, raw: Sequence[events_pb2.Event], context: StreamContext) -> None:
        self.raw = raw
        self._context = context

    @property
    def context(self) -> StreamContext:
        """What the events of its stream share."""
        return self._context

    @property
    def first_sequence(self) -> int:
        """Sequence of the first event."""
        return self.raw[0].sequence

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event."""
        return self.raw[-1].sequence

    @property
    def position(self) -> Position:
        """The place of the last event."""
        return Position(self._context.epoch, self.last_sequence)

    def after(self, sequence: int) -> EventBatch:
        """Return the events of this batch after `sequence`, which must be that of an event in it, not the last."""
        return self[1 + next(n for n, raw in enumerate(self.raw) if raw.sequence == sequence) :]

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Event]:
        context = self._context
        for raw in self.raw:
            view = DataChange() if raw.kind == DATA_CHANGE else OTHERS.get(raw.kind, UnknownEvent)()
            view.raw, view._context, view.sequence = raw, context, raw.sequence
            yield view

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventBatch: ...
    def __getitem__(self, index: int | slice) -> Event | EventBatch:
        if isinstance(index, slice):
            return EventBatch(self.raw[index], self._context)
        return view_of(self.raw[index], self._context)

    def __repr__(self) -> str:
        return f"<EventBatch of {len(self)}: {self.first_sequence} to {self.last_sequence}>"
