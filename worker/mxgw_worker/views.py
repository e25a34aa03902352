"""Answers requests for information about the worker and its source: Browse, GetState and GetInfo."""

from __future__ import annotations

import time

from mxgw.convert import timestamp_from_ns
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.events_pb2 import Position
from mxgw.v1.session_service_pb2 import GetSessionStateResponse, ItemState, Registration
from mxgw.worker.v1.worker_pb2 import Browse, BrowseResult, CommandReply, GetState, WorkerInfo
from mxgw_worker.backends.base import Browsable, MxError
from mxgw_worker.calls import Call, CallFailed
from mxgw_worker.encoded_events import data_change_of
from mxgw_worker.ipc.page_tokens import PAGE_SHARE, STATE, page_token
from mxgw_worker.items import Item
from mxgw_worker.methods import Methods
from mxgw_worker.outbox import Outbox
from mxgw_worker.paging import page_size_of, parse_page_token
from mxgw_worker.platform import resident_bytes
from mxgw_worker.sink import WorkerSink

# Default and maximum page sizes. Source: command_service.proto and session_service.proto.
_BROWSE_PAGE, _BROWSE_PAGE_MAXIMUM = 500, 5000
_STATE_PAGE, _STATE_PAGE_MAXIMUM = 1000, 10_000


class Views:
    """Answers requests for information. Nothing here changes the session."""

    def __init__(self, *, methods: Methods, outbox: Outbox, sink: WorkerSink, maximum_frame_bytes: int) -> None:
        self._methods = methods
        self._outbox = outbox
        self._sink = sink
        self._page_bytes = int(maximum_frame_bytes * PAGE_SHARE)
        self._started_at_ns = time.time_ns()

    async def browse(self, call: Call, query: Browse) -> CommandReply:
        """Return one page of the children of a node.

        Raises:
            CallFailed: BROWSE_NOT_SUPPORTED, BROWSE_NODE_NOT_FOUND or BAD_PAGE_TOKEN.
        """
        backend = self._methods.backend
        if not isinstance(backend, Browsable):
            raise CallFailed(
                "BROWSE_NOT_SUPPORTED",
                f"the backend {self._methods.backend.info().kind} cannot list its address space; use known references",
            )
        wanted = query.name_contains.casefold()
        name = f"browse\0{query.parent}\0{wanted}"
        start = parse_page_token(query.page_token, name)[0] if query.page_token else 0
        try:
            async with self._methods.turn(call):
                nodes = await backend.browse(query.parent)
        except MxError as error:
            raise CallFailed("BROWSE_NODE_NOT_FOUND", error.message) from error
        if wanted:
            nodes = [node for node in nodes if wanted in node.name.casefold()]
        page: list[BrowseNode] = []
        total = 0
        size = page_size_of(query.page_size, _BROWSE_PAGE, _BROWSE_PAGE_MAXIMUM)
        for node in nodes[start : start + size]:
            total += node.ByteSize()
            if page and total > self._page_bytes:
                break
            page.append(node)
        end = start + len(page)
        token = page_token(end, 0, name) if end < len(nodes) else ""
        return CommandReply(browse=BrowseResult(nodes=page, next_page_token=token))

    async def state(self, _call: Call, query: GetState) -> CommandReply:
        """Return one page of the session's items, in the order of their handles. Pages stay correct when items are
        added or removed.

        Raises:
            CallFailed: BAD_PAGE_TOKEN.
        """
        after = parse_page_token(query.page_token, STATE) if query.page_token else (0, 0)
        items = self._methods.items
        keys = sorted(items.items)
        size = page_size_of(query.page_size, _STATE_PAGE, _STATE_PAGE_MAXIMUM)
        page: list[ItemState] = []
        total = 0
        token = ""
        for key in keys:
            if query.page_token and key <= after:
                continue
            state = _item_state(items.items[key], include_value=query.include_values)
            total += state.ByteSize()
            if page and (len(page) == size or total > self._page_bytes):
                token = page_token(page[-1].server_handle, page[-1].item_handle, STATE)
                break
            page.append(state)
        response = GetSessionStateResponse(
            position=Position(epoch=self._outbox.epoch, sequence=self._outbox.head_sequence),
            registrations=[
                Registration(server_handle=handle, client_name=client) for handle, client in items.registrations.items()
            ],
            items=page,
            total_items=len(keys),
            next_page_token=token,
        )
        return CommandReply(state=response)

    async def info(self) -> CommandReply:
        """Return facts about the worker itself, such as its backend, its outbox and its memory."""
        backend = self._methods.backend.info()
        outbox = self._outbox
        return CommandReply(
            info=WorkerInfo(
                backend=f"{backend.kind} {backend.version}",
                started_at=timestamp_from_ns(self._started_at_ns),
                head_sequence=outbox.head_sequence,
                outbox_oldest=outbox.oldest_sequence,
                outbox_events=outbox.depth,
                outbox_bytes=outbox.size_bytes,
                events_lost=outbox.events_lost,
                rss_bytes=resident_bytes(),
                source_health=self._sink.health,
                source_detail=self._sink.health_detail,
                items=len(self._methods.items.items),
            )
        )


def _item_state(item: Item, *, include_value: bool) -> ItemState:
    state = ItemState(
        server_handle=item.server_handle,
        item_handle=item.item_handle,
        item_definition=item.definition,
        item_context=item.context,
        buffered=item.buffered,
        advise=item.advise,
        suspended=item.suspended,
        last_sequence=item.last_sequence,
        writes_in_flight=1 if item.write_id else 0,
        item_serial=item.serial,
    )
    if item.options is not None:
        state.options.CopyFrom(item.options)
    if include_value and item.last_record is not None:
        state.last_value.CopyFrom(data_change_of(item.last_record))
    return state
