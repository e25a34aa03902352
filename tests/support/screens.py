"""A gateway for the dashboard's screens that returns data written in a test, and a clock that a test moves.

This module has more than 400 lines. Most of them describe the example plant, which all screens use.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message
from textual import events
from textual.app import App

from mxgw.convert import duration_from_seconds, timestamp_from_ns, to_value
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import alarm_service_pb2, alarms_pb2
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import gateway_service_pb2 as gw
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1 import values_pb2 as v
from mxgw_dashboard_tui.tui.app import DashboardApp
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.source import Listener, NotServed, NotThere, Refused

_M = TypeVar("_M", bound=Message)

# 2026-03-02 08:00:00 UTC
EPOCH_NS = 1_772_438_400 * 10**9
SECOND_NS = 10**9


@dataclass
class Clock:
    """A clock in seconds that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class WrittenSource:
    """A source of data for the dashboard that returns snapshots made before.

    `done` records the actions of operators.
    """

    script: Sequence[pb.WatchGatewayResponse | tuple[Link, str]]
    clock: Clock
    detail: pb.WatchSessionResponse | None = None
    events: Sequence[pb.WatchEventsResponse] = ()
    items: pb.ListItemsResponse | None = None
    settings: pb.ListSettingsResponse | None = None
    audit: Sequence[pb.WatchAuditResponse] | None = None
    # The messages of the alarm stream; None when the gateway has no alarms.
    alarms: Sequence[alarm_service_pb2.StreamAlarmsResponse] | None = None
    acknowledged: alarm_service_pb2.AcknowledgeAlarmResponse | None = None
    refusal: str = ""
    password: str = ""
    name: str = "plant-gw:50051"
    is_recording: bool = False
    done: list[tuple[str, str]] = field(default_factory=list)

    async def run(self, listener: Listener) -> None:
        for step in self.script:
            if isinstance(step, tuple):
                listener.link_changed(*step)
            else:
                listener.link_changed(Link.LIVE, "")
                listener.snapshot_arrived(step)
                self.clock.now += 1.0
        self.clock.now -= 0.6
        await asyncio.Event().wait()

    async def login(self, user: str, password: str, /) -> None:
        if not self.password or password != self.password:
            raise Refused("name or password is wrong")
        self.done.append(("login", user))

    async def logout(self) -> None:
        self._act("logout", "")

    async def ask(self, method: str, request: Message, answer: type[_M], /) -> _M:
        if isinstance(request, alarm_service_pb2.AcknowledgeAlarmRequest) and self.acknowledged is not None:
            self._act("acknowledge", f"{','.join(request.references)}: {request.comment}")
            assert isinstance(self.acknowledged, answer)
            return self.acknowledged
        raise Refused(f"nothing is written for {method}")

    async def follow(self, method: str, request: Message, answer: type[_M], /) -> AsyncIterator[_M]:
        del request
        if not method.endswith("/StreamAlarms"):
            raise Refused(f"nothing is written for {method}")
        if self.alarms is None:
            raise NotServed("unknown service")
        for message in self.alarms:
            assert isinstance(message, answer)
            yield message
        await asyncio.Event().wait()

    async def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        if self.audit is None:
            raise Refused("you may look, not read the audit log: that needs the role administrator")
        for message in self.audit:
            yield message
        await asyncio.Event().wait()

    async def watch_session(self, session_id: str, /) -> AsyncIterator[pb.WatchSessionResponse]:
        if self.detail is None:
            raise NotThere(f"no session {session_id}")
        yield self.detail
        await asyncio.Event().wait()

    async def watch_events(self, session_id: str, /) -> AsyncIterator[pb.WatchEventsResponse]:
        if self.detail is None:
            raise NotThere(f"no session {session_id}")
        for message in self.events:
            yield message
        await asyncio.Event().wait()

    async def list_items(self, session_id: str, page_token: str, /) -> pb.ListItemsResponse:
        if self.items is None:
            raise NotThere(f"no session {session_id}{page_token}")
        return self.items

    async def list_settings(self) -> pb.ListSettingsResponse:
        if self.settings is None:
            raise Refused("you may look, not read the settings: that needs the role administrator")
        return self.settings

    async def close_session(self, session_id: str, /) -> None:
        self._act("close", session_id)

    async def kill_worker(self, session_id: str, /) -> None:
        self._act("kill", session_id)

    def _act(self, what: str, session_id: str) -> None:
        if self.refusal:
            raise Refused(self.refusal)
        self.done.append((what, session_id))

    async def close(self) -> None:
        self.done.append(("closed", ""))


def app_of(source: WrittenSource, *, theme: str = "dark") -> DashboardApp:
    """Return the dashboard app on this source, with the clock of the source."""
    return DashboardApp(source, theme=theme, clock=source.clock, wall=lambda: source.clock.now)


_CHARACTERS = {"enter": "\r", "slash": "/", "colon": ":", "question_mark": "?", "space": " "}


def at_once(app: App[Any], *keys: str) -> None:
    """Press several keys at once, as if the terminal had read all of them before it processes the first one."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else _CHARACTERS.get(key)))


def row(name: str, number: int, *, seconds: int = 0, rate: float = 10.0, **fields: object) -> pb.SessionRow:
    """Return the row of a session as it is after `seconds`. `fields` set fields of the Session or of the row."""
    own = {key: value for key, value in fields.items() if key in pb.SessionRow.DESCRIPTOR.fields_by_name}
    session = ss.Session(
        session_id=f"{name.lower().replace(' ', '-')[:12]}-{number:04}-Zq8",
        state=ss.SESSION_STATE_READY,
        client_name=name,
        owner="key-7",
        backend="mxaccess",
        opened_at=timestamp_from_ns(EPOCH_NS - (3600 + 61 * number) * SECOND_NS),
        lease_expires_at=timestamp_from_ns(EPOCH_NS + 1800 * SECOND_NS),
        epoch=bytes([number]) * 16,
        head_sequence=1_000 + int(rate * (seconds + math.sin(seconds * 0.7))),
        oldest_sequence=1,
        log_events=900,
        log_bytes=90_000,
        subscribers=1,
        worker_pid=4_000 + number,
        worker_state=e.WORKER_STATE_READY,
        source_health=e.SOURCE_HEALTH_GOOD,
        worker_rss_bytes=29 * 1024 * 1024,
    )
    for key, value in fields.items():
        if key not in own:
            setattr(session, key, value)
    return pb.SessionRow(session=session, **own)  # type: ignore[arg-type]


def plant(seconds: int) -> list[pb.SessionRow]:
    """Return the sessions of the example plant as they are after `seconds`."""
    return [
        row("historian line 1", 1, seconds=seconds, rate=1250, tag="line1", lag_events=12),
        row("hmi tank farm", 2, seconds=seconds, rate=42, tag="tanks", subscribers=3),
        row("mes batch", 3, seconds=seconds, rate=7, tag="line2", subscribers=0, detached=duration_from_seconds(95)),
        row(
            "energy report", 4, seconds=seconds, rate=310, tag="energy",
            lag_events=48_210, lag_age=duration_from_seconds(9.5), overflows=3,
            gap_frames=seconds // 4, lost_events=120 * (seconds // 4),
        ),
        row("lab import", 5, seconds=seconds, rate=0, tag="lab", source_health=e.SOURCE_HEALTH_LOST),
        row("[red]odd\x1b[31m[/]" + "x" * 300, 6, seconds=seconds, rate=1, tag="[bold]", owner="a\nb"),
    ]  # fmt: skip


def snapshot(
    seconds: int, sessions: Sequence[pb.SessionRow] | None = None, role: pb.Role.ValueType = pb.ROLE_ADMINISTRATOR
) -> pb.WatchGatewayResponse:
    """Return the message of the gateway after `seconds`."""
    sessions = plant(seconds) if sessions is None else sessions
    message = pb.WatchGatewayResponse(
        as_of=timestamp_from_ns(EPOCH_NS + seconds * SECOND_NS),
        interval=duration_from_seconds(1),
        instance_id="0011223344556677",
        version="0.1.0",
        started_at=timestamp_from_ns(EPOCH_NS - 93_784 * SECOND_NS),
        operator="anna",
        role=role,
        sessions=sessions,
        session_limit=64,
        memory_bytes=3 * 1024 * 1024,
        memory_limit_bytes=1024 * 1024 * 1024,
        session_count=len(sessions),
        process=pb.GatewayProcess(
            pid=3999,
            rss_bytes=66 * 1024 * 1024,
            cpu_time=duration_from_seconds(100 + seconds * 0.07 + math.sin(seconds * 0.4) * 0.06),
            loop_delay=duration_from_seconds(0.002),
            watchers=1,
        ),
        backends=["mxaccess", "sim"],
    )
    if sessions:
        message.plugins.extend(_plugins())
        message.ended.extend(_ended())
        message.journal.extend(_journal())
    return message


def _plugins() -> list[pb.PluginRow]:
    made = []
    for name, state, detail, failures in (
        ("acl", gw.PLUGIN_STATE_LOADED, "", {}),
        ("backpressure", gw.PLUGIN_STATE_LOADED, "", {"mxgw_overflow_policy": 3}),
        ("site-rules", gw.PLUGIN_STATE_FAILED, "it needs the module 'yaml', which is not installed", {}),
        ("dashboard_tui", gw.PLUGIN_STATE_LOADED, "", {}),
        ("reattach", gw.PLUGIN_STATE_AVAILABLE, "", {}),
    ):
        plugin = gw.PluginInfo(
            name=name, state=state, distribution="mxgw", version="0.1.0", required=name == "acl", detail=detail
        )
        made.append(pb.PluginRow(plugin=plugin, hook_failures=failures))
    return made


def _ended() -> list[ss.Session]:
    session = row("pump tuning", 9, tag="line2").session
    session.state = ss.SESSION_STATE_FAULTED
    session.close_reason = ss.CLOSE_REASON_WORKER_EXITED
    session.close_detail = "the worker process was ended by signal 9"
    session.closed_at.CopyFrom(timestamp_from_ns(EPOCH_NS - 130 * SECOND_NS))
    return [session]


def _journal() -> list[pb.JournalEntry]:
    told = (
        (-130, pb.JOURNAL_KIND_SESSION_FAULTED, "pump tuning", "", "WORKER_EXITED: ended by signal 9"),
        (-95, pb.JOURNAL_KIND_SESSION_DETACHED, "mes batch", "", "its last subscriber left"),
        (-40, pb.JOURNAL_KIND_LOGIN, "", "anna", "from 10.0.0.17:51234"),
        (-12, pb.JOURNAL_KIND_OPERATOR_ACTION, "lab import", "vera", "refused: close sessions"),
    )  # fmt: skip
    return [
        pb.JournalEntry(
            number=number,
            time=timestamp_from_ns(EPOCH_NS + seconds * SECOND_NS),
            kind=kind,
            session_id=name,
            session_name=name,
            operator=operator,
            detail=detail,
        )
        for number, (seconds, kind, name, operator, detail) in enumerate(told, 1)
    ]


def written(
    sessions: Sequence[pb.SessionRow] | None = None,
    *,
    looks: int = 12,
    role: pb.Role.ValueType = pb.ROLE_ADMINISTRATOR,
    hostile: bool = True,
) -> WrittenSource:
    """Return a source with `looks` snapshots of the plant, and with the details of one of its sessions."""
    told = [
        snapshot(seconds, plant(seconds)[: None if hostile else -1] if sessions is None else sessions, role)
        for seconds in range(looks)
    ]
    source = WrittenSource(told, Clock())
    now = EPOCH_NS + (looks - 1) * SECOND_NS
    source.detail = pb.WatchSessionResponse(
        as_of=timestamp_from_ns(now),
        row=plant(looks - 1)[1],
        subscribers=ss.ListSubscribersResponse(
            subscribers=[_subscriber("hmi 1", 0, 0), _subscriber("hmi 2", 2_400, 511), _subscriber("trend", 3, 0)],
            maximum_subscribers=8,
        ),
        commands=[pb.CommandInFlight(name="write", age=duration_from_seconds(7.2))],
        timeline=_journal()[1:2],
    )
    source.items = pb.ListItemsResponse(as_of=timestamp_from_ns(now), state=_state(now))
    if not hostile:
        del source.items.state.items[-1]
    source.events = [
        pb.WatchEventsResponse(
            as_of=timestamp_from_ns(now),
            events=[_event(n, 1 + n % 3, 40.0 + n / 8, now - (20 - n) * SECOND_NS // 4) for n in range(1000, 1020)],
            gaps=[
                e.Gap(first_lost=990, last_lost=999, count=10, reason=e.GAP_REASON_WORKER_OUTBOX_OVERRUN, detail="slow")
            ],
            conflated_events=37,
            head_sequence=1019,
        )
    ]
    source.audit = [pb.WatchAuditResponse(as_of=timestamp_from_ns(now), kept=True, entries=_audit())]
    source.alarms = plant_alarms(now)
    source.settings = pb.ListSettingsResponse(
        settings=[
            pb.Setting(key="gateway.listen", value='["0.0.0.0:50051"]', origin="/etc/mxgw/settings.toml"),
            pb.Setting(key="limits.sessions", value="64", origin="default"),
            pb.Setting(key="plugins.acl.ldap.password", value='"***"', origin=".secrets.toml"),
        ]
    )
    return source


def plant_alarms(
    now: int, provider: alarms_pb2.AlarmProvider.ValueType = alarms_pb2.ALARM_PROVIDER_PRIMARY
) -> list[alarm_service_pb2.StreamAlarmsResponse]:
    """Return the messages of the alarm stream: the active alarms of the plant, and a few changes."""

    def alarm(
        reference: str, state: alarms_pb2.AlarmState.ValueType, priority: int, ago_s: float, **fields: object
    ) -> alarms_pb2.Alarm:
        return alarms_pb2.Alarm(
            reference=reference,
            state=state,
            priority=priority,
            area=str(fields.pop("area", "Tank farm")),
            alarm_type="Hi",
            description="level above its limit",
            value=to_value(fields.pop("value", 91.5)),  # type: ignore[arg-type]
            limit=to_value(90.0),
            raise_time=timestamp_from_ns(int(now - ago_s * SECOND_NS)),
            **fields,  # type: ignore[arg-type]
        )

    unacked, acked = alarms_pb2.ALARM_STATE_UNACK_ALM, alarms_pb2.ALARM_STATE_ACK_ALM
    returned, over = alarms_pb2.ALARM_STATE_UNACK_RTN, alarms_pb2.ALARM_STATE_ACK_RTN
    active = [
        alarm("Tank_001.Level", unacked, 100, 95),
        alarm("Tank_002.Level", acked, 200, 4000, operator="anna", comment="pump is on its way"),
        alarm("Boiler_001.Pressure", returned, 50, 610, area="Boilers", value=17),
        alarm("Boiler_001.Oxygen", unacked, 700, 3.2, area="Boilers", stale=True),
        alarm("[red]Odd\x1b[31m[/]", unacked, 999, 90_000, area="[bold]", operator="a\nb", comment="x" * 300),
    ]
    active[3].ClearField("limit")
    raised, acknowledged = alarms_pb2.ALARM_EVENT_KIND_RAISED, alarms_pb2.ALARM_EVENT_KIND_ACKNOWLEDGED
    cleared = alarms_pb2.ALARM_EVENT_KIND_CLEARED
    events = [
        alarms_pb2.AlarmEvent(
            sequence=number,
            alarm_handle=number + 100,
            kind=kind,
            transition=alarms_pb2.AlarmTransition(alarm=changed, gateway_time=timestamp_from_ns(now - 5 * SECOND_NS)),
        )
        for number, (kind, changed) in enumerate(
            [
                (raised, alarm("Pump_001.Trip", unacked, 10, 5, area="Pumps")),
                (acknowledged, alarm("Tank_003.Level", acked, 300, 100, operator="vera")),
                (cleared, alarm("Tank_003.Level", over, 300, 100)),
            ],
            1,
        )
    ]
    status = alarms_pb2.ProviderStatus(
        provider=provider,
        detail="the alarm manager: it answers",
        since=timestamp_from_ns(EPOCH_NS - 3600 * SECOND_NS),
        backend="mxaccess",
    )
    answer = alarm_service_pb2.StreamAlarmsResponse
    return [
        answer(
            snapshot=alarms_pb2.AlarmSnapshot(
                alarms=[alarms_pb2.ActiveAlarm(alarm_handle=n, alarm=each) for n, each in enumerate(active, 2)]
            )
        ),
        answer(snapshot_complete=alarms_pb2.AlarmSnapshotComplete(provider=status)),
        answer(events=alarms_pb2.AlarmBatch(events=events)),
    ]


def _audit() -> list[pb.AuditEntry]:
    told = (
        (-95, "operator:anna", "login", "allowed", "", "administrator", ""),
        (-60, "key:k7Hq2mX9", "OpenSession", "allowed", "", "", "line1"),
        (-58, "key:k7Hq2mX9", "Invoke write", "denied", "1 items: not within --write", "Boiler_001.Setpoint", "line1"),
        (-12, "operator:vera", "CloseSession", "denied", "only administrators may make this call", "", "lab"),
        (-3, "claimed:\\x1b[31mowned", "StreamEvents", "denied", "no such key", "", ""),
    )  # fmt: skip
    return [
        pb.AuditEntry(
            time=timestamp_from_ns(EPOCH_NS + seconds * SECOND_NS),
            actor=actor,
            action=action,
            decision=decision,
            reason=reason,
            peer="10.0.0.17:51234",
            session_id="lab-import-0005-Zq8" if tag else "",
            tag=tag,
            detail=detail,
            correlation_id=f"c0ffee{-seconds:02}",
        )
        for seconds, actor, action, decision, reason, detail, tag in told
    ]


def _subscriber(name: str, lag: int, lost: int) -> ss.Subscriber:
    return ss.Subscriber(
        subscriber_id=f"id-{name}",
        client_name=name,
        address="10.0.0.21:40122",
        attached_at=timestamp_from_ns(EPOCH_NS - 600 * SECOND_NS),
        policy="drop_oldest",
        limits=ss.SubscriberLimits(events=10_000),
        lag_events=lag,
        lag_age=duration_from_seconds(lag / 400),
        delivered_events=21_345,
        lost=[ss.LostEvents(reason=e.GAP_REASON_QUEUE_DROPPED, events=lost)] if lost else [],
    )


def _state(now: int) -> ss.GetSessionStateResponse:
    def item(
        handle: int, name: str, value: float | str | None, quality: int, ago_s: int, status: int = 0
    ) -> ss.ItemState:
        change = e.DataChange(
            value=to_value(value),
            quality={192: v.QUALITY_GOOD, 80: v.QUALITY_UNCERTAIN}.get(quality, v.QUALITY_BAD),
            raw_quality=quality,
            source_time=timestamp_from_ns(now - ago_s * SECOND_NS),
            statuses=[
                v.MxStatus(success=0 if status else 1, detail=v.MxStatusDetail.ValueType(status + 1), raw_detail=status)
            ],
        )
        return ss.ItemState(
            server_handle=1, item_handle=handle, item_serial=handle, item_definition=name, advise=ss.ADVISE_KIND_PLAIN,
            last_sequence=900, last_value=change,
        )  # fmt: skip

    items = [
        item(1, "Tank_001.Level", 42.7, 192, 0),
        item(2, "Tank_002.Level", 66.17, 192, 2),
        item(3, "Boiler_001.Oxygen", 4.3, 80, 1),
        item(4, "Pump_001.Running", "yes", 192, 4000),
        item(5, "Nope.Nothing", None, 0, 3600, 6),
        item(6, "Text.Hostile", "[blink]\x1b]0;owned\x07" + "y" * 10_000, 192, 5),
    ]
    return ss.GetSessionStateResponse(items=items, total_items=len(items))


def _event(sequence: int, handle: int, value: float, worker_ns: int) -> e.Event:
    return e.Event(
        sequence=sequence,
        item_serial=handle,
        item_handle=handle,
        kind=e.EVENT_KIND_DATA_CHANGE,
        server_handle=1,
        worker_time=timestamp_from_ns(worker_ns),
        data_change=e.DataChange(value=to_value(value), quality=v.QUALITY_GOOD, raw_quality=192),
    )
