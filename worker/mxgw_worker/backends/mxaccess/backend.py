"""`MxAccessBackend` runs the 18 methods of MXAccess on its COM object, in an apartment of its own."""

from __future__ import annotations

import asyncio
import logging
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mxgw.convert import status
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_INVALIDARG, BackendInfo, BackendUnavailable, EventSink, MxError
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.browse import AttributeBrowser, NamedObjects
from mxgw_worker.backends.mxaccess.com import Com, ComEvents, Connect, Pump
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.mxaccess.health import Health
from mxgw_worker.backends.mxaccess.options import MxAccessOptions
from mxgw_worker.backends.mxaccess.watch import CallWatch, Probe

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = "1"
# For so long the items are taken down one by one when the backend stops; the rest goes with their server handle.
_TAKE_DOWN_S = 3.0
# For so long the backend waits for the object to be released, before it leaves it to the end of the process.
_STOP_S = 8.0
_OUT_OF_RANGE = "Value does not fall within the expected range."


class MxAccessBackend:
    """MXAccess. `connect` and `pump` are those of the COM object, except in tests."""

    def __init__(
        self,
        options: Mapping[str, object],
        connect: Connect | None = None,
        pump: Callable[[], Pump] | None = None,
    ) -> None:
        """Check the options.

        Raises:
            BackendUnavailable: the options are not valid, or this is no 32-bit Python on Windows.
        """
        self._options = MxAccessOptions.parse(options)
        if connect is None:
            _check_system()
        self._make = connect or self._connect
        self._make_pump = pump or _windows_pump
        self._apartment: Apartment | None = None
        self._events: Events | None = None
        self._watch: CallWatch | None = None
        self._com: Com | None = None
        self._probe: Probe | None = None
        self._browser: AttributeBrowser | None = None

    def info(self) -> BackendInfo:
        return BackendInfo("mxaccess", VERSION, "MXAccess on this machine")

    async def start(self, sink: EventSink) -> None:
        apartment = Apartment(self._make_pump(), "mxaccess")
        events = Events(sink, apartment)
        health = Health(sink)
        limit_s = self._options.start_limit_s
        try:
            async with asyncio.timeout(limit_s):
                com = await apartment.start(lambda: self._make(events), "its creation")
                self._apartment, self._events, self._com = apartment, events, com
                await self._start_probe(health)
        except TimeoutError:
            apartment.let_end()
            raise BackendUnavailable(
                f"MXAccess has not started within {limit_s:g} s (start_limit_s); does the platform of this machine run?"
            ) from None
        except OSError as error:
            raise BackendUnavailable(f"there is no apartment for MXAccess: {error}") from None
        except BackendUnavailable:
            await self.stop()
            apartment.let_end()
            raise
        self._watch = CallWatch(
            apartment, health, sink.failed, slow_s=self._options.slow_call_s, limit_s=self._options.call_limit_s
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
            com.advise_supervisory(server, com.add_item(server, reference))

        try:
            await self._in_apartment("the probe's advise", advise)
        except MxError as error:
            raise BackendUnavailable(f"the probe {reference!r} cannot be advised: {error.message}") from None

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.close()
        events, apartment, com = self._events, self._apartment, self._com
        if events is None or apartment is None or com is None:
            return
        self._com = None
        if self._probe is not None:
            self._probe.close()
        events.close()
        apartment.call("the end of the session", lambda: self._take_down(com, events))
        try:
            async with asyncio.timeout(_STOP_S):
                await apartment.end()
        except TimeoutError:
            busy = apartment.busy
            log.warning("MXAccess was not released, because it is in %s", "a call" if busy is None else busy.what)

    def _take_down(self, com: Com, events: Events) -> None:
        """Un-advise, remove, unregister, release, in this order (docs/reference/mxaccess.md#taking-down)."""
        until = time.perf_counter() + _TAKE_DOWN_S
        for server, item in sorted(events.items):
            if time.perf_counter() > until:
                break
            if (server, item) in events.advised:
                _attempt(lambda s=server, i=item: com.un_advise(s, i))  # type: ignore[misc]
            _attempt(lambda s=server, i=item: com.remove_item(s, i))  # type: ignore[misc]
        for server in sorted(events.servers):
            _attempt(lambda s=server: com.unregister(s))  # type: ignore[misc]
        com.release()

    async def register(self, client_name: str) -> int:
        com, events = self._running()

        def register() -> int:
            handle = com.register(_text(client_name))
            events.servers.add(handle)
            return handle

        return await self._in_apartment("Register", register)

    async def unregister(self, server_handle: int) -> None:
        com, events = self._running()

        def unregister() -> None:
            com.unregister(server_handle)
            events.servers.discard(server_handle)
            for keys in (events.items, events.advised):
                keys -= {key for key in keys if key[0] == server_handle}

        await self._in_apartment("Unregister", unregister)
        events.deliver()

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        com, events = self._running()
        return await self._add(
            "AddItem", events, server_handle, lambda: com.add_item(server_handle, _text(item_definition))
        )

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        com, events = self._running()
        return await self._add(
            "AddItem2",
            events,
            server_handle,
            lambda: com.add_item2(server_handle, _text(item_definition), _text(item_context)),
        )

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        com, events = self._running()
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
        com, events = self._running()
        key = (server_handle, item_handle)

        def remove() -> None:
            com.remove_item(server_handle, item_handle)
            events.items.discard(key)
            events.advised.discard(key)

        await self._in_apartment("RemoveItem", remove)
        events.deliver()

    async def advise(self, server_handle: int, item_handle: int) -> None:
        com, _ = self._running()
        await self._advise("Advise", server_handle, item_handle, com.advise)

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        com, _ = self._running()
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
        com, events = self._running()

        def un_advise() -> None:
            com.un_advise(server_handle, item_handle)
            events.advised.discard((server_handle, item_handle))

        await self._in_apartment("UnAdvise", un_advise)
        events.deliver()

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        com, _ = self._running()
        await self._in_apartment("Write", lambda: com.write(server_handle, item_handle, value, user_id))

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        com, _ = self._running()
        await self._in_apartment("Write2", lambda: com.write2(server_handle, item_handle, value, time_ns, user_id))

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        com, _ = self._running()
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
        com, _ = self._running()
        await self._in_apartment(
            "WriteSecured2",
            lambda: com.write_secured2(server_handle, item_handle, current_user_id, verifier_user_id, value, time_ns),
        )

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        com, _ = self._running()
        return await self._in_apartment(
            "AuthenticateUser", lambda: com.authenticate_user(server_handle, _text(user), _text(password))
        )

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        com, _ = self._running()
        return await self._in_apartment(
            "ArchestrAUserToId", lambda: com.archestra_user_to_id(server_handle, _text(user_guid))
        )

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        com, _ = self._running()
        return status(*await self._in_apartment("Suspend", lambda: com.suspend(server_handle, item_handle)))

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        com, _ = self._running()
        return status(*await self._in_apartment("Activate", lambda: com.activate(server_handle, item_handle)))

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        com, _ = self._running()
        await self._in_apartment(
            "SetBufferedUpdateInterval", lambda: com.set_buffered_update_interval(server_handle, interval_ms)
        )

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        com, events = self._running()
        if self._browser is None:
            browser = AttributeBrowser(NamedObjects(self._options.objects))
            await self._in_apartment("Register", lambda: browser.register(com, events))
            self._browser = browser
        return await self._browser.browse(parent, self._in_apartment)

    def _running(self) -> tuple[Com, Events]:
        if self._com is None or self._events is None:
            raise MxError(E_INVALIDARG, "the backend is not running")
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
            return LmxProxy(events, Dates(local=self._options.times == "local"))
        raise AssertionError  # the constructor has refused this system


def _windows_pump() -> Pump:
    if sys.platform == "win32":
        from mxgw_worker.backends.mxaccess.windows.pump import WindowsPump

        return WindowsPump()
    raise AssertionError  # as above


def _check_system() -> None:
    if sys.platform != "win32":
        raise BackendUnavailable(
            "backend 'mxaccess' needs Windows, because MXAccess is a Windows component. Run the gateway on the machine"
            " with System Platform (docs/windows.md); clients connect from any system. Here 'sim' stands in for it"
        )
    bits = struct.calcsize("P") * 8
    if bits != 32:
        raise BackendUnavailable(
            f"backend 'mxaccess' needs a 32-bit Python, because MXAccess is a 32-bit component; this worker runs in a"
            f" {bits}-bit one ({sys.executable}). Set workers.python to a 32-bit Python (docs/windows.md)"
        )


def _text(text: str) -> str:
    if "\0" in text:
        raise MxError(E_INVALIDARG, _OUT_OF_RANGE)
    return text


def _attempt(call: Callable[[], None]) -> None:
    try:
        call()
    except MxError as error:
        log.debug("when the session ended: %s", error.message)
