"""Alarm records for tests, and clients of the AlarmService that check what they receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from mxgw.convert import timestamp_from_ns
from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1 import alarm_service_pb2_grpc, alarms_pb2
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.session_service_pb2_grpc import SessionServiceStub
from mxgw.v1.values_pb2 import MxValue
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.testing import RunningGateway

UNACK_ALM, ACK_ALM = alarms_pb2.ALARM_STATE_UNACK_ALM, alarms_pb2.ALARM_STATE_ACK_ALM
UNACK_RTN, ACK_RTN = alarms_pb2.ALARM_STATE_UNACK_RTN, alarms_pb2.ALARM_STATE_ACK_RTN
PRIMARY, FALLBACK = alarms_pb2.ALARM_PROVIDER_PRIMARY, alarms_pb2.ALARM_PROVIDER_FALLBACK
NONE = alarms_pb2.ALARM_PROVIDER_NONE


def record(
    reference: str = "T.Level", state: int = UNACK_ALM, *, priority: int = 100, raised: int = 1, **fields: Any
) -> alarms_pb2.Alarm:
    """Return a native alarm record. `raised` is its time in seconds, from which the id of the occurrence is made."""
    alarm = alarms_pb2.Alarm(
        reference=reference,
        alarm_id=fields.pop("alarm_id", f"{reference}#{raised}"),
        state=alarms_pb2.AlarmState.ValueType(state),
        priority=priority,
        raw_priority=priority,
        area=fields.pop("area", "North"),
        **fields,
    )
    if raised:
        alarm.raise_time.CopyFrom(timestamp_from_ns(raised * 1_000_000_000))
    return alarm


def degraded(reference: str = "T.Level", state: int = UNACK_ALM, *, priority: int = 100) -> alarms_pb2.Alarm:
    """Return a record as the fallback provider makes it."""
    return alarms_pb2.Alarm(
        reference=reference,
        alarm_id=f"attributes:{reference}",
        state=alarms_pb2.AlarmState.ValueType(state),
        priority=priority,
        raw_priority=priority,
        degraded=True,
    )


@dataclass
class Reader:
    """One client: it keeps its list of alarms as the contract says, and stores everything that it received."""

    states: dict[str, int] = field(default_factory=dict)
    events: list[alarms_pb2.AlarmEvent] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    snapshots: int = 0
    provider: int = 0
    position: Any = None
    opened: Any = None
    _arriving: dict[str, int] = field(default_factory=dict)

    @property
    def transitions(self) -> list[alarms_pb2.AlarmEvent]:
        return [event for event in self.events if event.HasField("transition")]

    @property
    def providers(self) -> list[int]:
        """All providers that were announced, in order."""
        return [e.provider_changed.current.provider for e in self.events if e.HasField("provider_changed")]

    def take(self, message: pb.StreamAlarmsResponse) -> None:
        """Process one frame, and assert that it fits the frames before."""
        match message.WhichOneof("frame"):
            case "opened":
                self.opened = message.opened
            case "snapshot":
                self._arriving.update((a.alarm.reference, a.alarm.state) for a in message.snapshot.alarms)
            case "snapshot_complete":
                self.states, self._arriving = self._arriving, {}
                self.snapshots += 1
                self.provider = message.snapshot_complete.provider.provider
                self.position = message.snapshot_complete.position
            case "gap":
                self.gaps.append(message.gap)
            case "events":
                for event in message.events.events:
                    self._event(event)

    def _event(self, event: alarms_pb2.AlarmEvent) -> None:
        if self.events:
            assert event.sequence > self.events[-1].sequence
        self.events.append(event)
        if event.HasField("provider_changed"):
            self.provider = event.provider_changed.current.provider
            return
        alarm, before = event.transition.alarm, event.transition.previous_state
        if self.snapshots:
            assert self.states.get(alarm.reference, 0) == before, alarm.reference
        if alarm.state == ACK_RTN:
            self.states.pop(alarm.reference, None)
        else:
            self.states[alarm.reference] = alarm.state


class AlarmClient:
    """A client of the AlarmService on one channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]]) -> None:
        self.stub: Any = alarm_service_pb2_grpc.AlarmServiceStub(channel)
        self.sessions: Any = SessionServiceStub(channel)
        self.metadata = metadata

    async def query(self, **wanted: Any) -> pb.QueryActiveAlarmsResponse:
        """Return the first page of the active alarms."""
        page_size = wanted.pop("page_size", 0)
        request = pb.QueryActiveAlarmsRequest(filter=pb.AlarmFilter(**wanted), page_size=page_size)
        answer: pb.QueryActiveAlarmsResponse = await self.stub.QueryActiveAlarms(
            request, metadata=self.metadata, timeout=60
        )
        return answer

    async def acknowledge(self, *references: str, **fields: Any) -> pb.AcknowledgeAlarmResponse:
        """Acknowledge alarms, and return the answer."""
        request = pb.AcknowledgeAlarmRequest(references=references, **fields)
        answer: pb.AcknowledgeAlarmResponse = await self.stub.AcknowledgeAlarm(
            request, metadata=self.metadata, timeout=60
        )
        return answer

    def stream(self, **fields: Any) -> Any:
        """Open a stream of alarms."""
        return self.stub.StreamAlarms(pb.StreamAlarmsRequest(**fields), metadata=self.metadata)

    async def speaking(self, provider: int, timeout_s: float = 60) -> pb.QueryActiveAlarmsResponse:
        """Wait until this provider reports the alarms."""
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await self.query()
                if answer.provider.provider == provider:
                    return answer
                await asyncio.sleep(0.02)


async def control(gateway: RunningGateway, name: str, value: bool) -> None:
    """Write to a control item of the simulator from which the gateway gets its alarms.

    The command is sent to the worker directly, because the gateway refuses commands of others for this session.
    """
    registry = gateway.app.gateway._registry

    assert registry is not None

    (session,) = [s for s in registry.live() if s.request.is_internal]

    async def invoke(**command: Any) -> c.MxReply:
        reply = (await call_worker(session, w.CommandRequest(mx=c.MxCommand(**command)), 60)).mx

        assert reply.hresult == 0, reply

        return reply

    server = (await invoke(register=c.RegisterCommand(client_name="test"))).server_handle
    item = c.AddItemCommand(server_handle=server, item_definition=f"Sim.{name}")
    handle = (await invoke(add_item=item)).item_handle
    await invoke(advise_supervisory=c.AdviseSupervisoryCommand(server_handle=server, item_handle=handle))
    read = c.ReadBulkCommand(server_handle=server, items=[c.ItemReference(item_definition=f"Sim.{name}")])
    await invoke(read_bulk=read)
    await invoke(
        write=c.WriteCommand(
            server_handle=server, item_handle=handle, value=MxValue(boolean=value), wait_for_completion=True
        )
    )
    await invoke(unregister=c.UnregisterCommand(server_handle=server))


@asynccontextmanager
async def alarm_client(target: str, key: str = "") -> AsyncIterator[AlarmClient]:
    """Connect to the AlarmService of a gateway."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 26))
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield AlarmClient(channel, metadata)


@asynccontextmanager
async def reading(stream: Any) -> AsyncIterator[tuple[Reader, Callable[[Callable[[Reader], bool]], Any]]]:
    """Read a stream in a task during the block.

    Yield its reader, and a function that waits for a condition on the reader.
    """
    reader, news = Reader(), asyncio.Event()

    async def read() -> None:
        async for message in stream:
            reader.take(message)
            news.set()

    async def until(wanted: Callable[[Reader], bool], timeout_s: float = 60) -> None:
        async with asyncio.timeout(timeout_s):
            while not wanted(reader):
                news.clear()
                await news.wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(read())
        try:
            yield reader, until
        finally:
            stream.cancel()
            task.cancel()


def settings(**overrides: object) -> Mapping[str, object]:
    """Return settings of a gateway with alarms and short delays.

    The names of `overrides` are keys of `plugins.alarms`. A name with `__` is a full key, with `__` in place of dots.
    """
    found: dict[str, object] = {
        "plugins.enabled": ["alarms"],
        "plugins.alarms.poll_interval_s": 0.05,
        "plugins.alarms.probe_interval_s": 0.1,
        "plugins.alarms.settle_s": 0.05,
        "plugins.alarms.restart_first_s": 0.05,
        "backends.sim.controls": True,
        "backends.sim.alarms": 40,
        "backends.sim.alarm_rate": 0.0,
        "backends.sim.alarm_share": 0.5,
        "backends.sim.resolve_delay_s": 0.0,
        "backends.sim.completion_delay_s": 0.0,
    }
    for name, value in overrides.items():
        found[name.replace("__", ".") if "__" in name else f"plugins.alarms.{name}"] = value
    return found
