"""The fallback provider: advises sub-attributes of each alarm, and derives the alarm's state from their values.

MXAccess reports attributes, not alarms (docs/reference/mxaccess.md#alarms). Attributes show neither the id that the
source gave an alarm nor the time at which it was raised, so every record of this provider is incomplete
and has the flag `degraded`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mxgw.convert import from_value, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import DataChange
from mxgw.v1.values_pb2 import MX_STATUS_CATEGORY_PENDING, QUALITY_GOOD
from mxgw_alarms.filters import LEAST_SEVERE, MOST_SEVERE
from mxgw_alarms.providers import Outcome, Reporter, outcome_of
from mxgw_alarms.settings import AlarmsSettings
from mxgw_alarms.states import state_of
from mxgw_core.api import InternalSession, SessionState
from mxgw_core.api.errors import CommandFailed, GatewayError

log = logging.getLogger(__name__)

_CLIENT_NAME = "mxgw alarms"
# The most items in one command: few enough to fit into one frame, and to let the worker run other commands in between.
_ITEMS_AT_ONCE = 1500
_TIMEOUT_S = 30.0
# How long to wait for first values: an attribute needs up to 8 s for its first value
# (docs/reference/mxaccess.md#first-values). An alarm whose state is still unknown after this time is not watched.
FIRST_VALUES_S = 10.0
_LEAVE_S = 3.0
# The longest time for a search of the address space; a large plant needs minutes.
_DISCOVERY_S = 300.0


@dataclass(slots=True)
class _Watched:
    """One alarm, as the values of its sub-attributes show it. None means that a value is unknown."""

    reference: str
    in_alarm: bool | None = None
    acknowledged: bool | None = None
    priority: int = 0

    def record(self) -> Alarm | None:
        """Return a record with the state and priority of the alarm; None while the state is unknown."""
        if self.in_alarm is None or self.acknowledged is None:
            return None
        return Alarm(
            reference=self.reference,
            alarm_id=f"attributes:{self.reference}",
            state=state_of(in_alarm=self.in_alarm, acknowledged=self.acknowledged),
            priority=self.priority,
            raw_priority=self.priority,
            degraded=True,
        )


class AttributeProvider:
    """Implements `Provider`. `references` are the alarms to watch; references that do not exist are left out."""

    def __init__(self, session: InternalSession, settings: AlarmsSettings, references: Collection[str]) -> None:
        self._session = session
        self._settings = settings
        self._references = references
        self._server = 0
        # Key: item serial. Value: the alarm, and the name of the sub-attribute that the item is for.
        self._items: dict[int, tuple[_Watched, str]] = {}
        self._watched: dict[str, _Watched] = {}
        self._dirty: dict[str, _Watched] = {}
        # Serials of items that have no first value yet.
        self._awaited: set[int] = set()
        # Values of items that a running command subscribes. They are kept until the reply of the command says which
        # alarm each item serial belongs to.
        self._early: list[tuple[int, DataChange]] = []
        self._subscribing = 0
        # Set when a value has changed; `_tell` waits for it, and reports the change.
        self._news = asyncio.Event()
        # Key: serial of an item that is about to be written. Value: a future, completed by the item's first good value.
        self._resolved: dict[int, asyncio.Future[None]] = {}

    async def run(self, reporter: Reporter) -> None:
        try:
            async with self._session.events() as frames, asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(frames), name="alarms:attributes:read")
                telling = tasks.create_task(self._tell(reporter), name="alarms:attributes:tell")
                await asyncio.wait((reading, telling), return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                telling.cancel()
        except* GatewayError as group:
            if self._session.info().state is SessionState.READY:
                reporter.failed(str(group.exceptions[0]))
                await asyncio.sleep(self._settings.poll_interval_s)
            else:
                await self._session.wait_closed()
        finally:
            await self._leave()

    # watching alarms

    async def _tell(self, reporter: Reporter) -> None:
        """Advise the items of all alarms, report all alarms once, and from then on report changes."""
        await self._advise()
        await self._first_values()
        self._dirty.clear()
        known = {w.reference: record for w in self._watched.values() if (record := w.record()) is not None}
        reporter.everything(tuple(known.values()), known.keys())
        while True:
            await self._news.wait()
            # A raise changes two attributes, which arrive one after the other. The state in between is not reported.
            await asyncio.sleep(self._settings.settle_s)
            self._news.clear()
            dirty, self._dirty = self._dirty, {}
            records = [(watched, watched.record()) for watched in dirty.values()]
            if unseen := [watched.reference for watched, record in records if record is None]:
                reporter.unseen(unseen)
            reporter.changed([record for _, record in records if record is not None])

    async def _advise(self) -> None:
        self._server = (
            await self._session.invoke(c.MxCommand(register=c.RegisterCommand(client_name=_CLIENT_NAME)), _TIMEOUT_S)
        ).server_handle
        names = [self._settings.in_alarm, self._settings.acknowledged]
        if self._settings.priority:
            names.append(self._settings.priority)
        wanted: list[tuple[_Watched, str]] = []
        for reference in self._references:
            watched = self._watched[reference] = _Watched(reference)
            wanted += [(watched, name) for name in names]
        for part in _parts(wanted):
            references = [f"{watched.reference}.{name}" for watched, name in part]
            with self._keeping_early():
                for item, (_, serial) in zip(part, await self._subscribe(references), strict=True):
                    if serial:
                        self._items[serial] = item
                        self._awaited.add(serial)

    async def _subscribe(self, references: Sequence[str]) -> Sequence[tuple[int, int]]:
        """Return item handle and item serial for each reference; both are 0 when MXAccess refused the reference."""
        items = [c.ItemReference(item_definition=reference) for reference in references]
        command = c.SubscribeBulkCommand(server_handle=self._server, items=items, supervisory=True)
        reply = await self._session.invoke(c.MxCommand(subscribe_bulk=command), _TIMEOUT_S)
        return [(item.item_handle, item.item_serial) if item.hresult >= 0 else (0, 0) for item in reply.bulk.items]

    @contextmanager
    def _keeping_early(self) -> Iterator[None]:
        """Use as `with self._keeping_early():` around a subscribe call.

        The first values can arrive before the reply with their item serials. They are kept, and processed when the
        `with` block ends.
        """
        self._subscribing += 1
        try:
            yield
        finally:
            self._subscribing -= 1
            early, self._early = self._early, []
            for serial, change in early:
                self._take(serial, change)

    async def _first_values(self) -> None:
        """Wait until every item has its first value, for at most `FIRST_VALUES_S`."""
        try:
            async with asyncio.timeout(FIRST_VALUES_S):
                while self._awaited:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    # reading the session's events

    async def _read(self, frames: AsyncIterator[StreamEventsResponse]) -> None:
        """Process the values in the session's events; return when a gap says that events were lost."""
        async for frame in frames:
            if frame.WhichOneof("frame") == "gap":
                return
            for event in frame.events.events:
                if event.server_handle == self._server and event.HasField("data_change"):
                    self._take(event.item_serial, event.data_change)

    def _take(self, serial: int, change: DataChange) -> None:
        waiting = self._resolved.get(serial)
        if waiting is not None:
            if _is_good(change) and not waiting.done():
                waiting.set_result(None)
            return
        item = self._items.get(serial)
        if item is None:
            if self._subscribing:
                self._early.append((serial, change))
            return
        watched, name = item
        if any(status.category == MX_STATUS_CATEGORY_PENDING for status in change.statuses):
            return  # the source has no value yet; a later event brings the value
        self._awaited.discard(serial)
        value = from_value(change.value) if _is_good(change) else None
        if name == self._settings.in_alarm:
            watched.in_alarm = None if value is None else bool(value)
        elif name == self._settings.acknowledged:
            watched.acknowledged = None if value is None else bool(value)
        elif isinstance(value, int | float):
            watched.priority = min(max(int(value), MOST_SEVERE), LEAST_SEVERE)
        self._dirty[watched.reference] = watched
        self._news.set()

    async def _leave(self) -> None:
        """Forget all alarms. If the session is ready, unregister the client, which removes the items of the alarms."""
        server, self._server = self._server, 0
        self._items.clear()
        self._awaited.clear()
        self._early.clear()
        self._watched.clear()
        self._dirty.clear()
        if server and self._session.info().state is SessionState.READY:
            try:
                async with asyncio.timeout(_LEAVE_S):
                    command = c.MxCommand(unregister=c.UnregisterCommand(server_handle=server))
                    await self._session.invoke(command, _LEAVE_S)
            except (GatewayError, TimeoutError):
                pass  # the items end together with the session

    # acknowledging alarms

    async def acknowledge(self, alarms: Sequence[Alarm], comment: str, operator: str) -> Sequence[Outcome]:
        """Acknowledge alarms by writing the comment to their acknowledge attribute.

        The attribute has no place for a name, so the operator's name is added to the comment.
        """
        text = f"{comment} ({operator})" if comment and operator else comment or operator
        loop = asyncio.get_running_loop()
        with self._keeping_early():
            items = await self._subscribe([f"{alarm.reference}.{self._settings.acknowledge}" for alarm in alarms])
            resolved = {serial: loop.create_future() for _, serial in items if serial}
            self._resolved.update(resolved)
        try:
            # MXAccess refuses a write to an item whose type is not known yet (docs/reference/mxaccess.md#early-writes).
            if resolved:
                await asyncio.wait(resolved.values(), timeout=FIRST_VALUES_S)
            writes = [c.BulkWrite(item_handle=handle, value=to_value(text)) for handle, _ in items]
            command = c.WriteBulkCommand(server_handle=self._server, writes=writes, wait_for_completion=True)
            reply = await self._session.invoke(c.MxCommand(write_bulk=command), _TIMEOUT_S)
            return [_outcome(item) for item in reply.bulk.items]
        finally:
            for serial in resolved:
                self._resolved.pop(serial, None)
            await self._drop([handle for handle, _ in items if handle])

    async def _drop(self, handles: Sequence[int]) -> None:
        command = c.UnsubscribeBulkCommand(server_handle=self._server, item_handles=handles)
        # When this fails, the items exist until `_leave` unregisters the client.
        with suppress(GatewayError):
            await self._session.invoke(c.MxCommand(unsubscribe_bulk=command), _TIMEOUT_S)


async def discover(
    session: InternalSession, below: str, in_alarm: str, at_most: int, found: Callable[[str], object]
) -> None:
    """Search the address space below `below` for alarms; call `found` with the reference of each alarm.

    An alarm is an attribute that has a sub-attribute named `in_alarm`. The search ends after `at_most` alarms. In a
    backend that cannot be browsed the search finds nothing.
    """
    count = 0
    waiting = [below]
    name = in_alarm.casefold()
    try:
        async with asyncio.timeout(_DISCOVERY_S):
            while waiting and count < at_most:
                for node in await session.browse(waiting.pop()):
                    if node.kind == c.BROWSE_NODE_KIND_ATTRIBUTE and node.name.casefold() == name:
                        found(node.reference[: -len(node.name) - 1])
                        count += 1
                    if node.has_children:
                        waiting.append(node.path)
    except TimeoutError:
        log.warning("looking for alarms took longer than %g s: %d were found so far", _DISCOVERY_S, count)
    except CommandFailed as error:
        log.info("alarms are not looked for: %s", error.message)
    except GatewayError as error:
        log.debug("looking for alarms ended early, with %d found: %s", count, error.message)


def _outcome(item: c.BulkItemResult) -> Outcome:
    failed = [status for status in item.statuses if not status.success]
    if item.hresult >= 0 and failed:
        return outcome_of(-1, item.message, failed[0].raw_detail)
    return outcome_of(item.hresult, item.message or item.reason, 0)


def _is_good(change: DataChange) -> bool:
    return change.quality == QUALITY_GOOD and all(status.success for status in change.statuses)


def _parts(items: Sequence[tuple[_Watched, str]]) -> Iterator[Sequence[tuple[_Watched, str]]]:
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        yield items[start : start + _ITEMS_AT_ONCE]
