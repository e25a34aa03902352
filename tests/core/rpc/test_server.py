"""The gRPC server: addresses, TLS, health, reflection, limits, and peers that vanish."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.certificates import Authority
from support.clients import Client, client_of, refused
from support.clock import advance
from support.privacy import CURE, OTHERS, open_to_others
from support.waiting import until

from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest, PingRequest
from mxgw_core.api.errors import AccessRevoked, SettingsError
from mxgw_core.rpc.handlers import _abort
from mxgw_core.rpc.health_service import HealthService
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

LOOPBACK: Mapping[str, object] = {"gateway.listen": ["127.0.0.1:0"]}


async def _answers(client: Client) -> str:
    info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60)
    return str(info.identity)


# addresses


async def test_every_address_is_served_and_port_0_takes_a_free_one() -> None:
    async with running_gateway({"gateway.listen": ["127.0.0.1:0", "127.0.0.1:0"]}) as gateway:
        assert len(set(gateway.app.addresses)) == 2
        for address in gateway.app.addresses:
            async with client_of(address) as client:
                assert await _answers(client) == "anonymous"


async def test_the_unix_socket_is_private_from_its_first_moment_and_gone_afterwards() -> None:
    before = os.umask(0)
    try:
        async with running_gateway() as gateway:
            path = gateway.directory / "gateway.sock"

            assert stat.S_IMODE(path.stat().st_mode) == 0o600

            async with client_of(gateway.target) as client:
                assert await _answers(client) == "anonymous"
    finally:
        assert os.umask(before) == 0

    assert not path.exists()


async def test_a_second_gateway_on_the_same_port_is_refused_and_the_first_lives_on() -> None:
    async with running_gateway(LOOPBACK) as first:
        with pytest.raises(SettingsError, match="in use"):
            async with running_gateway({"gateway.listen": [first.target]}):
                pass
        async with client_of(first.target) as client:
            assert await _answers(client) == "anonymous"


async def test_no_other_process_can_share_the_port() -> None:
    async with running_gateway(LOOPBACK) as gateway:
        host, _, port = gateway.target.rpartition(":")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((host, int(port)))


async def test_a_second_gateway_on_the_same_unix_socket_is_refused_and_the_first_lives_on() -> None:
    async with running_gateway() as first:
        with pytest.raises(SettingsError, match="in use by another process"):
            async with running_gateway({"gateway.listen": [first.target]}):
                pass
        async with client_of(first.target) as client:
            assert await _answers(client) == "anonymous"


async def test_a_second_gateway_on_the_same_data_is_refused() -> None:
    async with running_gateway() as first:
        with pytest.raises(SettingsError, match="in use by another gateway"):
            async with running_gateway({"gateway.data_dir": str(first.settings.gateway.data_dir)}):
                pass


async def test_the_socket_that_a_killed_gateway_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running_gateway({"gateway.listen": [f"unix:{path}"]}) as gateway, client_of(gateway.target) as client:
        assert await _answers(client) == "anonymous"


async def test_beyond_loopback_the_gateway_does_not_start_without_authentication() -> None:
    with pytest.raises(SettingsError, match="no enabled plugin authenticates"):
        async with running_gateway({"gateway.listen": ["0.0.0.0:0"], "gateway.allow_insecure": True}):
            pass


# TLS


def _tls(authority: Authority, tmp_path: Path, *, mutual: Authority | None = None) -> dict[str, object]:
    pair = authority.issue("server")
    settings: dict[str, object] = {
        **LOOPBACK,
        "tls.certificate": str(pair.certificate),
        "tls.private_key": str(pair.key),
    }
    if mutual is not None:
        settings["tls.client_ca"] = str(mutual.root)
    return settings


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def test_tls_proves_the_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with running_gateway(_tls(authority, tmp_path)) as gateway:
        trusting = grpc.ssl_channel_credentials(_read(authority.root))
        async with client_of(gateway.target, credentials=trusting) as client:
            assert await _answers(client) == "anonymous"


async def test_a_client_that_trusts_another_authority_refuses_the_server(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    async with running_gateway(_tls(authority, tmp_path)) as gateway:
        async with client_of(gateway.target, credentials=grpc.ssl_channel_credentials(_read(other.root))) as client:
            refusal = await refused(client.gateway.Ping(PingRequest(), timeout=60))

            assert refusal.code is grpc.StatusCode.UNAVAILABLE

        async with client_of(gateway.target) as plaintext:
            refusal = await refused(plaintext.gateway.Ping(PingRequest(), timeout=60))

            assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_takes_certificates_of_its_authority_and_no_others(tmp_path: Path) -> None:
    authority, clients, other = (Authority(tmp_path, name) for name in ("authority", "clients", "other"))
    good, bad = clients.issue("good"), other.issue("bad")
    async with running_gateway(_tls(authority, tmp_path, mutual=clients)) as gateway:
        root = _read(authority.root)
        known = grpc.ssl_channel_credentials(root, _read(good.key), _read(good.certificate))
        async with client_of(gateway.target, credentials=known) as client:
            assert await _answers(client) == "anonymous"

        foreign = grpc.ssl_channel_credentials(root, _read(bad.key), _read(bad.certificate))
        for credentials in (foreign, grpc.ssl_channel_credentials(root)):
            async with client_of(gateway.target, credentials=credentials) as client:
                refusal = await refused(client.gateway.Ping(PingRequest(), timeout=60))

                assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def test_a_unix_socket_beside_tls_stays_plain(tmp_path: Path) -> None:
    settings = _tls(Authority(tmp_path, "authority"), tmp_path)
    settings["gateway.listen"] = [f"unix:{tmp_path}/g.sock", "127.0.0.1:0"]
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        assert await _answers(client) == "anonymous"


@pytest.mark.parametrize("name", ["certificate", "private_key", "client_ca"])
async def test_a_tls_file_that_cannot_be_read_stops_the_start_and_is_named(tmp_path: Path, name: str) -> None:
    authority = Authority(tmp_path, "authority")
    settings = _tls(authority, tmp_path, mutual=authority)
    settings[f"tls.{name}"] = str(tmp_path / "none.pem")
    with pytest.raises(SettingsError, match=rf"tls\.{name}: .*none\.pem"):
        async with running_gateway(settings):
            pass


@pytest.mark.parametrize("name", ["certificate", "private_key"])
async def test_a_tls_file_that_is_none_stops_the_start(tmp_path: Path, name: str) -> None:
    settings = _tls(Authority(tmp_path, "authority"), tmp_path)
    (tmp_path / "garbage.pem").write_text("garbage")
    (tmp_path / "garbage.pem").chmod(0o600)
    settings[f"tls.{name}"] = str(tmp_path / "garbage.pem")
    with pytest.raises(SettingsError, match=r"tls\.private_key are PEM files"):
        async with running_gateway(settings):
            pass


async def test_a_key_of_another_certificate_stops_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    settings = _tls(authority, tmp_path)
    settings["tls.private_key"] = str(authority.issue("another").key)
    with pytest.raises(SettingsError, match=r"tls\.private_key are PEM files"):
        async with running_gateway(settings):
            pass


# health and reflection


async def _health(client: Client, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    return int(response.status)


async def test_health_says_serving_for_the_gateway_and_each_service() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        for service in ("", "mxgw.v1.SessionService", "mxgw.v1.EventService"):
            assert await _health(client, service) == health_pb2.HealthCheckResponse.SERVING

        refusal = await refused(_health(client, "no.such.Service"))

        assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_health_is_listed_and_watched_by_few_strangers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_core.rpc.health_service.WATCHERS_OF_PEER", 2)
    async with running_gateway({"limits.concurrent_calls": 2}) as gateway, client_of(gateway.target) as client:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        listed = (await stub.List(health_pb2.HealthListRequest(), timeout=60)).statuses  # type: ignore[attr-defined]
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(2)]
        assert [(await watch.read()).status for watch in watches] == [health_pb2.HealthCheckResponse.SERVING] * 2
        refusal = await refused(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60))

        assert {"", "mxgw.v1.EventService"} <= listed.keys()
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "health streams" in refusal.text
        assert await _answers(client) == "anonymous"  # the health streams have no place of other calls

        watches[0].cancel()
        await until(lambda: gateway.app._server is not None and gateway.app._server._health._watchers == 1)
        again = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        await again.read()


async def test_a_health_stream_that_nobody_reads_holds_up_no_other_and_no_status() -> None:
    class Context:
        def __init__(self, *, reads: bool) -> None:
            self.got: list[int] = []
            self.reads = reads

        def peer(self) -> str:
            return "ipv4:10.0.0.1:1"

        async def write(self, response: health_pb2.HealthCheckResponse) -> None:
            self.got.append(response.status)
            await asyncio.sleep(0 if self.reads else 3600)

    health, stuck, other = HealthService(), Context(reads=False), Context(reads=True)
    request: Any = health_pb2.HealthCheckRequest()
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(health.Watch(request, context)) for context in (stuck, other)]  # type: ignore[arg-type]
        await until(lambda: len(other.got) == len(stuck.got) == 1)
        health.set("", serves=True)
        await until(lambda: len(other.got) == 2)
        for watch in watching:
            watch.cancel()

    assert health._watchers == 0
    assert not health._watchers_of


async def test_calls_above_the_limit_are_refused_in_words_counted_and_logged_once_per_episode(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_gateway({"limits.concurrent_calls": 2}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        for episode in (1, 2):
            stream = client.stream(session.session_id)
            await stream.read()
            with gateway.app._calls.serving():
                refusals = [await refused(_answers(client)) for _ in range(3)]
            stream.cancel()
            await until(lambda: gateway.app._calls.running == 0)

            assert {(r.code, r.reason) for r in refusals} == {
                (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALL_LIMIT_REACHED")
            }
            assert len([r for r in caplog.records if "more are refused" in r.getMessage()]) == episode
        (over,) = [m for m in gateway.api.observation.metrics() if m.name == "mxgw_rpc_over_limit_total"]
        assert [sample.value for sample in over.samples] == [6]
    assert [r.getMessage() for r in caplog.records if "again; 3 were refused" in r.getMessage()]


REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


async def _ask_reflection(
    client: Client, service: str, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    ask = client.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(timeout=60)
    await call.write(request)
    await call.done_writing()
    response = await call.read()

    assert isinstance(response, reflection_pb2.ServerReflectionResponse)

    return response


@pytest.mark.parametrize("service", REFLECTION)
async def test_reflection_of_both_versions_is_there_when_the_settings_say_so(service: str) -> None:
    request = reflection_pb2.ServerReflectionRequest
    async with (
        running_gateway({"gateway.reflection": True}) as gateway,
        client_of(gateway.target) as client,
        asyncio.timeout(60),
    ):
        listed = await _ask_reflection(client, service, request(list_services=""))
        itself = await _ask_reflection(client, service, request(file_containing_symbol=service))
    names = {entry.name for entry in listed.list_services_response.service}
    (file,) = map(FileDescriptorProto.FromString, itself.file_descriptor_response.file_descriptor_proto)

    assert {"mxgw.v1.SessionService", "mxgw.v1.CommandService", "grpc.health.v1.Health", *REFLECTION} <= names
    assert f"{file.package}.{file.service[0].name}" == service
    assert file.service[0].method[0].input_type == f".{file.package}.ServerReflectionRequest"


async def test_reflection_is_off_by_default() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client, asyncio.timeout(60):
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        call = stub.ServerReflectionInfo(timeout=60)

        assert (await refused(call)).code is grpc.StatusCode.UNIMPLEMENTED


# limits


async def test_a_message_larger_than_the_limit_is_refused_and_the_gateway_lives_on() -> None:
    sizes = dict.fromkeys(("limits.message_bytes", "workers.frame_bytes", "events.batch_bytes"), 64 * 1024)
    async with running_gateway(sizes) as gateway, client_of(gateway.target) as client:
        request = ss.OpenSessionRequest(client_name="x" * 70_000)
        refusal = await refused(client.sessions.OpenSession(request, timeout=60))

        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await _answers(client) == "anonymous"


async def test_metadata_larger_than_the_limit_is_refused_and_the_gateway_lives_on() -> None:
    async with running_gateway() as gateway:
        async with client_of(gateway.target) as client:
            call = client.gateway.Ping(PingRequest(), timeout=60, metadata=(("x", "y" * 40_000),))

            assert (await refused(call)).code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        async with client_of(gateway.target) as client:
            assert await _answers(client) == "anonymous"


@pytest.mark.parametrize(
    "data", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64]
)
async def test_bytes_that_are_no_http2_do_not_disturb_the_gateway(data: bytes) -> None:
    async with running_gateway(LOOPBACK) as gateway:
        host, _, port = gateway.target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        async with client_of(gateway.target) as client:
            assert await _answers(client) == "anonymous"
        writer.close()
        del reader


async def test_a_call_with_an_unreadable_message_is_refused_with_a_clear_reason() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        call = client.channel.unary_unary("/mxgw.v1.SessionService/OpenSession")
        refusal = await refused(call(b"\x0a\x02\xff\xfe", timeout=60))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert "UTF-8" in refusal.text


async def test_an_unknown_method_is_refused() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        call = client.channel.unary_unary("/mxgw.v1.SessionService/DropEverything")

        assert (await refused(call(b"", timeout=60))).code is grpc.StatusCode.UNIMPLEMENTED


# peers that vanish

_FOLLOW = """
import sys, grpc
from mxgw.v1 import event_service_pb2 as es, event_service_pb2_grpc as stubs
from google.protobuf.duration_pb2 import Duration
stub = stubs.EventServiceStub(grpc.insecure_channel(sys.argv[1]))
request = es.StreamEventsRequest(session_id=sys.argv[2], heartbeat_interval=Duration(seconds=60))
for frame in stub.StreamEvents(request):
    print(frame.WhichOneof("frame"), flush=True)
"""


async def _following(gateway: RunningGateway, session_id: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: ASYNC220  starting it takes a millisecond
        [sys.executable, "-c", _FOLLOW, gateway.target, session_id], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)

    assert line.split() == [b"opened"]

    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def test_a_client_that_was_killed_is_gone() -> None:
    async with running_gateway(LOOPBACK) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        process = await _following(gateway, session.session_id)
        _end(process)
        await until(lambda: gateway.api.sessions()[0].subscribers == 0, 60)


async def test_a_client_that_stopped_existing_in_silence_is_found() -> None:
    async with running_gateway(LOOPBACK) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        process = await _following(gateway, session.session_id)
        psutil.Process(process.pid).suspend()
        try:
            await until(lambda: gateway.api.sessions()[0].subscribers == 0, 60)
        finally:
            _end(process)

        assert gateway.api.sessions()[0].state.name == "READY"


# a key that others may read


async def test_a_private_key_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    settings = _tls(Authority(tmp_path, "authority"), tmp_path)
    open_to_others(Path(str(settings["tls.private_key"])))
    with pytest.raises(
        SettingsError, match=rf"tls\.private_key: .* other users may read it \({OTHERS}.*\); run: {CURE}"
    ):
        async with running_gateway(settings):
            pass


async def test_a_new_private_key_that_others_may_read_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path, "authority")
    async with running_gateway(_tls(authority, tmp_path)) as gateway:
        open_to_others(authority.issue("server").key)
        trusting = grpc.ssl_channel_credentials(_read(authority.root))
        async with client_of(gateway.target, credentials=trusting) as client:
            assert await _answers(client) == "anonymous"

        assert "new TLS files are not used" in caplog.text
        assert f"other users may read it ({OTHERS}" in caplog.text


async def test_a_status_that_a_stopped_caller_never_reads_does_not_keep_the_call() -> None:
    class Stopped:
        async def abort(self, *_: object, **__: object) -> None:
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(_abort(Stopped(), "/a/b", AccessRevoked("over")))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        advance(5)
        await asyncio.wait([ending], timeout=60)

        assert ending.cancelled()
