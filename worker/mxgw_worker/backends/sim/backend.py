"""`SimBackend` runs the 18 methods of MXAccess, and a browse, on one simulated source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from mxgw.convert import PyValue, from_value
from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode, ItemMetadata, ItemReference
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, AlarmAck, BackendInfo, EventSink, MxError
from mxgw_worker.backends.sim.alarm_load import AlarmLoad
from mxgw_worker.backends.sim.alarms import AlarmManager
from mxgw_worker.backends.sim.controls import add_controls
from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import Galaxy
from mxgw_worker.backends.sim.items import Handles, Item, Server
from mxgw_worker.backends.sim.options import SimOptions, parse_options
from mxgw_worker.backends.sim.profiles import load_profile
from mxgw_worker.backends.sim.security import Security
from mxgw_worker.backends.sim.status import Detail
from mxgw_worker.backends.sim.timers import Clock, LoopClock

log = logging.getLogger(__name__)

VERSION = "1"
# COM's text for an invalid argument, word for word (docs/reference/mxaccess.md#early-writes).
_OUT_OF_RANGE = "Value does not fall within the expected range."


class SimBackend:
    """A simulated MXAccess. `clock` is the clock of the event loop, except in tests."""

    def __init__(self, options: Mapping[str, object], clock: Clock | None = None) -> None:
        """Check the options.

        Raises:
            BackendUnavailable: the options are not valid; the text names the wrong option.
        """
        self._options: SimOptions = parse_options(options)
        self._clock = clock
        self._security = Security(self._options.security, self._options.users)
        self._servers: Handles[Server] = Handles("server")
        self._emitter: Emitter | None = None
        self._alarm_manager: AlarmManager | None = None

    def info(self) -> BackendInfo:
        return BackendInfo("sim", VERSION, f"simulated, profile {self._options.profile}")

    async def start(self, sink: EventSink) -> None:
        clock = self._clock or LoopClock()
        galaxy = Galaxy()
        emitter = Emitter(galaxy, clock, sink, self._options)
        load_profile(self._options.profile)(emitter, self._options)
        load = AlarmLoad(emitter, self._options) if self._options.alarms else None
        manager = AlarmManager(galaxy, clock)
        if self._options.controls:
            add_controls(emitter, manager)
        galaxy.stamp(clock.wall_ns())
        if load is not None:
            load.start()
        self._emitter, self._alarm_manager = emitter, manager
        sink.source_health(SOURCE_HEALTH_GOOD, f"the simulated source is running, profile {self._options.profile}")

    async def stop(self) -> None:
        if self._emitter is not None:
            self._emitter.stop()
            self._emitter = None
        self._servers = Handles("server")

    async def register(self, client_name: str) -> int:
        self._running()
        server = Server(0, client_name, self._options.buffered_interval_ms / 1_000)
        server.handle = self._servers.put(server)
        return server.handle

    async def unregister(self, server_handle: int) -> None:
        emitter = self._running()
        server = self._servers.pop(server_handle)
        for item in server.items.all():
            emitter.un_advise(item)

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        return self._add(server_handle, item_definition, "", buffered=False)

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return self._add(server_handle, item_definition, item_context, buffered=False)

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return self._add(server_handle, item_definition, item_context, buffered=True)

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        emitter = self._running()
        emitter.un_advise(self._servers.get(server_handle).items.pop(item_handle))

    async def advise(self, server_handle: int, item_handle: int) -> None:
        self._running().advise(self._item(server_handle, item_handle), supervisory=False)

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        self._running().advise(self._item(server_handle, item_handle), supervisory=True)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        self._running().un_advise(self._item(server_handle, item_handle))

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        await self.write2(server_handle, item_handle, value, None, user_id)

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        def refused() -> Detail | None:
            return (
                None if attribute is None else self._security.check_write(attribute, user_id, supervisory=supervisory)
            )

        item = self._item(server_handle, item_handle)
        attribute, supervisory = item.attribute, item.supervisory
        self._write(item, value, time_ns, refused)

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        await self.write_secured2(server_handle, item_handle, current_user_id, verifier_user_id, value, None)

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        def refused() -> Detail | None:
            if attribute is None:
                return None
            return self._security.check_secured(attribute, current_user_id, verifier_user_id)

        item = self._item(server_handle, item_handle)
        attribute = item.attribute
        self._write(item, value, time_ns, refused)

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        self._servers.get(server_handle)
        return self._security.authenticate(user, password)

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        self._servers.get(server_handle)
        return self._security.id_of_guid(user_guid)

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        return self._running().suspend(self._advised(server_handle, item_handle))[0]

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        return self._running().resume(self._advised(server_handle, item_handle))[0]

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        server = self._servers.get(server_handle)
        if interval_ms < 1:
            raise MxError(E_INVALIDARG, f"the buffered update interval must be at least 1 ms, not {interval_ms}")
        self._running().set_buffered_interval(server, interval_ms / 1_000)

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        return self._running().galaxy.browse(parent)

    async def describe_items(self, items: Sequence[ItemReference]) -> Sequence[ItemMetadata | MxError]:
        galaxy = self._running().galaxy
        return [galaxy.describe(item.item_definition, item.item_context) for item in items]

    async def active_alarms(self) -> Sequence[Alarm]:
        return self._alarms().active()

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        return self._alarms().acknowledge(alarm_ids, comment, operator)

    def _alarms(self) -> AlarmManager:
        if self._running().is_down or self._alarm_manager is None:
            raise MxError(E_FAIL, "the simulated platform is down, and its alarm manager with it")
        return self._alarm_manager

    def _running(self) -> Emitter:
        if self._emitter is None:
            raise MxError(E_FAIL, "the simulator is not running")
        return self._emitter

    def _add(self, server_handle: int, definition: str, context: str, *, buffered: bool) -> int:
        self._running()
        server = self._servers.get(server_handle)
        if not definition.strip():
            raise MxError(E_INVALIDARG, _OUT_OF_RANGE)
        item = Item(server, definition, context, buffered=buffered)
        item.handle = server.items.put(item)
        return item.handle

    def _item(self, server_handle: int, item_handle: int) -> Item:
        return self._servers.get(server_handle).items.get(item_handle)

    def _advised(self, server_handle: int, item_handle: int) -> Item:
        item = self._item(server_handle, item_handle)
        if not item.advised:
            raise MxError(E_INVALIDARG, f"item handle {item_handle} is not on advise")
        return item

    def _write(self, item: Item, value: MxValue, time_ns: int | None, refused: Callable[[], Detail | None]) -> None:
        if not item.advised:
            raise MxError(E_INVALIDARG, f"{_OUT_OF_RANGE} Advise item handle {item.handle} before writing to it.")
        if item.attribute is None:
            raise MxError(
                E_INVALIDARG,
                f"{_OUT_OF_RANGE} The type of item handle {item.handle} is not known before its first value.",
            )
        self._running().write(item, _python(value), time_ns, refused)


def _python(value: MxValue) -> PyValue:
    try:
        return from_value(value)
    except (ValueError, OverflowError) as error:
        raise MxError(E_INVALIDARG, f"{_OUT_OF_RANGE} The time or duration is beyond any calendar.") from error
