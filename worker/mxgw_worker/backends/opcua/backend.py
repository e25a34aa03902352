"""`OpcUaBackend` runs the methods of LMXProxyServer on an OPC UA server."""
# ruff: noqa: ARG002 - the signatures are the protocol's; OPC UA has no use for some of the arguments

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from asyncua import ua

from mxgw.convert import ok_status
from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode, ItemMetadata, ItemOptions, ItemReference
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import (
    E_INVALIDARG,
    E_NOTIMPL,
    AlarmAck,
    AlarmListener,
    BackendInfo,
    BackendUnavailable,
    EventSink,
    MxError,
)

from .browser import Browser
from .conditions import Conditions
from .emitter import Emitter
from .items import Item, WriteJob
from .metadata import Describer
from .options import OpcUaOptions
from .server_connection import ServerConnection
from .status import pending_status
from .subscriptions import Subscriptions
from .types import DataTypes
from .writer import Writer

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.25
_STOP_TIMEOUT_S = 5.0
# Enough for a path of 64 names of 512 characters, each of them escaped. A string identifier has 4096 at most.
_MAX_REFERENCE_CHARACTERS = 2**16
_NO_USERS = "OPC UA knows no users beside the session's own; set 'user' in the backend's options"
_NO_SECURED = "OPC UA has no secured or verified writes; the session's user writes with Write"


@dataclass(slots=True)
class _Registration:
    client_name: str
    buffered_interval_ms: float
    items: dict[int, Item] = field(default_factory=dict)
    # The task that sends buffered values. It ends with the registration, and is replaced when the interval changes.
    # None until there is a buffered item.
    flusher: asyncio.Task[None] | None = None


class OpcUaBackend:
    """One connection to one server, with one subscription per server handle.

    `options` are checked in `start`, so that every error in them is a `BackendUnavailable`.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._raw_options = dict(options)
        self._registrations: dict[int, _Registration] = {}
        self._server_handles = 0
        self._item_handles = 0
        # The task that runs all other tasks. It is created by `start`, and cancelled and awaited by `stop`.
        self._root: asyncio.Task[None] | None = None
        # The group of all tasks that are created later. It is set while `_root` runs.
        self._tasks: asyncio.TaskGroup | None = None

    def info(self) -> BackendInfo:
        """Describe the backend, without credentials."""
        url = str(self._raw_options.get("url", "")).rpartition("@")[2]
        return BackendInfo(kind="opcua", version=f"asyncua {version('asyncua')}", source=url)

    async def start(self, sink: EventSink) -> None:
        """Connect to the server.

        Raises:
            BackendUnavailable: the options are wrong, or the server cannot be reached, or it refuses the connection.
        """
        # Below level WARNING the library logs whole requests, logins included, and formats every value that it
        # receives.
        logging.getLogger("asyncua").setLevel(max(logging.WARNING, logging.getLogger("asyncua").level))
        self._options = options = OpcUaOptions.parse(self._raw_options)
        self._connection = ServerConnection(options)
        self._emitter = Emitter(options.queue_size)
        self._types = DataTypes()
        self._subscriptions = Subscriptions(self._connection, self._emitter, options)
        self._writer = Writer(self._connection, self._emitter, self._types)
        self._browser = Browser(self._connection, self._types)
        self._describer = Describer(self._connection, self._types)
        self._conditions = Conditions(self._connection, self._subscriptions, options)
        await self._connection.open()
        self._emitter.open(sink)
        self._emitter.health(SOURCE_HEALTH_GOOD, f"connected to {options.url}")
        # The worker calls `start` and `stop` from different tasks, so a task group cannot be open from the one call to
        # the other. Instead, `stop` cancels and awaits this task.
        running = asyncio.Event()  # `running` is set by `_run` once tasks can be added.
        self._root = asyncio.get_running_loop().create_task(self._run(sink, running), name="opcua")
        await running.wait()

    async def stop(self) -> None:
        """Disconnect. The server then deletes the subscriptions of the session."""
        root, self._root = self._root, None
        if root is None:
            return
        self._emitter.close()
        root.cancel()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await asyncio.wait([root])
                await self._connection.close()
        except TimeoutError:
            log.warning("stopping took longer than %g s", _STOP_TIMEOUT_S)

    async def register(self, client_name: str) -> int:
        """Return a server handle. Its subscription is created at the first advise."""
        self._server_handles += 1
        self._registrations[self._server_handles] = _Registration(client_name, self._options.buffered_interval_ms)
        return self._server_handles

    async def unregister(self, server_handle: int) -> None:
        """Release the handle, its items and its subscription."""
        registration = self._registration(server_handle)
        del self._registrations[server_handle]
        if registration.flusher is not None:
            registration.flusher.cancel()
        for item in registration.items.values():
            item.removed, item.advised = True, False
        self._subscriptions.close(server_handle)

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """Return an item handle. The reference is resolved when the item is advised."""
        return self._add(server_handle, item_definition, "", buffered=False)

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Return an item handle. `item_context` is the node at which a relative path starts."""
        return self._add(server_handle, item_definition, item_context, buffered=False)

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Return the handle of an item whose values arrive as arrays."""
        handle = self._add(server_handle, item_definition, item_context, buffered=True)
        registration = self._registration(server_handle)
        if registration.flusher is None:
            self._start_flusher(server_handle, registration)
        return handle

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """Set how often arrays are sent. The values that were gathered so far are sent at once."""
        registration = self._registration(server_handle)
        if interval_ms < 1:
            raise MxError(E_INVALIDARG, "the buffered update interval must be at least 1 ms")
        registration.buffered_interval_ms = interval_ms
        if registration.flusher is not None:
            registration.flusher.cancel()
            self._emitter.flush(server_handle)
            self._start_flusher(server_handle, registration)

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """Release an item, and un-advise it if it is advised. Its waiting writes are dropped."""
        item = self._item(server_handle, item_handle)
        if item.advised:
            self._subscriptions.un_advise(item)
        item.removed = True
        item.writes.clear()
        del self._registrations[server_handle].items[item_handle]

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """Start data changes. A second advise changes nothing."""
        item = self._item(server_handle, item_handle)
        if item.advised:
            return
        self._subscriptions.advise(item)
        if not self._connection.up:
            self._emitter.lose(item)

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """Start data changes. OPC UA has no operators, so this does the same as Advise."""
        await self.advise(server_handle, item_handle)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """Stop data changes. Nothing happens if the item is not advised."""
        item = self._item(server_handle, item_handle)
        if item.advised:
            self._subscriptions.un_advise(item)

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """Accept a write. OPC UA writes as the user of the session, whatever `user_id` says."""
        self._writer.submit(self._item(server_handle, item_handle), WriteJob(_copy(value)))

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """Accept a write with a source time. Some servers refuse such a write (BadWriteNotSupported)."""
        self._writer.submit(self._item(server_handle, item_handle), WriteJob(_copy(value), time_ns))

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """Refuse the write: OPC UA cannot check the verifier, so the write would only seem to be verified."""
        raise MxError(E_NOTIMPL, _NO_SECURED)

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        """Refuse the write, for the same reason as `write_secured`."""
        raise MxError(E_NOTIMPL, _NO_SECURED)

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        """Refuse the login: an OPC UA session has only one user."""
        raise MxError(E_NOTIMPL, _NO_USERS)

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """Refuse the request: OPC UA has no ArchestrA users."""
        raise MxError(E_NOTIMPL, _NO_USERS)

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """Make the server stop sampling the item; an operation completion follows."""
        return self._set_suspended(self._advised(server_handle, item_handle), suspended=True)

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """Make the server sample the item again. If the item is not suspended, nothing happens and no event follows."""
        return self._set_suspended(self._advised(server_handle, item_handle), suspended=False)

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Return the children of a node, named by node id or browse path. "" is the Objects folder, "/" the Root
        folder.

        Raises:
            MxError: there is no such node, or the server does not answer.
        """
        return await self._browser.children(parent)

    async def describe_items(self, items: Sequence[ItemReference]) -> Sequence[ItemMetadata | MxError]:
        """Return what the server says about the nodes of these references; see `Describable`."""
        return await self._describer.describe(items)

    async def set_item_options(self, server_handle: int, item_handle: int, options: ItemOptions) -> None:
        """Have the server report the item with this deadband, or sample it at this interval; see `Tunable`.

        A server that cannot do so for the item says so when it is advised.
        """
        self._item(server_handle, item_handle).options = options

    async def follow_alarms(self, listener: AlarmListener) -> None:
        """Report the server's Alarms and Conditions to `listener`; see `AlarmPublisher`."""
        await self._conditions.follow(listener)

    async def active_alarms(self) -> Sequence[Alarm]:
        """Return the active alarms as of the last events; see `AlarmSource`."""
        return self._conditions.active()

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """Acknowledge alarms; see `AlarmSource`."""
        return await self._conditions.acknowledge(alarm_ids, comment, operator)

    async def _run(self, sink: EventSink, running: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                running.set()
                tasks.create_task(self._writer.run(), name="opcua:writer")
                await self._stay_connected()
        except Exception:
            log.exception("the OPC UA backend failed")
            sink.failed("the OPC UA backend failed; the worker's log has the details")

    async def _stay_connected(self) -> None:
        while True:
            reason = await self._serve()
            log.warning("lost the OPC UA server: %s", reason)
            self._emitter.health(SOURCE_HEALTH_LOST, f"lost {self._options.url}: {reason}; reconnecting")
            for item in self._subscriptions.advised_items():
                if not item.suspended:
                    self._emitter.lose(item)
            self._conditions.lost(reason)
            await self._reconnect()
            self._emitter.health(SOURCE_HEALTH_GOOD, f"connected to {self._options.url} again")

    async def _serve(self) -> str:
        """Run the tasks that need a connection until the connection is lost, and return the reason. When this call is
        cancelled, the connection stays open, so that `stop` can close the session.
        """
        reason = ""
        try:
            async with asyncio.TaskGroup() as live:
                others = [
                    live.create_task(self._subscriptions.maintain(), name="opcua:maintain"),
                    live.create_task(self._subscriptions.watch(), name="opcua:watch"),
                    live.create_task(self._conditions.maintain(), name="opcua:conditions"),
                    *(
                        live.create_task(self._subscriptions.publisher.publish(), name=f"opcua:publish:{n}")
                        for n in range(self._options.publish_requests)
                    ),
                ]
                reason = await self._connection.serve()
                for task in others:
                    task.cancel()
        except* (ua.UaError, OSError, TimeoutError) as group:
            reason = f"{type(group.exceptions[0]).__name__}"
        self._connection.drop()
        return reason

    async def _reconnect(self) -> None:
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                kept = await self._connection.open()
                await self._subscriptions.resume(session_kept=kept)
                return
            except (BackendUnavailable, ua.UaError, OSError, TimeoutError) as error:
                log.info("reconnecting: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._options.reconnect_max_delay_s)

    def _add(self, server_handle: int, definition: str, context: str, *, buffered: bool) -> int:
        registration = self._registration(server_handle)
        if not definition.strip():
            raise MxError(E_INVALIDARG, "the item definition is empty")
        if len(definition) + len(context) > _MAX_REFERENCE_CHARACTERS:
            raise MxError(E_INVALIDARG, f"an item reference has at most {_MAX_REFERENCE_CHARACTERS} characters")
        self._item_handles += 1
        handle = self._item_handles
        registration.items[handle] = Item(server_handle, handle, definition, context, buffered)
        return handle

    def _start_flusher(self, server_handle: int, registration: _Registration) -> None:
        if self._tasks is not None:
            registration.flusher = self._tasks.create_task(
                self._emitter.flush_every(server_handle, registration.buffered_interval_ms), name="opcua:buffers"
            )

    def _set_suspended(self, item: Item, *, suspended: bool) -> MxStatus:
        if item.suspended is suspended:
            return ok_status()
        item.suspended = suspended
        self._subscriptions.set_mode(item)
        return pending_status()

    def _registration(self, server_handle: int) -> _Registration:
        registration = self._registrations.get(server_handle)
        if registration is None:
            raise MxError(E_INVALIDARG, f"server handle {server_handle} is not registered")
        return registration

    def _item(self, server_handle: int, item_handle: int) -> Item:
        item = self._registration(server_handle).items.get(item_handle)
        if item is None:
            raise MxError(E_INVALIDARG, f"item handle {item_handle} does not exist")
        return item

    def _advised(self, server_handle: int, item_handle: int) -> Item:
        item = self._item(server_handle, item_handle)
        if not item.advised:
            raise MxError(E_INVALIDARG, f"item {item_handle} is not advised")
        return item


def _copy(value: MxValue) -> MxValue:
    """Copy a value, because the caller is allowed to reuse its message before the write is sent."""
    copy = MxValue()
    copy.CopyFrom(value)
    return copy
