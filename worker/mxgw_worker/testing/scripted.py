"""A backend that follows the rules of MXAccess for handles, and otherwise does what a test sets."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mxgw.convert import ok_status, to_value
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_INVALIDARG, BackendInfo, BackendUnavailable, EventSink, MxError

GOOD_QUALITY = 192


@dataclass(slots=True)
class _Item:
    reference: str
    advised: bool = False
    first_values: list[tuple[MxValue, int, list[MxStatus]]] = field(default_factory=list)


class ScriptedBackend:
    """Implements `Backend`. `calls` records every call, in order; events are emitted through `sink`."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.items: dict[tuple[int, int], _Item] = {}
        self.registrations: dict[int, str] = {}
        # Key: reference. Value: the events (value, quality, statuses) that an advise of this reference emits at once.
        self.first_values: dict[str, list[tuple[MxValue, int, list[MxStatus]]]] = {}
        # Key: method. Value: the errors that its next calls raise, one error per call.
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        # Key: method. Value: an `asyncio.Event`. A call of the method is recorded, and then waits until this is set.
        self.holds: dict[str, asyncio.Event] = {}
        # Key: method. Value: an `asyncio.Event` that is set when a call of the method was recorded.
        self.reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        # True when every write completes by itself, with success.
        self.completes_writes = False
        self.is_stopped = False
        self._options = dict(options or {})
        self._sink: EventSink | None = None

    @property
    def sink(self) -> EventSink:
        """The sink that receives the events. It is set by `start`."""
        if self._sink is None:
            raise RuntimeError("the backend is not started")
        return self._sink

    def info(self) -> BackendInfo:
        """See `Backend.info`."""
        return BackendInfo(kind="scripted", version="1", source="a test")

    async def start(self, sink: EventSink) -> None:
        """Record the call; see `Backend.start`. The option `refuse` makes it fail."""
        await self._called("start")
        if "refuse" in self._options:
            raise BackendUnavailable(str(self._options["refuse"]))
        self._sink = sink

    async def stop(self) -> None:
        """Record the call; see `Backend.stop`."""
        await self._called("stop")
        self.is_stopped = True

    async def register(self, client_name: str) -> int:
        """Record the call; see `Backend.register`."""
        await self._called("register", client_name)
        handle = _lowest_free(self.registrations)
        self.registrations[handle] = client_name
        return handle

    async def unregister(self, server_handle: int) -> None:
        """Record the call; see `Backend.unregister`."""
        await self._called("unregister", server_handle)
        self._check_registered(server_handle)
        del self.registrations[server_handle]
        self.items = {key: item for key, item in self.items.items() if key[0] != server_handle}

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """Record the call; see `Backend.add_item`."""
        await self._called("add_item", server_handle, item_definition)
        return self._add(server_handle, item_definition)

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Record the call; see `Backend.add_item2`."""
        await self._called("add_item2", server_handle, item_definition, item_context)
        return self._add(server_handle, f"{item_context}.{item_definition}")

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """Record the call; see `Backend.remove_item`."""
        await self._called("remove_item", server_handle, item_handle)
        self._check_item(server_handle, item_handle)
        del self.items[server_handle, item_handle]

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """Record the call; see `Backend.advise`."""
        await self._called("advise", server_handle, item_handle)
        self._advise(server_handle, item_handle)

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """Record the call; see `Backend.advise_supervisory`."""
        await self._called("advise_supervisory", server_handle, item_handle)
        self._advise(server_handle, item_handle)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """Record the call; see `Backend.un_advise`."""
        await self._called("un_advise", server_handle, item_handle)
        self._check_item(server_handle, item_handle).advised = False

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """Record the call; see `Backend.write`."""
        await self._write("write", server_handle, item_handle, value, user_id)

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """Record the call; see `Backend.write2`."""
        await self._write("write2", server_handle, item_handle, value, time_ns, user_id)

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """Record the call; see `Backend.write_secured`."""
        await self._write("write_secured", server_handle, item_handle, current_user_id, verifier_user_id, value)

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        """Record the call; see `Backend.write_secured2`."""
        await self._write(
            "write_secured2", server_handle, item_handle, current_user_id, verifier_user_id, value, time_ns
        )

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        """Record the call; see `Backend.authenticate_user`.

        The user id is the length of the password, which is not recorded.
        """
        await self._called("authenticate_user", server_handle, user)
        self._check_registered(server_handle)
        return len(password)

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """Record the call; see `Backend.archestra_user_to_id`."""
        await self._called("archestra_user_to_id", server_handle, user_guid)
        self._check_registered(server_handle)
        return 9

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """Record the call; see `Backend.suspend`."""
        await self._called("suspend", server_handle, item_handle)
        self._check_item(server_handle, item_handle)
        self.sink.operation_complete(server_handle, item_handle, [ok_status()])
        return ok_status()

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """Record the call; see `Backend.activate`."""
        await self._called("activate", server_handle, item_handle)
        self._check_item(server_handle, item_handle)
        return ok_status()

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Record the call; see `Backend.add_buffered_item`."""
        await self._called("add_buffered_item", server_handle, item_definition, item_context)
        return self._add(server_handle, item_definition)

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """Record the call; see `Backend.set_buffered_update_interval`."""
        await self._called("set_buffered_update_interval", server_handle, interval_ms)
        self._check_registered(server_handle)

    def emit(
        self, server_handle: int, item_handle: int, value: float | str | None, quality: int = GOOD_QUALITY
    ) -> None:
        """Send a data change with an OK status."""
        self.sink.data_change(server_handle, item_handle, to_value(value), quality, 1_000_000_000, [ok_status()])

    def names(self) -> list[str]:
        """Return the names of the methods that were called so far, without start and stop."""
        return [str(call[0]) for call in self.calls if call[0] not in ("start", "stop")]

    async def _called(self, method: str, *arguments: object) -> None:
        self.calls.append((method, *arguments))
        self.reached[method].set()
        hold = self.holds.get(method)
        if hold is not None:
            await hold.wait()
        if self.failures[method]:
            raise self.failures[method].pop(0)

    async def _write(self, method: str, server_handle: int, item_handle: int, *arguments: object) -> None:
        await self._called(method, server_handle, item_handle, *arguments)
        self._check_item(server_handle, item_handle)
        if self.completes_writes:
            self.sink.write_complete(server_handle, item_handle, [ok_status()])

    def _add(self, server_handle: int, reference: str) -> int:
        self._check_registered(server_handle)
        handle = _lowest_free({item for server, item in self.items if server == server_handle})
        self.items[server_handle, handle] = _Item(reference)
        return handle

    def _advise(self, server_handle: int, item_handle: int) -> None:
        item = self._check_item(server_handle, item_handle)
        item.advised = True
        for value, quality, statuses in self.first_values.get(item.reference, []):
            self.sink.data_change(server_handle, item_handle, value, quality, None, statuses)

    def _check_registered(self, server_handle: int) -> None:
        if server_handle not in self.registrations:
            raise MxError(E_INVALIDARG, f"no server handle {server_handle}")

    def _check_item(self, server_handle: int, item_handle: int) -> _Item:
        self._check_registered(server_handle)
        item = self.items.get((server_handle, item_handle))
        if item is None:
            raise MxError(E_INVALIDARG, f"no item handle {item_handle}")
        return item


class BrowsableScriptedBackend(ScriptedBackend):
    """A scripted backend with an address space. `nodes` has the children of each path."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__(options)
        self.nodes: dict[str, list[BrowseNode]] = {}

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Record the call; see `Browsable.browse`."""
        await self._called("browse", parent)
        if parent not in self.nodes:
            raise MxError(E_INVALIDARG, f"no node {parent!r}")
        return self.nodes[parent]


def _lowest_free(taken: Mapping[int, object] | set[int]) -> int:
    handle = 1
    while handle in taken:
        handle += 1
    return handle
