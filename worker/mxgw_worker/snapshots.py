"""GetSnapshot: the last value of every advised item, all at one position, in pages of limited size."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, ADVISE_KIND_UNSPECIFIED
from mxgw.worker.v1.worker_pb2 import CommandReply, GetSnapshot, SnapshotPage
from mxgw_worker.calls import CallFailed
from mxgw_worker.encoded_events import snapshot_item
from mxgw_worker.ipc.page_tokens import PAGE_SHARE, page_token, place_of
from mxgw_worker.items import ItemTable
from mxgw_worker.outbox import Outbox
from mxgw_worker.paging import parse_page_token

_PAGE_BYTES = 64 * 1024
# How many snapshots can be fetched at the same time. Source: worker.proto.
_CAPTURES = 8
_UNADVISED = (ADVISE_KIND_UNSPECIFIED, ADVISE_KIND_NONE)

# Serial, server handle, item handle, sequence and record of one last value. It is a plain tuple, because a tuple is
# made fast: while all items are captured, the worker does nothing else.
_Kept: TypeAlias = tuple[int, int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class _Capture:
    """The last values of all advised items, as of one position. The pages are fetched one by one, and all of them show
    this position.
    """

    sequence: int
    values: list[_Kept]


class Snapshots:
    """Answers GetSnapshot. Values are encoded only when their page is fetched, so that no step takes long."""

    def __init__(self, *, items: ItemTable, outbox: Outbox, maximum_frame_bytes: int) -> None:
        self._items = items
        self._outbox = outbox
        self._most_page_bytes = int(maximum_frame_bytes * PAGE_SHARE)
        self._captures: OrderedDict[int, _Capture] = OrderedDict()
        self._numbers = count(1)

    async def page(self, query: GetSnapshot) -> CommandReply:
        """Return the first page of a new snapshot, or the page of an earlier snapshot that the page token names.

        Raises:
            CallFailed: BAD_PAGE_TOKEN.
        """
        number, start = self._place(query.page_token) if query.page_token else (self._captured(), 0)
        capture = self._captures[number]
        room = min(query.page_bytes or _PAGE_BYTES, self._most_page_bytes)
        page: list[bytes] = []
        end = start
        for end in range(start, len(capture.values)):
            item = snapshot_item(*capture.values[end])
            room -= len(item)
            if page and room < 0:
                break
            page.append(item)
        else:
            end = len(capture.values)
        token = ""
        if end < len(capture.values):
            token = page_token(end, 0, _name(number))
        else:
            del self._captures[number]
        reply = SnapshotPage(sequence=capture.sequence, items=b"".join(page), next_page_token=token)
        return CommandReply(snapshot=reply)

    def _captured(self) -> int:
        number = next(self._numbers)
        values = [
            (item.serial, item.server_handle, item.item_handle, item.last_sequence, item.last_record)
            for item in self._items.items.values()
            if item.last_record is not None and item.advise not in _UNADVISED
        ]
        self._captures[number] = _Capture(self._outbox.head_sequence, values)
        if len(self._captures) > _CAPTURES:
            self._captures.popitem(last=False)
        return number

    def _place(self, token: str) -> tuple[int, int]:
        """Return the number of the capture to which a token belongs, and the index at which its page begins."""
        for number in self._captures:
            if place_of(token, _name(number)) is not None:
                return number, parse_page_token(token, _name(number))[0]
        raise CallFailed(
            "BAD_PAGE_TOKEN", "the page token is of no snapshot whose pages are being fetched; start anew without one"
        )


def _name(number: int) -> str:
    return f"snapshot\0{number}"
