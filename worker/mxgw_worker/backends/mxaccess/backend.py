"""`MxAccessBackend` runs the 18 methods of MXAccess on its COM object, in an apartment of its own.

It has so many lines because each method is one command for the apartment, and all 18 stand together.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from mxgw.convert import status
from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import (
    E_FAIL,
    E_INVALIDARG,
    AlarmAck,
    BackendInfo,
    BackendUnavailable,
    EventSink,
    MxError,
)
from mxgw_worker.backends.mxaccess.alarms import ConsumerAlarms
from mxgw_worker.backends.mxaccess.alarms.consumer import MakeConsumer
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.browse import AttributeBrowser, NamedObjects
from mxgw_worker.backends.mxaccess.com import Com, ComEvents, Connect, Pump
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.errors import OUT_OF_RANGE
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.mxaccess.health import Health
from mxgw_worker.backends.mxaccess.options import MxAccessOptions
from mxgw_worker.backends.mxaccess.system import check_system, windows_consumer, windows_pump
from mxgw_worker.backends.mxaccess.watch import CallWatch, Probe

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = "1"
# For so long the items are taken down one by one when the backend stops; the rest goes with their server handle. It
# leaves time for the release within the 3 s that a worker has for its end (workers.stop_grace_s).
_TAKE_DOWN_S = 1.5
# For so long the backend waits for the object to be released, before it leaves it to the end of the process.
_STOP_S = 8.0


class MxAccessBackend:
    """MXAccess. `connect`, `pump` and `make_consumer` are those of the COM objects, except in tests."""

    def __init__(
        self,
        options: Mapping[str, object],
        connect: Connect | None = None,
        pump: Callable[[], Pump] | None = None,
        make_consumer: MakeConsumer | None = None,
    ) -> None:
        """Check the options.

        Raises:
            BackendUnavailable: the options are not valid, or this is no 32-bit Python on Windows.
        """
        self._options = MxAccessOptions.parse(options)
        if connect is None:
            check_system()
        self._make = connect or self._connect
        self._make_pump = pump or windows_pump
        self._make_consumer = make_consumer or partial(windows_consumer, self._options.alarms)
        self._apartment: Apartment | None = None
        self._events: Events | None = None
        self._watch: CallWatch | None = None
        self._com: Com | None = None
        # Of the apartment: the object until it is released, also one that nobody waits for any more.
        self._made: Com | None = None
        self._probe: Probe | None = None
        self._browser: AttributeBrowser | None = None
        self._alarms: ConsumerAlarms | None = None

    def info(self) -> BackendInfo:
        return BackendInfo("mxaccess", VERSION, "MXAccess on this machine")

    async def start(self, sink: EventSink) -> None:
        apartment = self._apartment = Apartment(self._make_pump(), "mxaccess", sink.failed)
        events = self._events = Events(sink, apartment)
        health = Health(sink)
        limit_s = self._options.start_limit_s

        def make() -> Com:
            made = self._made = self._make(events)
            return made

        try:
            async with asyncio.timeout(limit_s):
                com = self._com = await apartment.start(make, "its creation")
                await self._start_probe(health)
        except TimeoutError:
            self._end()
            self._apartment = None  # it can take as long as the call does, so `stop` does not wait for it
            raise BackendUnavailable(
                f"MXAccess has not started within {limit_s:g} s (start_limit_s); does the platform of this machine run?"
            ) from None
        except OSError as error:
            self._end()
            raise BackendUnavailable(f"there is no apartment for MXAccess: {error}") from None
        except BackendUnavailable:
            await self.stop()
            raise
        except BaseException:
            self._end()
            raise
        self._watch = CallWatch(
            apartment, health, sink.failed, slow_s=self._options.slow_call_s, limit_s=self._options.call_limit_s
        )
        self._alarms = ConsumerAlarms(
            self._options.alarms,
            self._dates(),
            self._make_consumer,
            self._make_pump,
            health,
            slow_call_s=self._options.slow_call_s,
            call_limit_s=self._options.call_limit_s,
        )
        known = "" if self._options.probe else "; without a probe a lost platform shows only as bad values"
        health.report("calls", SOURCE_HEALTH_GOOD, f"MXAccess answers, with interface version {com.version}{known}")

    async def _start_probe(self, health: Health) -> None:
        reference = self._options.probe
        if not reference:
            return
        com, events = self._running()
        probe = self._probe = Probe(
            reference,
            health,
            timeout_s=self._options.probe_timeout_s,
            first_s=self._options.probe_timeout_s + self._options.start_limit_s,
        )

        def advise() -> None:
            server = events.own_server(com, "mxgw probe", probe.changed)
            item = com.add_item(server, reference)
            events.items.add((server, item))
            events.advised.add((server, item))
            com.advise(server, item)

        try:
            await self._in_apartment("the probe's advise", advise)
        except MxError as error:
            raise BackendUnavailable(f"the probe {reference!r} cannot be advised: {error.message}") from None

    async def stop(self) -> None:
        if self._alarms is not None:
            await self._alarms.stop()
        apartment = self._apartment
        if apartment is None:
            return
        self._end()
        try:
            async with asyncio.timeout(_STOP_S):
                await apartment.end()
        except TimeoutError:
            busy = apartment.busy
            log.warning("MXAccess was not released, because it is in %s", "a call" if busy is None else busy.what)

    def _end(self) -> None:
        """Report and accept nothing more, and let the apartment release the object as soon as it can."""
        apartment, events = self._apartment, self._events
        assert apartment is not None
        assert events is not None
        self._com = None
        if self._watch is not None:
            self._watch.close()
        if self._probe is not None:
            self._probe.close()
        events.close()
        apartment.end_with("the end of the session", lambda: self._take_down(events))

    def _take_down(self, events: Events) -> None:
        """Un-advise, remove, unregister, release, in this order (docs/reference/mxaccess.md#taking-down)."""
        com, self._made = self._made, None
        if com is None:
            return
        until = time.perf_counter() + _TAKE_DOWN_S
        try:
            for server, item in sorted(events.items):
                if time.perf_counter() > until:
                    break
                if (server, item) in events.advised:
                    _attempt(lambda s=server, i=item: com.un_advise(s, i))  # type: ignore[misc]
                _attempt(lambda s=server, i=item: com.remove_item(s, i))  # type: ignore[misc]
            for server in sorted(events.servers):
                _attempt(lambda s=server: com.unregister(s))  # type: ignore[misc]
        finally:
            com.release()

    async def register(self, client_name: str) -> int:
        com, events = self._running()

        def register() -> int:
            handle = com.register(_text(client_name))
            if handle in events.own:
                raise MxError(E_FAIL, f"MXAccess returned the server handle {handle}, which this worker uses itself")
            events.servers.add(handle)
            return handle

        return await self._in_apartment("Register", register)

    async def unregister(self, server_handle: int) -> None:
        com, events = self._running(server_handle)

        def unregister() -> None:
            com.unregister(server_handle)
            events.servers.discard(server_handle)
            for keys in (events.items, events.advised):
                keys -= {key for key in keys if key[0] == server_handle}

        await self._in_apartment("Unregister", unregister)
        await events.deliver()

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        com, events = self._running(server_handle)
        return await self._add(
            "AddItem", events, server_handle, lambda: com.add_item(server_handle, _text(item_definition))
        )

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        com, events = self._running(server_handle)
        return await self._add(
            "AddItem2",
            events,
            server_handle,
            lambda: com.add_item2(server_handle, _text(item_definition), _text(item_context)),
        )

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        com, events = self._running(server_handle)
        return await self._add(
            "AddBufferedItem",
            events,
            server_handle,
            lambda: com.add_buffered_item(server_handle, _text(item_definition), _text(item_context)),
        )

    async def _add(self, method: str, events: Events, server_handle: int, add: Callable[[], int]) -> int:
        def add_and_know() -> int:
            handle = add()
            events.items.add((server_handle, handle))
            return handle

        return await self._in_apartment(method, add_and_know)

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        com, events = self._running(server_handle)
        key = (server_handle, item_handle)

        def remove() -> None:
            com.remove_item(server_handle, item_handle)
            events.items.discard(key)
            events.advised.discard(key)

        await self._in_apartment("RemoveItem", remove)
        await events.deliver()

    async def advise(self, server_handle: int, item_handle: int) -> None:
        com, _ = self._running(server_handle)
        await self._advise("Advise", server_handle, item_handle, com.advise)

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        com, _ = self._running(server_handle)
        await self._advise("AdviseSupervisory", server_handle, item_handle, com.advise_supervisory)

    async def _advise(
        self, method: str, server_handle: int, item_handle: int, advise: Callable[[int, int], None]
    ) -> None:
        _, events = self._running()
        key = (server_handle, item_handle)

        def advise_and_know() -> None:
            was_advised = key in events.advised
            events.advised.add(key)  # the first event can come while the call runs
            try:
                advise(server_handle, item_handle)
            except MxError:
                if not was_advised:
                    events.advised.discard(key)
                raise

        await self._in_apartment(method, advise_and_know)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        com, events = self._running(server_handle)

        def un_advise() -> None:
            com.un_advise(server_handle, item_handle)
            events.advised.discard((server_handle, item_handle))

        await self._in_apartment("UnAdvise", un_advise)
        await events.deliver()

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        com, _ = self._running(server_handle)
        await self._in_apartment("Write", lambda: com.write(server_handle, item_handle, value, user_id))

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        com, _ = self._running(server_handle)
        await self._in_apartment("Write2", lambda: com.write2(server_handle, item_handle, value, time_ns, user_id))

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        com, _ = self._running(server_handle)
        await self._in_apartment(
            "WriteSecured",
            lambda: com.write_secured(server_handle, item_handle, current_user_id, verifier_user_id, value),
        )

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        com, _ = self._running(server_handle)
        await self._in_apartment(
            "WriteSecured2",
            lambda: com.write_secured2(server_handle, item_handle, current_user_id, verifier_user_id, value, time_ns),
        )

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        com, _ = self._running(server_handle)
        return await self._in_apartment(
            "AuthenticateUser", lambda: com.authenticate_user(server_handle, _text(user), _text(password))
        )

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        com, _ = self._running(server_handle)
        return await self._in_apartment(
            "ArchestrAUserToId", lambda: com.archestra_user_to_id(server_handle, _text(user_guid))
        )

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        com, _ = self._running(server_handle)
        return status(*await self._in_apartment("Suspend", lambda: com.suspend(server_handle, item_handle)))

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        com, _ = self._running(server_handle)
        return status(*await self._in_apartment("Activate", lambda: com.activate(server_handle, item_handle)))

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        com, _ = self._running(server_handle)
        await self._in_apartment(
            "SetBufferedUpdateInterval", lambda: com.set_buffered_update_interval(server_handle, interval_ms)
        )

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        com, events = self._running()
        if self._browser is None:
            self._browser = AttributeBrowser(NamedObjects(self._options.objects), com, events)
        return await self._browser.browse(parent, self._in_apartment)

    async def active_alarms(self) -> Sequence[Alarm]:
        return await self._running_alarms().active_alarms()

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        return await self._running_alarms().acknowledge_alarms(alarm_ids, comment, operator)

    def _running_alarms(self) -> ConsumerAlarms:
        self._running()
        assert self._alarms is not None
        return self._alarms

    def _running(self, server_handle: int = 0) -> tuple[Com, Events]:
        """Return the object and its events, for a call under this server handle of a client.

        Raises:
            MxError: E_INVALIDARG. The backend does not run, or the handle is one of its own that a client has guessed.
        """
        if self._com is None or self._events is None:
            raise MxError(E_INVALIDARG, "the backend is not running")
        if server_handle in self._events.own:
            raise MxError(E_INVALIDARG, OUT_OF_RANGE)
        return self._com, self._events

    def _in_apartment(self, method: str, function: Callable[[], T]) -> asyncio.Future[T]:
        assert self._apartment is not None
        return self._apartment.call(method, function)

    def _connect(self, events: ComEvents) -> Com:
        if sys.platform == "win32":
            # comtypes must be imported here, in the apartment.
            try:
                from mxgw_worker.backends.mxaccess.windows.lmx_proxy import LmxProxy
            except ModuleNotFoundError as error:
                raise BackendUnavailable(
                    f"backend 'mxaccess' needs the package {error.name}: pip install 'mxgw[mxaccess]' in the Python of"
                    " the workers"
                ) from None
            return LmxProxy(events, self._dates())
        raise AssertionError  # the constructor has refused this system

    def _dates(self) -> Dates:
        return Dates(local=self._options.times == "local")


def _text(text: str) -> str:
    if "\0" in text:
        raise MxError(E_INVALIDARG, OUT_OF_RANGE)
    return text


def _attempt(call: Callable[[], None]) -> None:
    try:
        call()
    except MxError as error:
        log.debug("when the session ended: %s", error.message)
