"""What plugins hand to the gateway, and what they get: plain values that no code of a plugin can change later."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import sys
import weakref
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2

from mxgw.v1.commands_pb2 import ItemReference, MxCommand, SubscribeBulkCommand
from mxgw_core.api import (
    ANONYMOUS,
    AccessRequest,
    Allow,
    AuthenticationRequest,
    Deny,
    GrpcService,
    Identity,
    ItemRecord,
    Metric,
    MetricKind,
    MetricSample,
    Operator,
    Peer,
    Retention,
    SubscriberLimits,
    hookimpl,
)
from mxgw_core.api.errors import AccessDenied, GatewayError, InvalidRequest, PluginFailed
from mxgw_core.api.feeds import FeedDescription
from mxgw_core.events.filters import ItemFilters
from mxgw_core.metrics.plugins import PluginMetrics
from mxgw_core.plugin_gateway import PluginGateway
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState
from mxgw_core.plugins.answers import WrongAnswer, check_of
from mxgw_core.plugins.arguments import copied
from mxgw_core.plugins.calls import CallFailed
from mxgw_core.plugins.objects import plugin_feed, plugin_guard
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.statuses import status_details, status_message
from mxgw_core.testing import item_record, queue_limits, session_info

CALLER = Peer("127.0.0.1:1", is_local=True)


@pytest.mark.parametrize("field", ["item_definition", "serial"])
def test_no_plugin_can_change_the_record_of_an_item_that_others_see(field: str) -> None:
    with pytest.raises(AttributeError):
        object.__setattr__(item_record(), field, "another")


def test_the_items_of_a_decision_cannot_be_changed() -> None:
    items = [item_record(), None]
    request = AccessRequest("/x.Y/Z", ANONYMOUS, CALLER)

    seen: Any = copied(dataclasses.replace(request, items=items)).items

    assert seen == tuple(items)
    assert type(seen) is tuple


# Answers of classes that a plugin has derived from values of the API.


class Exits:
    """Whatever the gateway does with a value of a class derived from this, the plugin ends the process."""

    def __getattribute__(self, name: str) -> Any:
        if Armed.is_armed and not name.startswith("__"):
            raise SystemExit(4)
        return object.__getattribute__(self, name)


class Armed:
    is_armed = False


class Text(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise SystemExit(5)

    def __hash__(self) -> int:
        raise SystemExit(5)


class Number(float):
    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        raise SystemExit(6)

    __gt__ = __le__ = __ge__ = __lt__


class MyIdentity(Exits, Identity):
    pass


class MyRetention(Exits, Retention):
    pass


class Lies(Deny):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Allow


@pytest.fixture
def armed() -> Iterator[type[Armed]]:
    yield Armed
    Armed.is_armed = False


def host_with(**hooks: Any) -> PluginHost:
    plugin = SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})
    host = PluginHost()
    host._records["mine"] = PluginRecord("mine", PluginState.LOADED, "dist-mine", "1.0", required=False)
    host._plugins.register(plugin, name="mine")
    host._prepare()
    return host


def identity_from(host: PluginHost) -> Any:
    [answer] = host.ask("mxgw_authenticate", request=AuthenticationRequest("/x", CALLER, {}))
    return answer


def test_the_gateway_uses_plain_values_only(armed: type[Armed]) -> None:
    host = host_with(
        mxgw_authenticate=lambda request: MyIdentity(Text("alice"), "key", roles=(Text("viewer"),)),
        mxgw_retention=lambda session: MyRetention(10, 10, 3.0),
        mxgw_detach_grace=lambda session: Number(3),
        mxgw_authorize=lambda request: Lies("no"),
    )

    identity = identity_from(host).value
    [retention] = host.ask("mxgw_retention", session=session_info())
    [grace] = host.ask("mxgw_detach_grace", session=session_info())
    [decision] = host.ask("mxgw_authorize", request=AccessRequest("/x", ANONYMOUS, CALLER))
    armed.is_armed = True

    assert identity == Identity("alice", "key", roles=("viewer",))
    assert [type(identity), type(identity.id), type(identity.roles[0])] == [Identity, str, str]
    assert type(retention.value) is Retention
    assert retention.value == Retention(10, 10, 3.0)
    assert (type(retention.value.seconds), type(grace.value)) == (float, float)
    assert type(decision.value) is Deny
    assert not host.failures


def test_the_record_of_an_item_that_a_store_gives_is_checked_too() -> None:
    class MyRecord(ItemRecord):
        __slots__ = ()

        @property
        def serial(self) -> int:
            return next(serials)

    serials = iter([7])
    check = check_of(Sequence[ItemRecord], "records")

    [record] = check([MyRecord(1, 1, 1, Text("Tank"))])

    assert (type(record), record) == (ItemRecord, ItemRecord(7, 1, 1, "Tank"))
    with pytest.raises(WrongAnswer, match="whose serial is a str"):
        check([ItemRecord("1", 1, 1, "Tank")])  # type: ignore[arg-type]


def test_a_guard_that_denies_with_a_dictionary_of_its_own_class_denies() -> None:
    class Empty(dict[int, str]):
        def items(self) -> Any:
            return []

        def __iter__(self) -> Iterator[int]:
            return iter(())

        __len__ = lambda self: 0  # noqa: E731

    command = MxCommand(subscribe_bulk=SubscribeBulkCommand(items=[ItemReference(item_definition="Tank")]))
    guard: Any = SimpleNamespace(denied=lambda command, items: Empty({0: "not\x00yours" + "!" * 5000}))
    denied = plugin_guard(
        guard, host_with(mxgw_authenticate=lambda request: None).calls.owner("mine", "mxgw_command_guard")
    ).denied(command, [None])

    assert denied[0].startswith("not\N{REPLACEMENT CHARACTER}yours")
    assert len(denied[0]) == 300


def test_descriptors_of_protobuf_are_answers() -> None:
    descriptor: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
    service = GrpcService(descriptor, SimpleNamespace())

    with pytest.raises(WrongAnswer, match="lacks the method Check"):  # so the descriptor was read
        check_of(GrpcService, "GrpcService")(service)


@pytest.mark.parametrize(
    "answer",
    [Identity("a\udcff", "key"), Identity("a", "key", "\ud800"), Identity("a" * 2000, "key")],
    ids=["id", "display name", "long"],
)
def test_an_identity_that_cannot_be_sent_or_logged_is_a_failure(answer: Identity) -> None:
    host = host_with(mxgw_authenticate=lambda request: answer)

    assert isinstance(identity_from(host).error, WrongAnswer)
    assert host.failures == {("mine", "mxgw_authenticate"): 1}


def test_a_number_beyond_all_limits_is_a_failure_and_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    host = host_with(mxgw_detach_grace=lambda session: 10**5000, mxgw_retention=lambda session: big_retention())

    for hook in ("mxgw_detach_grace", "mxgw_retention"):
        host.ask(hook, session=session_info())

    assert host.failures == {("mine", "mxgw_detach_grace"): 1, ("mine", "mxgw_retention"): 1}
    assert "more than 64 bits" in caplog.text
    assert all(len(line) < 600 for line in caplog.messages)


def big_retention() -> Retention:
    return Retention(10**5000, 1, 0.0)


def test_classes_that_a_hook_makes_for_each_call_are_not_kept() -> None:
    references = []

    def pace(session: object, identity: object) -> object:
        made = type("Pace", (), {"wait_s": lambda self: 0.0, "sent": lambda self, events: None})
        references.append(weakref.ref(made))
        return made()

    host = host_with(mxgw_stream_pace=pace)
    assert len(host.ask("mxgw_stream_pace", session=session_info(), identity=ANONYMOUS)) == 1
    gc.collect()

    assert references[0]() is None


# Metrics.


def gauge_of(labels: Sequence[Any] = (("a",),), text: str = "x", value: Any = 1, name: str = "mxgw_mine_bad") -> Metric:
    return Metric(name, MetricKind.GAUGE, text, labels=("l",), samples=[MetricSample(value, one) for one in labels])


@pytest.mark.parametrize(
    "bad",
    [
        gauge_of([("a\udcff",)]),
        gauge_of(text="\ud800"),
        gauge_of(text="x" * 2_000_000),
        gauge_of(value=10**400),
        gauge_of([("a",), ("a",)]),
    ],
    ids=["label", "text", "long", "beyond float", "the same labels"],
)
def test_a_metric_that_cannot_be_shown_is_left_out_alone(bad: Metric, caplog: pytest.LogCaptureFixture) -> None:
    host = host_with(mxgw_metrics=lambda: [bad, gauge_of(name="mxgw_mine_good")])

    found = list(PluginMetrics(host).collect(set()))

    assert [metric.name for metric in found] == ["mxgw_mine_good"]
    assert "metric mxgw_mine_bad of plugin mine" in caplog.text


def test_the_value_of_a_metric_is_plain() -> None:
    host = host_with(mxgw_metrics=lambda: [gauge_of(value=Number(1), labels=[(Text("a"),)])])

    [metric] = PluginMetrics(host).collect(set())

    assert (type(metric.samples[0].value), type(metric.samples[0].labels[0])) == (float, str)


# Refusals.


class Broken(AccessDenied):
    @property
    def metadata(self) -> dict[str, str]:
        sys.exit(8)

    @metadata.setter
    def metadata(self, value: dict[str, str]) -> None:
        pass


class Late(AccessDenied):
    """Can be read once, by the check."""

    reads = 0

    @property
    def message(self) -> str:
        Late.reads += 1
        if Late.reads > 1:
            raise SystemExit(8)
        return "no"

    @message.setter
    def message(self, value: str) -> None:
        pass


def refusing(error: BaseException) -> PluginHost:
    def refuse(request: object) -> None:
        raise error

    return host_with(mxgw_authorize=refuse)


def refusal_of(host: PluginHost) -> Any:
    [answer] = host.ask("mxgw_authorize", request=AccessRequest("/x", ANONYMOUS, CALLER))
    return answer.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidRequest("no such line", metadata={"line": 5}), "raised InvalidRequest whose metadata is"),  # type: ignore[dict-item]
        (InvalidRequest(5), "raised InvalidRequest whose message is an int, not str"),  # type: ignore[arg-type]
        (InvalidRequest("no file \udcff"), "raised InvalidRequest whose message is a str with half"),
        (InvalidRequest("later", retry_after_s=-1), "whose retry_after_s is -1"),
        (Broken("no"), "SystemExit"),
    ],
    ids=["metadata", "number", "surrogate", "time", "property"],
)
def test_a_refusal_that_cannot_be_sent_is_a_failure_of_its_plugin(
    error: GatewayError, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = refusing(error)

    assert not isinstance(refusal_of(host), GatewayError)
    with pytest.raises(CallFailed), host.calls.owner("mine", "mxgw_command_guard").contained("CommandGuard.denied"):
        raise error

    assert host.failures == {("mine", "mxgw_authorize"): 1, ("mine", "mxgw_command_guard"): 1}
    assert words in caplog.text


def test_no_code_of_a_refusal_runs_after_the_check() -> None:
    found = refusal_of(refusing(Late("no")))

    assert type(found) is AccessDenied
    assert (found.message, found.reason) == ("no", "ACCESS_DENIED")


@pytest.mark.parametrize("character", ["x", "ü", "\N{SNOWMAN}", "\N{GRINNING FACE}", "\x00", "\udcff"])
def test_a_refusal_fits_into_the_headers(character: str) -> None:
    error = AccessDenied(character * 60_000, metadata={f"{character}{n}": character * 5000 for n in range(100)})

    details = status_details(error)

    # Source: grpc/impl/grpc_types.h, GRPC_ARG_MAX_METADATA_SIZE: 8 KiB, which also the names and other headers use
    assert len(quote(status_message(error), safe=" ")) + len(details) * 4 / 3 < 7500
    assert Status.FromString(details).message == status_message(error)
    assert len(status_message(error)) >= 200


def test_a_hook_that_only_reports_cannot_refuse(caplog: pytest.LogCaptureFixture) -> None:
    def opened(session: object) -> None:
        raise AccessDenied("not this one")

    host = host_with(mxgw_session_opened=opened)
    host.ask("mxgw_session_opened", session=session_info())

    assert host.failures == {("mine", "mxgw_session_opened"): 1}
    assert "not this one" in caplog.text


# A plugin that fails between two steps of one call.


def closed_host() -> PluginHost:
    host = host_with(
        mxgw_authenticate=lambda request: ANONYMOUS, mxgw_event_filter=lambda session, identity: FilterOfAll()
    )
    host._records["mine"] = dataclasses.replace(host._records["mine"], controls_access=True, required=True)
    return host


class FilterOfAll:
    def keep(self, item: object, kind: int) -> bool:
        return True


def test_a_filter_that_was_handed_out_decides_nothing_after_its_plugin_has_failed() -> None:
    host = closed_host()
    filters = AccessControl(host).filters(session_info(), ANONYMOUS)
    items = ItemFilters(filters, SimpleNamespace(get=lambda serial: item_record()))
    assert items.shown([1], 0) == [True]

    host.take_down("mine", "it broke")

    with pytest.raises(PluginFailed):
        items.shown([1], 0)


def test_a_caller_is_denied_whose_authenticator_fails_before_the_call_is_authorized() -> None:
    host = closed_host()
    access = AccessControl(host)
    identity = access.authenticate("/x", CALLER, {})

    host.take_down("mine", "it broke")

    with pytest.raises(PluginFailed):
        access.authorize(AccessRequest("/x", identity, CALLER))


@pytest.mark.asyncio
async def test_an_operator_is_denied_whose_plugin_fails_while_it_answers() -> None:
    def renewed(operator: Operator) -> Operator:
        asyncio.run_coroutine_threadsafe(fail(), loop).result()
        return operator

    async def fail() -> None:
        host.take_down("mine", "it broke")

    loop = asyncio.get_running_loop()
    host = host_with(mxgw_renew_operator=renewed)
    host._records["mine"] = dataclasses.replace(host._records["mine"], controls_access=True, required=True)
    gateway: Any = object.__new__(PluginGateway)
    gateway._plugins = host

    with pytest.raises(PluginFailed):
        await gateway.renew_operator(Operator("anna", ("viewer",)))


def test_a_snapshot_that_yields_none_does_not_end_early() -> None:
    host = host_with(mxgw_grpc_services=lambda gateway: None)
    snapshot = SimpleNamespace(frames=lambda filters, limit_bytes: iter([b"1", None, b"2"]))
    health: Any = lambda: (1, 1)  # noqa: E731
    feed = FeedDescription("f", SubscriberLimits(1, queue_limits()), Retention(1, 1, 0.0), lambda: snapshot, health)
    frames = plugin_feed(feed, host.calls.owner("mine", "mxgw_grpc_services")).snapshot().frames([], 10)

    assert next(frames) == b"1"
    with pytest.raises(PluginFailed):
        next(frames)
