"""Observation.metrics on real gateways: what is counted, that nothing counted ever falls, and that no label grows."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.clients import Client, client_of, read_events, read_to_the_end, refused
from support.distributing import Told
from support.overflowing import RecordingPump
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.event_service_pb2 import StartPosition
from mxgw.v1.events_pb2 import Position
from mxgw.v1.gateway_service_pb2 import PingRequest
from mxgw_core.api import (
    AccessRequest,
    Allow,
    AuthenticationRequest,
    Decision,
    Deny,
    Distribution,
    Identity,
    Metric,
    MetricBuckets,
    MetricKind,
    MetricSample,
    Operator,
    OperatorCredentials,
    Peer,
    QueueLimits,
    hookimpl,
)
from mxgw_core.api.errors import AccessRevoked, DependencyUnavailable, TooManyAttempts, Unauthenticated
from mxgw_core.api.events import Block, Disconnect
from mxgw_core.api.metrics import counter, gauge
from mxgw_core.events.counts import STALL
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.metrics.streams import LabelLimit
from mxgw_core.testing import RunningGateway, running_gateway

LOAD: dict[str, object] = {
    "backends.sim.profile": "load",
    "backends.sim.items": 10,
    "backends.sim.rate": 2000.0,
    "plugins.enabled": ["backpressure", "replay"],
}
NAMES = [f"Load.Item{number:05d}" for number in range(1, 11)]
STREAM = "/mxgw.v1.EventService/StreamEvents"
PING = "/mxgw.v1.GatewayService/Ping"

Counters = Mapping[tuple[str, tuple[str, ...]], float]


def metrics_of(gateway: RunningGateway) -> dict[str, Metric]:
    return {metric.name: metric for metric in gateway.api.observation.metrics()}


def value(gateway: RunningGateway, name: str, *labels: str) -> float:
    found = [sample.value for sample in metrics_of(gateway)[name].samples if sample.labels == labels]

    assert len(found) == 1, (name, labels, metrics_of(gateway)[name].samples)
    assert isinstance(found[0], int | float)

    return found[0]


def buckets(gateway: RunningGateway, name: str, *labels: str) -> MetricBuckets:
    (found,) = [sample.value for sample in metrics_of(gateway)[name].samples if sample.labels == labels]

    assert isinstance(found, MetricBuckets)

    return found


def counters_of(gateway: RunningGateway) -> Counters:
    """Return everything that must never fall."""
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for metric in metrics_of(gateway).values():
        for sample in metric.samples:
            if isinstance(sample.value, MetricBuckets):
                found[metric.name, sample.labels] = sample.value.count
                found[f"{metric.name}_sum", sample.labels] = sample.value.sum
            elif metric.kind is MetricKind.COUNTER:
                found[metric.name, sample.labels] = sample.value
    return found


async def loaded(client: Client, **fields: Any) -> ss.Session:
    session = await client.open(**fields)
    await client.subscribe(session.session_id, NAMES)
    return session


# values


@pytest.mark.parametrize(
    ("name", "kind", "labels", "samples"),
    [
        ("Upper_total", MetricKind.COUNTER, (), ()),
        ("mxgw-x", MetricKind.GAUGE, (), ()),
        ("mxgw_x", MetricKind.COUNTER, (), ()),
        ("mxgw_x_total", MetricKind.GAUGE, (), ()),
        ("mxgw_x_bucket", MetricKind.GAUGE, (), ()),
        ("mxgw_x", MetricKind.GAUGE, ("session_id",), ()),
        ("mxgw_x", MetricKind.GAUGE, ("item",), ()),
        ("mxgw_x", MetricKind.GAUGE, ("key",), ()),
        ("mxgw_x", MetricKind.HISTOGRAM, ("le",), ()),
        ("mxgw_x", MetricKind.GAUGE, ("a",), (MetricSample(1),)),
        ("mxgw_x", MetricKind.GAUGE, (), (MetricSample(1, ("a",)),)),
        ("mxgw_x", MetricKind.HISTOGRAM, (), (MetricSample(1),)),
        ("mxgw_x", MetricKind.GAUGE, (), (MetricSample(MetricBuckets((), (), 0, 0.0)),)),
        ("mxgw_x_total", MetricKind.COUNTER, (), (MetricSample(-1),)),
        ("mxgw_x_total", MetricKind.COUNTER, (), (MetricSample(float("nan")),)),
    ],
)
def test_a_metric_that_would_not_be_read_or_would_grow_cannot_be_made(
    name: str, kind: MetricKind, labels: tuple[str, ...], samples: Sequence[MetricSample]
) -> None:
    with pytest.raises(ValueError, match=r"metric|counter|label|histogram"):
        Metric(name, kind, "text", labels, samples)


@pytest.mark.parametrize(
    ("bounds", "counts", "count"), [((1, 2), (1,), 1), ((2, 1), (1, 1), 1), ((1, 2), (2, 1), 2), ((1,), (2,), 1)]
)
def test_buckets_that_contradict_themselves_cannot_be_made(
    bounds: Sequence[float], counts: Sequence[int], count: int
) -> None:
    with pytest.raises(ValueError, match="histogram"):
        MetricBuckets(bounds, counts, count, 0.0)


def test_a_distribution_counts_each_observation_where_it_belongs() -> None:
    one, other = Distribution((1, 10)), Distribution((1, 10))
    for size in (0, 1, 1.5, 10, 11):
        one.observe(size)
    other.observe(5)
    one.add(other)

    assert one.buckets() == MetricBuckets((1, 10), [2, 5], 6, 28.5)


def test_labels_beyond_the_limit_are_added_up_and_the_first_ones_stay() -> None:
    limit = LabelLimit(most=2)
    first = limit.samples("m", {("b",): 1})
    many = limit.samples("m", {("z",): 2, ("b",): 1, ("c",): 4, ("d",): 8})

    assert first == [MetricSample(1, ("b",))]
    assert many == [MetricSample(1, ("b",)), MetricSample(12, ("other",)), MetricSample(2, ("z",))]
    assert limit.samples("another", {("c",): 4}) == [MetricSample(4, ("c",))]


def test_a_pump_stall_counts_while_it_lasts_and_no_less_afterwards() -> None:
    pump = RecordingPump()
    distributor = pump.distributor
    slow = pump.attach(limits=QueueLimits(1, 0, 0.0), policy=Told(Block(60.0, then=Disconnect())))
    pump.happen(1, 1)
    seen = []
    for step_s in (0.0004, 0.0004, 1.2345, 0.0006):
        pump.clock.now += step_s
        seen.append(distributor.totals().counts[STALL,])
    distributor.detach(slow)
    seen.append(distributor.totals().counts[STALL,])

    assert seen == [0, 0, 1235, 1235, 1236]


# sessions and events


@pytest.mark.asyncio
async def test_no_counter_ever_falls_while_sessions_end_in_every_way() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        before = counters_of(gateway)

        def check() -> None:
            nonlocal before
            now = counters_of(gateway)
            fallen = {key: (old, now.get(key)) for key, old in before.items() if now.get(key, -1) < old}

            assert not fallen

            before = now

        sessions = [await loaded(client) for _ in range(4)]
        streams = [client.stream(session.session_id) for session in sessions]
        for stream in streams:
            await read_events(stream, 50)
            check()
        # One by its client while somebody reads, one by a fault, one after its reader left.
        streams[2].cancel()
        os.kill(sessions[1].worker_pid, signal.SIGKILL)
        await client.close(sessions[0].session_id)
        check()
        await read_to_the_end(streams[0], lambda _: check())
        await read_to_the_end(streams[1], lambda _: check())
        await client.close(sessions[2].session_id)
        check()

        def has_settled() -> bool:
            check()
            return len(gateway.api.sessions()) == 1 and not gateway.app.gateway._registry.totals._lingering

        await until(has_settled)

        assert value(gateway, "mxgw_sessions_ended_total", "CLIENT") == 2
        assert value(gateway, "mxgw_sessions_ended_total", "WORKER_EXITED") == 1
        assert value(gateway, "mxgw_worker_starts_total", "ready") == 4


@pytest.mark.asyncio
async def test_what_a_session_that_ended_took_and_gave_is_still_counted() -> None:
    async with running_gateway({**LOAD, "backends.sim.rate": 0}) as gateway, client_of(gateway.target) as client:
        session = await loaded(client)
        stream = client.stream(session.session_id)
        await read_events(stream, 10)
        await client.close(session.session_id)
        await read_to_the_end(stream)
        await until(lambda: not gateway.api.sessions())

        assert value(gateway, "mxgw_events_received_total") == 10
        assert value(gateway, "mxgw_events_delivered_total") == 10
        assert value(gateway, "mxgw_events_delivered_bytes_total") > 0
        assert value(gateway, "mxgw_subscriber_disconnects_total", "SESSION_CLOSED") == 1
        assert value(gateway, "mxgw_sessions", "ready") == 0


@pytest.mark.asyncio
async def test_who_still_reads_when_a_session_has_ended_is_counted_once_and_to_the_end() -> None:
    async with running_gateway({**LOAD, "backends.sim.rate": 0}) as gateway, client_of(gateway.target) as client:
        session = await loaded(client)
        await until(lambda: value(gateway, "mxgw_events_received_total") == 10)
        distributor = gateway.app.gateway._registry.find(session.session_id).distributor
        limits = QueueLimits(1000, 1 << 20, 0.0)
        reader = distributor.attach("late", Start.OLDEST_RETAINED, limits=limits, policy=DisconnectPolicy())
        await client.close(session.session_id)
        await until(lambda: not gateway.api.sessions())
        counts = [value(gateway, "mxgw_events_delivered_total")]
        reader.take(1 << 20)
        counts += [value(gateway, "mxgw_events_delivered_total") for _ in range(3)]
        distributor.detach(reader)
        counts += [value(gateway, "mxgw_events_delivered_total") for _ in range(3)]

        assert counts == [0, *[10] * 6]
        assert value(gateway, "mxgw_events_received_total") == 10


@pytest.mark.asyncio
async def test_a_mirror_of_the_gateway_s_own_is_no_subscriber_and_nothing_is_delivered_to_it() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session = await loaded(client)
        async with gateway.api.observation.watch(session.session_id, 0.01) as frames:
            await anext(aiter(frames))

            assert value(gateway, "mxgw_events_delivered_total") == 0
            assert not metrics_of(gateway)["mxgw_subscribers"].samples
            assert value(gateway, "mxgw_gap_frames_total", "CONFLATED") == 0


@pytest.mark.asyncio
async def test_resumes_gaps_and_losses_are_counted_by_completeness_and_reason() -> None:
    async with running_gateway({**LOAD, "backends.sim.rate": 0}) as gateway, client_of(gateway.target) as client:
        session = await loaded(client)
        stream = client.stream(session.session_id)
        frames, _ = await read_events(stream, 10)
        epoch = frames[0].opened.epoch
        stream.cancel()
        for sequence in (4, 1000):
            await until(lambda: not metrics_of(gateway)["mxgw_subscribers"].samples)
            stream = client.stream(session.session_id, StartPosition(after=Position(epoch=epoch, sequence=sequence)))
            await stream.read()
            await stream.read()
            stream.cancel()

        assert value(gateway, "mxgw_resume_total", "true") == 1
        assert value(gateway, "mxgw_resume_total", "false") == 1
        assert value(gateway, "mxgw_gap_frames_total", "CURSOR_AHEAD") == 1
        assert buckets(gateway, "mxgw_resume_replayed_events") == MetricBuckets(
            (0, 10, 100, 1_000, 10_000, 100_000), [1, 2, 2, 2, 2, 2], 2, 6.0
        )


@pytest.mark.asyncio
async def test_a_reader_that_stands_still_shows_as_lag_by_its_policy_and_then_as_overflow() -> None:
    settings = {**LOAD, "backends.sim.rate": 20_000.0, "events.overflow_drain_s": 0.1}
    options = (("grpc.http2.bdp_probe", 0),)
    async with running_gateway(settings) as gateway, client_of(gateway.target, options=options) as client:
        session = await loaded(client)
        policy = es.OverflowPolicyChoice(name="drop_newest")
        stream = client.stream(session.session_id, policy=policy)
        await stream.read()
        await until(lambda: value(gateway, "mxgw_subscriber_lag_events", "drop_newest") > 1000)

        assert value(gateway, "mxgw_subscribers", "drop_newest") == 1
        assert value(gateway, "mxgw_subscriber_lag_seconds", "drop_newest") > 0

        await until(lambda: dict(_overflows(gateway)).get(("drop_newest", "DropNewest"), 0) > 0)

        assert value(gateway, "mxgw_subscriber_queue_bytes", "drop_newest") > 0


def _overflows(gateway: RunningGateway) -> list[tuple[tuple[str, ...], Any]]:
    return [(s.labels, s.value) for s in metrics_of(gateway)["mxgw_subscriber_overflow_total"].samples]


@pytest.mark.asyncio
async def test_a_worker_that_cannot_start_is_counted_and_none_of_it_is_a_duration() -> None:
    settings = {"backends.default": "away", "backends.away.kind": "sim", "backends.away.profile": "no_such_profile"}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        await refused(client.sessions.OpenSession(ss.OpenSessionRequest()))

        assert value(gateway, "mxgw_worker_starts_total", "failed") == 1
        assert value(gateway, "mxgw_worker_starts_total", "ready") == 0
        assert buckets(gateway, "mxgw_worker_start_duration_seconds").count == 0
        await until(lambda: value(gateway, "mxgw_sessions_ended_total", "WORKER_START_FAILED") == 1)


@pytest.mark.asyncio
async def test_no_label_names_a_session_a_client_an_item_or_a_subscriber() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session = await loaded(client, name="secret-client", tag="secret-tag")
        stream = client.stream(session.session_id, client_name="secret-client")
        await read_events(stream, 10)
        subscribers = (
            await client.sessions.ListSubscribers(ss.ListSubscribersRequest(session_id=session.session_id))
        ).subscribers
        text = repr(gateway.api.observation.metrics())

        for secret in (session.session_id, "secret-client", "secret-tag", "Load.Item", subscribers[0].subscriber_id):
            assert secret not in text


# calls


@pytest.mark.asyncio
async def test_calls_are_counted_by_method_and_code_and_unary_ones_timed() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        for _ in range(3):
            await client.gateway.Ping(PingRequest())
        await refused(client.sessions.GetSession(ss.GetSessionRequest(session_id="unknown")))
        session = await loaded(client)
        stream = client.stream(session.session_id)
        await stream.read()

        assert value(gateway, "mxgw_rpc_running", STREAM) == 1

        stream.cancel()
        await until(lambda: value(gateway, "mxgw_rpc_running", STREAM) == 0)

        assert value(gateway, "mxgw_rpc_requests_total", PING, "OK") == 3
        assert buckets(gateway, "mxgw_rpc_duration_seconds", PING).count == 3
        assert 0 < buckets(gateway, "mxgw_rpc_duration_seconds", PING).sum < 3
        assert value(gateway, "mxgw_rpc_requests_total", "/mxgw.v1.SessionService/GetSession", "NOT_FOUND") == 1
        assert value(gateway, "mxgw_rpc_requests_total", STREAM, "CANCELLED") == 1
        assert STREAM not in {s.labels[0] for s in metrics_of(gateway)["mxgw_rpc_duration_seconds"].samples}


@pytest.mark.asyncio
async def test_methods_that_strangers_make_up_add_no_label() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        before = sum(len(metric.samples) for metric in gateway.api.observation.metrics())
        for number in range(30):
            for name in (f"/made.up.Service{number}/Method", f"/mxgw.v1.SessionService/MadeUp{number}"):
                refusal = await refused(client.channel.unary_unary(name)(b""))

                assert refusal.code is grpc.StatusCode.UNIMPLEMENTED

        after = sum(len(metric.samples) for metric in gateway.api.observation.metrics())

        assert value(gateway, "mxgw_rpc_requests_total", "unlisted", "UNIMPLEMENTED") == 60
        assert after == before


@pytest.mark.asyncio
async def test_health_and_reflection_are_no_unlisted_methods() -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with running_gateway({"gateway.reflection": True}) as gateway, client_of(gateway.target) as client:
        await health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())

        assert value(gateway, "mxgw_rpc_requests_total", "unlisted", "UNIMPLEMENTED") == 0


class Doorkeeper:
    """Lets in, or not, as the test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.decision: Decision | None = None

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
        if self.error is not None:
            raise self.error
        return Identity("somebody", "key")

    @hookimpl
    def mxgw_authorize(self, request: AccessRequest) -> Decision:
        return self.decision if self.decision is not None else Allow()

    @hookimpl
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        if self.error is not None:
            raise self.error
        return Operator(credentials.user, ("viewer",), token="t", expires_at=4e9) if credentials.password else None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "decision", "outcome"),
    [
        (None, None, "ok"),
        (Unauthenticated("no"), None, "unauthenticated"),
        (TooManyAttempts("no"), None, "too_many_attempts"),
        (AccessRevoked("no"), None, "revoked"),
        (DependencyUnavailable("no"), None, "unavailable"),
        (RuntimeError("broken"), None, "unauthenticated"),
        (None, Deny("no"), "denied"),
    ],
)
async def test_callers_and_operators_are_counted_by_whether_they_were_let_in(
    install_plugin: InstallPlugin, error: Exception | None, decision: Decision | None, outcome: str
) -> None:
    keeper = Doorkeeper()
    install_plugin("keeper", keeper)
    async with running_gateway({"plugins.enabled": ["keeper"]}) as gateway, client_of(gateway.target) as client:
        keeper.error, keeper.decision = error, decision
        with contextlib.suppress(grpc.aio.AioRpcError):
            await client.gateway.Ping(PingRequest())
        calls = {s.labels[0]: s.value for s in metrics_of(gateway)["mxgw_authentications_total"].samples}
        if decision is None:
            with contextlib.suppress(Unauthenticated, AccessRevoked, DependencyUnavailable):
                await gateway.api.authenticate_operator(
                    OperatorCredentials("anna", "secret", Peer("unix", is_local=True))
                )
        logins = {s.labels[0]: s.value for s in metrics_of(gateway)["mxgw_operator_logins_total"].samples}

    assert {name for name, count in calls.items() if count} == {outcome}
    assert {name for name, count in logins.items() if count} == ({outcome} if decision is None else set())


# plugins


class Contributing:
    """Brings metrics, good and bad."""

    def __init__(self) -> None:
        self.fails = False
        self.metrics: list[object] = []

    @hookimpl
    def mxgw_metrics(self) -> list[object]:
        if self.fails:
            raise RuntimeError("broken")
        return self.metrics


@pytest.mark.asyncio
async def test_hook_mxgw_metrics_adds_a_plugin_s_own_and_no_others(
    install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Contributing()
    install_plugin("my-plugin", plugin)
    async with running_gateway({"plugins.enabled": ["my-plugin"]}) as gateway:
        many = [MetricSample(number, (str(number),)) for number in range(300)]
        plugin.metrics = [
            counter("mxgw_my_plugin_things_total", "Things.", 3),
            gauge("mxgw_my_plugin_unknown", "Nothing yet.", None),
            gauge("mxgw_sessions", "What is the gateway's.", 99),
            gauge("mxgw_other_plugin_things", "What is another plugin's.", 99),
            gauge("mxgw_my_plugin_unknown", "A second time.", 1),
            Metric("mxgw_my_plugin_many", MetricKind.GAUGE, "Many.", ("number",), many),
            "no metric at all",
        ]
        for _ in range(2):
            found = metrics_of(gateway)

        assert found["mxgw_my_plugin_things_total"].samples == (MetricSample(3),)
        assert found["mxgw_my_plugin_unknown"].samples == ()
        assert found["mxgw_sessions"].labels == ("state",)
        assert "mxgw_other_plugin_things" not in found
        assert len(found["mxgw_my_plugin_many"].samples) == 200

        plugin.fails = True
        found = metrics_of(gateway)

        assert "mxgw_my_plugin_things_total" not in found
        assert "mxgw_sessions" in found

        plugin.fails = False

        assert value(gateway, "mxgw_plugin_hook_failures_total", "my-plugin", "mxgw_metrics") == 1
        assert {s.value for s in found["mxgw_plugin_up"].samples} == {1}

    said = [record.message for record in caplog.records if record.message.startswith("metric ")]
    assert len(said) == 5  # each once


@pytest.mark.asyncio
async def test_a_plugin_that_could_not_be_used_is_down(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", None)
    async with running_gateway({"plugins.enabled": ["replay", "broken"]}) as gateway:
        samples = metrics_of(gateway)["mxgw_plugin_up"].samples
        up = {
            (plugin, distribution.rpartition("_")[0]): sample.value
            for sample in samples
            for plugin, distribution in [sample.labels]
        }

    assert up == {("replay", ""): 1, ("broken", "mxgw_test_plugin"): 0}


@pytest.mark.asyncio
async def test_the_horizon_and_the_grace_that_it_is_compared_with_are_there() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        assert not metrics_of(gateway)["mxgw_replay_horizon_seconds"].samples

        session = await loaded(client)
        await read_events(client.stream(session.session_id), 10)
        await until(lambda: metrics_of(gateway)["mxgw_replay_horizon_seconds"].samples)

        assert 0 < value(gateway, "mxgw_replay_horizon_seconds") < 300
        assert value(gateway, "mxgw_replay_detach_grace_seconds") == 30


@pytest.mark.asyncio
async def test_a_command_that_outlasts_its_time_is_counted_as_such() -> None:
    # The worker is to be stopped for as long as a busy machine takes, and not to be counted as dead.
    async with running_gateway({"workers.heartbeat_interval_s": 60.0}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        os.kill(session.worker_pid, signal.SIGSTOP)
        try:
            # By the request's own time: a deadline of gRPC may pass first at the client, whose call is then CANCELLED.
            request = InvokeRequest(session_id=session.session_id, timeout=Duration(nanos=200_000_000))
            request.command.register.client_name = "x"
            refusal = await refused(client.commands.Invoke(request, timeout=60))

            assert refusal.reason == "COMMAND_TIMED_OUT"

            invoke = "/mxgw.v1.CommandService/Invoke"
            samples = metrics_of(gateway)["mxgw_rpc_requests_total"].samples
            counted = {sample.labels[1]: sample.value for sample in samples if sample.labels[0] == invoke}

            assert counted == {"OK": 0, "DEADLINE_EXCEEDED": 1}
        finally:
            os.kill(session.worker_pid, signal.SIGCONT)


@pytest.mark.asyncio
async def test_a_call_whose_client_gives_up_is_cancelled_and_no_longer_runs() -> None:
    opening = "/mxgw.v1.SessionService/OpenSession"
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        call = client.sessions.OpenSession(ss.OpenSessionRequest())
        await until(lambda: value(gateway, "mxgw_rpc_running", opening) == 1)
        call.cancel()
        await until(lambda: value(gateway, "mxgw_rpc_running", opening) == 0)

        assert value(gateway, "mxgw_rpc_requests_total", opening, "CANCELLED") == 1
        await until(lambda: value(gateway, "mxgw_worker_starts_total", "abandoned") == 1)
