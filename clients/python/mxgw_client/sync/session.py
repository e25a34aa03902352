"""A session without `await`. Its methods have the same names and results as the methods of `mxgw_client.Session`.

The module has more than 400 lines, because it is one list of all methods.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mxgw.convert import PyValue
from mxgw.v1 import commands_pb2
from mxgw_client import bulk as asynchronous_bulk
from mxgw_client import session as asynchronous
from mxgw_client.bulk import BulkWrite, Reference
from mxgw_client.enums import DataType, OnGap
from mxgw_client.metadata import ItemOptions
from mxgw_client.mxaccess import ItemLike
from mxgw_client.position import Start
from mxgw_client.position_file import POSITION_INTERVAL_S, PositionFile
from mxgw_client.results import (
    BrowseNode,
    Item,
    ItemOutcome,
    MetadataOutcome,
    Pong,
    Reading,
    SessionInfo,
    StateOfSession,
    SubscribeOutcome,
    WorkerInfo,
    WriteOutcome,
    WriteResult,
)
from mxgw_client.resume import RESUME, ResumePolicy
from mxgw_client.subscribers import Policy, SubscriberList
from mxgw_client.sync._loop import LoopThread
from mxgw_client.sync.streams import EventStream
from mxgw_client.values import Status

T = TypeVar("T")


class Subscription:
    """The items that one call of `Session.subscribe` added and advised; see `mxgw_client.Subscription`."""

    def __init__(self, loop: LoopThread, subscription: asynchronous_bulk.Subscription) -> None:
        self._loop = loop
        self._subscription = subscription

    @property
    def items(self) -> tuple[Item, ...]:
        return self._subscription.items

    def __getitem__(self, reference: str) -> Item:
        return self._subscription[reference]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._subscription)

    def __len__(self) -> int:
        return len(self._subscription)

    def close(self) -> None:
        self._loop.run(self._subscription.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._subscription)


class Session:
    """A session, without `await`. Several threads can use it at the same time.

    Each method does the same as the method of `mxgw_client.Session` with the same name.
    """

    def __init__(self, loop: LoopThread, session: asynchronous.Session) -> None:
        self._loop = loop
        self._session = session

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(coroutine)

    @property
    def session_id(self) -> str:
        return self._session.session_id

    @property
    def is_open(self) -> bool:
        return self._session.is_open

    @property
    def server_handle(self) -> int | None:
        return self._session.server_handle

    def open(self) -> Self:
        self._run(self._session.open())
        return self

    def close(self) -> None:
        self._run(self._session.close())

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sync {self._session!r}>"

    # Events

    def events(
        self,
        *,
        start: Start = Start.OLDEST,
        policy: Policy | str | None = None,
        on_gap: OnGap = OnGap.UNSPECIFIED,
        heartbeat_interval_s: float | None = None,
        client_name: str = "",
        resume: ResumePolicy | None = RESUME,
        position_file: Path | str | None = None,
        position_interval_s: float = POSITION_INTERVAL_S,
    ) -> EventStream:
        file = None
        if position_file is not None:
            file = PositionFile(position_file, self._session.session_id, position_interval_s)
        stream = self._session._event_stream(
            start,
            policy,
            on_gap,
            heartbeat_interval_s,
            client_name,
            resume,
            stored=file.stored if file is not None else None,
            # Only the synchronous stream writes the position file. The asynchronous stream passes on whole batches, so
            # its position can be a batch ahead of what the application has processed.
            position_file=None,
        )
        return EventStream(self._loop, stream, file)

    # The 18 methods of MXAccess

    def register(self, client_name: str = "", *, timeout_s: float | None = None) -> int:
        return self._run(self._session.register(client_name, timeout_s=timeout_s))

    def unregister(self, server_handle: int | None = None, *, timeout_s: float | None = None) -> None:
        self._run(self._session.unregister(server_handle, timeout_s=timeout_s))

    def add_item(
        self,
        reference: str,
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        return self._run(
            self._session.add_item(reference, options=options, server_handle=server_handle, timeout_s=timeout_s)
        )

    def add_item2(
        self,
        reference: str,
        context: str,
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        return self._run(
            self._session.add_item2(
                reference, context, options=options, server_handle=server_handle, timeout_s=timeout_s
            )
        )

    def add_buffered_item(
        self,
        reference: str,
        context: str = "",
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        return self._run(
            self._session.add_buffered_item(
                reference, context, options=options, server_handle=server_handle, timeout_s=timeout_s
            )
        )

    def remove_item(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        self._run(self._session.remove_item(item, timeout_s=timeout_s))

    def advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        self._run(self._session.advise(item, timeout_s=timeout_s))

    def advise_supervisory(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        self._run(self._session.advise_supervisory(item, timeout_s=timeout_s))

    def un_advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        self._run(self._session.un_advise(item, timeout_s=timeout_s))

    def suspend(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        return self._run(self._session.suspend(item, timeout_s=timeout_s))

    def activate(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        return self._run(self._session.activate(item, timeout_s=timeout_s))

    def set_buffered_update_interval(
        self, interval_ms: int, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> None:
        self._run(
            self._session.set_buffered_update_interval(interval_ms, server_handle=server_handle, timeout_s=timeout_s)
        )

    def write(
        self,
        item: ItemLike,
        value: PyValue,
        *,
        user_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        return self._run(
            self._session.write(item, value, user_id=user_id, wait=wait, data_type=data_type, timeout_s=timeout_s)
        )

    def write2(
        self,
        item: ItemLike,
        value: PyValue,
        time: datetime,
        *,
        user_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        return self._run(
            self._session.write2(
                item, value, time, user_id=user_id, wait=wait, data_type=data_type, timeout_s=timeout_s
            )
        )

    def write_secured(
        self,
        item: ItemLike,
        value: PyValue,
        *,
        user_id: int,
        verifier_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        return self._run(
            self._session.write_secured(
                item,
                value,
                user_id=user_id,
                verifier_id=verifier_id,
                wait=wait,
                data_type=data_type,
                timeout_s=timeout_s,
            )
        )

    def write_secured2(
        self,
        item: ItemLike,
        value: PyValue,
        time: datetime,
        *,
        user_id: int,
        verifier_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        return self._run(
            self._session.write_secured2(
                item,
                value,
                time,
                user_id=user_id,
                verifier_id=verifier_id,
                wait=wait,
                data_type=data_type,
                timeout_s=timeout_s,
            )
        )

    def authenticate_user(
        self, user: str, password: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> int:
        return self._run(
            self._session.authenticate_user(user, password, server_handle=server_handle, timeout_s=timeout_s)
        )

    def archestra_user_to_id(
        self, user_guid: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> int:
        return self._run(
            self._session.archestra_user_to_id(user_guid, server_handle=server_handle, timeout_s=timeout_s)
        )

    def invoke(
        self, command: commands_pb2.MxCommand, *, timeout_s: float | None = None, request_id: bytes = b""
    ) -> commands_pb2.MxReply:
        return self._run(self._session.invoke(command, timeout_s=timeout_s, request_id=request_id))

    # Bulk calls, and shorter calls for common tasks

    def subscribe_bulk(
        self,
        references: Sequence[Reference],
        *,
        supervisory: bool = False,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[SubscribeOutcome]:
        return self._run(
            self._session.subscribe_bulk(
                references, supervisory=supervisory, options=options, server_handle=server_handle, timeout_s=timeout_s
            )
        )

    def unsubscribe_bulk(
        self, items: Sequence[ItemLike], *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> list[ItemOutcome]:
        return self._run(self._session.unsubscribe_bulk(items, server_handle=server_handle, timeout_s=timeout_s))

    def write_bulk(
        self,
        writes: Sequence[BulkWrite] | Mapping[Item, PyValue],
        *,
        wait: bool = False,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[WriteOutcome]:
        return self._run(self._session.write_bulk(writes, wait=wait, server_handle=server_handle, timeout_s=timeout_s))

    def read_bulk(
        self,
        references: Sequence[Reference],
        *,
        wait_s: float | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Reading]:
        return self._run(
            self._session.read_bulk(references, wait_s=wait_s, server_handle=server_handle, timeout_s=timeout_s)
        )

    def item_metadata(
        self, references: Sequence[Reference], *, timeout_s: float | None = None
    ) -> list[MetadataOutcome]:
        return self._run(self._session.item_metadata(references, timeout_s=timeout_s))

    def subscribe(
        self, *references: Reference, supervisory: bool = False, options: ItemOptions | None = None
    ) -> Subscription:
        subscribing = self._session.subscribe(*references, supervisory=supervisory, options=options)
        return Subscription(self._loop, self._run(subscribing))

    def read(self, reference: Reference, *, wait_s: float | None = None) -> Reading:
        return self._run(self._session.read(reference, wait_s=wait_s))

    def write_once(
        self,
        reference: Reference,
        value: PyValue,
        *,
        user_id: int = 0,
        data_type: DataType | None = None,
        wait_s: float | None = None,
    ) -> None:
        self._run(self._session.write_once(reference, value, user_id=user_id, data_type=data_type, wait_s=wait_s))

    def browse(
        self,
        parent: str = "",
        *,
        name_contains: str = "",
        include_metadata: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[BrowseNode]:
        return self._loop.iterate(
            self._session.browse(
                parent,
                name_contains=name_contains,
                include_metadata=include_metadata,
                page_size=page_size,
                timeout_s=timeout_s,
            )
        )

    # The state of session and worker

    def info(self, *, timeout_s: float | None = None) -> SessionInfo:
        return self._run(self._session.info(timeout_s=timeout_s))

    def state(self, *, include_values: bool = False, timeout_s: float | None = None) -> StateOfSession:
        return self._run(self._session.state(include_values=include_values, timeout_s=timeout_s))

    def worker_info(self, *, timeout_s: float | None = None) -> WorkerInfo:
        return self._run(self._session.worker_info(timeout_s=timeout_s))

    def subscribers(self, *, timeout_s: float | None = None) -> SubscriberList:
        return self._run(self._session.subscribers(timeout_s=timeout_s))

    def ping(self, *, timeout_s: float | None = None) -> Pong:
        return self._run(self._session.ping(timeout_s=timeout_s))
