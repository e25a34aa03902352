"""Enabled but broken: the gateway does not start, or refuses; it never serves openly."""

from __future__ import annotations

import itertools
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import refused
from support.keys import client_with, guarded_gateway
from support.plugins import InstallPlugin
from support.privacy import CURE, is_private, open_to_others

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest
from mxgw_acl.audit_log import AuditLog, AuditRecord
from mxgw_acl.authorization import Authorization
from mxgw_acl.item_rights import ItemFilter, ItemGuard
from mxgw_acl.patterns import ItemPatterns
from mxgw_acl.plugin import AclPlugin
from mxgw_core.api import AccessRequest, AuthenticationRequest, Identity, Peer, hookimpl
from mxgw_core.api.errors import MxgwError, PluginError, SettingsError, Unauthenticated
from mxgw_core.api.files import make_directory, make_private
from mxgw_core.testing import running_gateway

BROKEN = RuntimeError("broken")


def raises(*_: object, **__: object) -> Any:
    raise BROKEN


@pytest.mark.asyncio
async def test_a_plugin_that_cannot_be_imported_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mxgw_acl", None)
    with pytest.raises(PluginError, match="acl"):
        async with guarded_gateway(tmp_path):
            pass


@pytest.mark.asyncio
async def test_a_database_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    private = tmp_path / "acl"
    make_directory(private)
    (private / "keys.sqlite3").write_bytes(b"nothing like a database" * 100)
    make_private(private / "keys.sqlite3")
    with pytest.raises(SettingsError, match="cannot be used"):
        async with guarded_gateway(tmp_path):
            pass


@pytest.mark.asyncio
async def test_a_directory_that_is_open_to_others_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "acl").mkdir()
    open_to_others(tmp_path / "acl")
    with pytest.raises(SettingsError, match=CURE):
        async with guarded_gateway(tmp_path):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "setting", ["plugins.acl.environment", "plugins.acl.check_interval_s", "plugins.acl.no_such_key"]
)
async def test_wrong_settings_stop_the_start(tmp_path: Path, setting: str) -> None:
    with pytest.raises(MxgwError, match=setting.rpartition(".")[2]):
        async with guarded_gateway(tmp_path, {setting: "NOT valid"}):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "setting", ["plugins.acl.failed_attempts.burst", "plugins.dashboard_tui.login_failures_per_minute"]
)
async def test_a_limit_that_was_set_where_it_used_to_be_is_refused_with_its_new_place(
    tmp_path: Path, setting: str
) -> None:
    with pytest.raises(
        SettingsError,
        match=r"no setting any more: limits\.failed_attempts_per_minute and limits\.failed_attempts_burst",
    ):
        async with guarded_gateway(tmp_path, {"plugins.enabled": ["acl", "dashboard_tui"], setting: 3}):
            pass


@pytest.mark.asyncio
async def test_when_the_database_becomes_unreadable_every_call_is_refused_also_with_a_good_key(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            await client.open()
            with guarded.store._transaction():
                guarded.store._connection.execute("UPDATE keys SET constraints = 'not json'")
            refusal = await refused(client.open())

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("owner", "method", "code"),
    [
        (AclPlugin, "_required", grpc.StatusCode.PERMISSION_DENIED),
        (Authorization, "check_key", grpc.StatusCode.PERMISSION_DENIED),
        (ItemGuard, "denied", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_a_hook_that_raises_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: type, method: str, code: grpc.StatusCode
) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(("*",)))
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            monkeypatch.setattr(owner, method, raises)
            refusal = await refused(client.register(session_id))

            assert refusal.code is code
            assert "broken" not in refusal.text


@pytest.mark.asyncio
async def test_a_filter_that_cannot_be_made_refuses_the_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(("*",)))
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            monkeypatch.setattr(ItemFilter, "__init__", raises)

            assert (await refused(client.stream(session_id))).code is grpc.StatusCode.PERMISSION_DENIED


def test_outside_of_its_context_the_plugin_refuses_everything() -> None:
    plugin, peer = AclPlugin(), Peer("unix", is_local=True)
    identity = Identity("k", "key")
    with pytest.raises(Unauthenticated):
        plugin.mxgw_authenticate(AuthenticationRequest("/a/b", peer, {}))

    assert type(plugin.mxgw_authorize(AccessRequest("/a/b", identity, peer))).__name__ == "Deny"

    with pytest.raises(RuntimeError):
        plugin.mxgw_command_guard(identity)
    with pytest.raises(RuntimeError):
        plugin.mxgw_event_filter(identity)


@pytest.mark.asyncio
async def test_another_plugin_that_vouches_for_everybody_gets_nobody_past_the_gate(
    install_plugin: InstallPlugin, tmp_path: Path
) -> None:
    class Friendly:
        @hookimpl
        def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
            return Identity("friend", "friend")

    install_plugin("friendly", Friendly())
    enabled = {"plugins.enabled": ["acl", "friendly"]}
    async with guarded_gateway(tmp_path, enabled) as guarded, client_with(guarded.target) as client:
        refusal = await refused(client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60))

        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


# services of others


@pytest.mark.asyncio
async def test_a_service_of_another_plugin_is_open_as_far_as_it_says(
    install_plugin: InstallPlugin, tmp_path: Path
) -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    from mxgw.v1 import gateway_service_pb2
    from mxgw_core.api import GrpcService

    file = descriptor_pb2.FileDescriptorProto(
        name="other/v1/other.proto", package="other.v1", syntax="proto3", dependency=["mxgw/v1/gateway_service.proto"]
    )
    service = file.service.add(name="OtherService")
    for name in ("Undeclared", "Free", "Reading", "Administering"):
        service.method.add(
            name=name,
            input_type=".mxgw.v1.GetGatewayInfoRequest",
            output_type=".mxgw.v1.GetGatewayInfoResponse",
        )
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindServiceByName("other.v1.OtherService")

    class Implementation:
        async def Undeclared(self, request: Any, call: Any) -> Any:  # noqa: N802
            return gateway_service_pb2.GetGatewayInfoResponse(identity=call.identity.id)

        Free = Reading = Administering = Undeclared

    class Other:
        @hookimpl
        def mxgw_grpc_services(self, gateway: Any) -> list[GrpcService]:
            scopes = {"Free": "public", "Reading": "read", "Administering": "administrator"}
            return [GrpcService(descriptor, Implementation(), scopes)]

    install_plugin("other", Other())
    async with guarded_gateway(tmp_path, {"plugins.enabled": ["acl", "other"]}) as guarded:
        _, reader = guarded.issue()

        async def outcome(method: str, credentials: str | None) -> str:
            async with client_with(guarded.target, credentials) as client:
                call = client.channel.unary_unary(f"/other.v1.OtherService/{method}")
                try:
                    await call(b"", timeout=60)
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return "OK"

        assert [await outcome(m, None) for m in ("Undeclared", "Free", "Reading")] == [
            "UNAUTHENTICATED",
            "OK",
            "UNAUTHENTICATED",
        ]
        assert [await outcome(m, reader) for m in ("Undeclared", "Free", "Reading", "Administering")] == [
            "PERMISSION_DENIED",
            "OK",
            "OK",
            "PERMISSION_DENIED",
        ]


# the audit log


def test_a_record_is_one_line_whatever_a_peer_calls_itself(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", now=lambda: 0.0)
    audit.write(AuditRecord("operator:\x1b[2J\n{}\u2028", "login", "denied", "x" * 1000))
    audit.close()
    content = (tmp_path / "audit.jsonl").read_bytes()

    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    assert b"\x1b" not in content
    assert content.isascii()
    assert len(content) < 700
    assert b'"time": "1970-01-01T00:00:00.000+00:00"' in content


def test_the_log_is_private_appended_to_and_begun_anew_after_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxgw_acl.audit_log._ROTATION_CHECK_S", 0.0)
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        audit = AuditLog(path)
        audit.write(AuditRecord("a", "b", "c"))
        audit.close()

    assert path.read_bytes().count(b"\n") == 2
    assert is_private(path)

    audit = AuditLog(path)
    path.rename(tmp_path / "audit.jsonl.1")
    audit.write(AuditRecord("after", "b", "c"))
    audit.close()

    assert b"after" in path.read_bytes()
    assert is_private(path)


def test_a_log_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").touch()
    open_to_others(tmp_path / "audit.jsonl")
    with pytest.raises(SettingsError, match=CURE):
        AuditLog(tmp_path / "audit.jsonl")


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[None]:
    """Another process keeps the file locked while the block runs; for a minute at most, so that nothing hangs."""
    code = (
        "import os, sys; from pathlib import Path; from mxgw_core.api.files import lock_file, open_private\n"
        "assert lock_file(open_private(Path(sys.argv[1]), os.O_RDWR)); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            yield
        finally:
            guard.cancel()
            process.kill()


@pytest.mark.asyncio
async def test_a_log_that_a_stopped_process_keeps_locked_denies_and_does_not_freeze_the_gateway(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            with locked_elsewhere(guarded.directory / "audit.jsonl"):
                refusal = await refused(client.open())

                assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
                assert "audit log" in refusal.text
            session = await client.open()

            assert session.session_id


def test_while_the_log_stays_locked_only_the_first_write_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = itertools.count(), list[float]()
    monkeypatch.setattr("mxgw_acl.audit_log.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("mxgw_acl.audit_log.time.sleep", waits.append)
    path = tmp_path / "audit.jsonl"
    audit, record, counts = AuditLog(path, lock_wait_s=5), AuditRecord("a", "b", "c"), []
    with locked_elsewhere(path):
        for _ in range(3):
            with pytest.raises(OSError, match=re.escape(f"another process keeps {path} locked")):
                audit.write(record)
            counts.append(len(waits))
    audit.write(record)
    with locked_elsewhere(path), pytest.raises(OSError, match="locked"):
        audit.write(record)
    audit.close()

    assert counts[0] > 1
    assert counts == [counts[0]] * 3
    assert len(waits) > counts[0] + 1  # after a write that went well it waits again
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("on_failure", ["deny", "serve"])
async def test_what_cannot_be_recorded_is_denied_or_served_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on_failure: str
) -> None:
    def full(self: AuditLog, record: AuditRecord) -> None:
        raise OSError("No space left on device")

    async with guarded_gateway(tmp_path, {"plugins.acl.audit.on_failure": on_failure}) as guarded:
        _, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            monkeypatch.setattr(AuditLog, "write", full)
            if on_failure == "deny":
                refusal = await refused(client.open())

                assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
                assert "audit log" in refusal.text
            else:
                session = await client.open()

                assert session.session_id
        monkeypatch.undo()

    assert caplog.text.count("the audit log cannot be written") == 1


@pytest.mark.asyncio
async def test_failures_beyond_the_limit_are_told_so_not_recorded_and_lock_nobody_out(tmp_path: Path) -> None:
    overrides = {"limits.failed_attempts_burst": 3, "limits.failed_attempts_per_minute": 1}
    async with guarded_gateway(tmp_path, overrides) as guarded:
        _, text = guarded.issue()
        wrong = text[:-7][:-43] + "A" * 43
        async with client_with(guarded.target, f"{wrong}_000000") as stranger:
            answers = [
                await refused(stranger.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60)) for _ in range(6)
            ]

        assert [a.reason for a in answers] == ["UNAUTHENTICATED"] * 3 + ["TOO_MANY_ATTEMPTS"] * 3
        assert answers[-1].code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < (answers[-1].retry_after_s or 0) <= 60
        assert len([line for line in guarded.audit() if line["decision"] == "denied"]) == 3

        async with client_with(guarded.target, text) as client:
            await client.open()


@pytest.mark.asyncio
async def test_who_did_what_is_in_the_log_and_no_value_or_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with guarded_gateway(tmp_path) as guarded:
        key, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open(tag="line4")).session_id
            (handle,) = await client.subscribe(session_id, ["Bench_001.Text"])
            from mxgw.v1.values_pb2 import MxValue

            value = MxValue(string="canary-value-4711")
            write = c.WriteCommand(server_handle=1, item_handle=handle, value=value, wait_for_completion=True)
            item = c.ItemReference(item_definition="Bench_001.Text")

            async def wrote_it() -> bool:
                read = await client.invoke(session_id, read_bulk=c.ReadBulkCommand(server_handle=1, items=[item]))
                return read.bulk.items[0].value.value.string == "canary-value-4711"

            assert not await wrote_it()
            assert (await client.invoke(session_id, write=write)).hresult == 0
            assert await wrote_it()  # what must not be found was really written, and read back

            bulk = c.WriteBulkCommand(server_handle=1, writes=[c.BulkWrite(item_handle=handle, value=value)])
            assert (await client.invoke(session_id, write_bulk=bulk)).bulk.items[0].hresult == 0
            await client.close(session_id)
        lines = guarded.audit()
        wrote = next(line for line in lines if line["action"] == "Invoke write")

        assert wrote["actor"] == f"key:{key.id}"
        assert (wrote["session"], wrote["tag"]) == (session_id, "line4")
        assert "last known as Bench_001.Text" in wrote["detail"]
        assert [line["action"] for line in lines if line["actor"] == f"key:{key.id}"] == [
            "OpenSession",
            "session opened",
            "Invoke write",
            "Invoke write_bulk",
            "CloseSession",
            "session closed",
        ]

        everything = (guarded.directory / "audit.jsonl").read_text(encoding="utf-8") + caplog.text

        assert "canary-value-4711" not in everything
        assert text not in everything
        assert text.split("_")[3] not in everything


@pytest.mark.asyncio
async def test_a_running_gateway_without_the_plugin_is_as_it_was() -> None:
    async with running_gateway() as gateway, client_with(gateway.target) as client:
        assert (await client.open()).owner == "anonymous"
