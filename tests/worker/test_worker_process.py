"""Real worker processes on a real socket."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1.worker_pb2 import (
    Browse,
    CommandRequest,
    EventAck,
    GetInfo,
    GetState,
    Ping,
    Ready,
    Stop,
    WorkerEnvelope,
)
from mxgw_worker import platform
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.handshake import HandshakeError, HandshakeReason
from mxgw_worker.testing import WorkerDriver, WorkerGone, running_worker
from mxgw_worker.worker import ExitCode

LOAD = {"profile": "load", "items": 50, "rate": 500.0}


async def subscribe(worker: WorkerDriver, count: int) -> int:
    server = (await worker.mx(c.MxCommand(register={"client_name": "test"}))).server_handle
    items = [c.ItemReference(item_definition=f"Load.Item{n:05d}") for n in range(1, count + 1)]
    reply = await worker.mx(c.MxCommand(subscribe_bulk={"server_handle": server, "items": items}))
    assert [result.hresult for result in reply.bulk.items] == [0] * count
    return server


async def until_gone(worker: WorkerDriver) -> int:
    with suppress(WorkerGone):
        while True:
            await worker.receive()
    return await worker.exit_code()


@pytest.mark.asyncio
async def test_a_worker_serves_commands_and_events_and_leaves_when_told(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", LOAD) as worker:
        await subscribe(worker, 50)
        events = await worker.until_events(300)
        info = (await worker.ask(CommandRequest(get_info=GetInfo()))).info
        browse = (await worker.ask(CommandRequest(browse=Browse()))).browse
        worker.send(WorkerEnvelope(stop=Stop(grace_ms=1000)))

        assert await until_gone(worker) == ExitCode.STOPPED
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert worker.goodbye == "STOPPED"
        assert worker.ready_detail == info.backend
        assert info.items == 50
        assert browse.nodes
        assert worker.hello is not None
        assert worker.hello.pid == worker.process.pid


@pytest.mark.asyncio
async def test_a_ping_is_answered_with_its_token_and_the_head(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", LOAD) as worker:
        worker.send(WorkerEnvelope(ping=Ping(token=77)))
        pong = (await worker.receive()).pong

        assert (pong.token, pong.head_sequence, pong.source_health) == (77, 0, 1)


@pytest.mark.asyncio
async def test_without_an_orphans_life_a_worker_leaves_with_its_gateway(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        await worker.disconnect()

        assert await worker.exit_code() == ExitCode.GATEWAY_VANISHED


@pytest.mark.asyncio
async def test_an_orphan_keeps_counting_and_comes_back_with_the_next_secret(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", LOAD, orphan_lifetime_ms=10_000) as worker:
        await subscribe(worker, 50)
        seen = len(await worker.until_events(100))
        epoch = worker.hello.epoch if worker.hello else b""
        worker.send(WorkerEnvelope(ack=EventAck(sequence=seen)))
        await worker.stop_listening()
        await worker.listen()
        await worker.accept()
        hello = await worker.shake_hands(resume_after=seen)
        del worker.events[seen:]
        assert await worker.ready() == worker.ready_detail
        events = await worker.until_events(hello.head_sequence + 10)
        state = (await worker.ask(CommandRequest(get_state=GetState()))).state

        assert hello.epoch == epoch
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert state.total_items == 50


@pytest.mark.asyncio
async def test_an_orphan_refills_a_gateway_that_lost_everything(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", LOAD, orphan_lifetime_ms=10_000, outbox_events=60) as worker:
        await subscribe(worker, 50)
        await worker.until_events(100)
        worker.send(WorkerEnvelope(ack=EventAck(sequence=100)))
        await worker.disconnect()
        worker.events.clear()
        await worker.accept()
        hello = await worker.shake_hands()
        await worker.ready()
        events = await worker.until_events(60)

        # Between Hello and Welcome the full outbox may have moved on; then that is told too.
        first = worker.gaps[0].gap.first_lost if worker.gaps else events[0].sequence

        assert hello.outbox_oldest > 1
        assert first == hello.outbox_oldest
        assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))


@pytest.mark.asyncio
async def test_a_handshake_that_was_cut_is_done_again_with_the_old_secret(tmp_path: Path) -> None:
    async with running_worker(tmp_path, orphan_lifetime_ms=10_000) as worker:
        await worker.disconnect()
        await worker.accept()
        assert (await worker.receive()).WhichOneof("body") == "hello"
        await worker.disconnect()
        await worker.accept()
        await worker.shake_hands()

        assert await worker.ready() == worker.ready_detail


@pytest.mark.asyncio
async def test_an_orphan_does_not_follow_an_impostor(tmp_path: Path) -> None:
    async with running_worker(tmp_path, orphan_lifetime_ms=10_000) as worker:
        real, worker.secret = worker.secret, b"i" * 32
        await worker.disconnect()
        await worker.accept()
        with pytest.raises(HandshakeError) as caught:
            await worker.shake_hands()
        assert caught.value.reason is HandshakeReason.BAD_PROOF
        await worker.disconnect()
        worker.secret = real
        await worker.accept()
        await worker.shake_hands()

        assert await worker.ready() == worker.ready_detail


@pytest.mark.asyncio
async def test_an_orphans_life_ends(tmp_path: Path) -> None:
    async with running_worker(tmp_path, orphan_lifetime_ms=300) as worker:
        await worker.stop_listening()

        assert await worker.exit_code() == ExitCode.GATEWAY_VANISHED
        assert "no gateway came back within 0.3 s" in worker.log


@pytest.mark.asyncio
async def test_a_rejected_orphan_leaves_but_one_that_came_too_early_tries_again(tmp_path: Path) -> None:
    async with running_worker(tmp_path, orphan_lifetime_ms=10_000) as worker:
        await worker.disconnect()
        for reason in ("ALREADY_CONNECTED", "WRONG_SESSION"):
            await worker.accept()
            await worker.receive()
            await worker.reject(reason)
            with pytest.raises(WorkerGone):
                await worker.receive()

        assert await worker.exit_code() == ExitCode.GATEWAY_UNREACHABLE
        assert "WRONG_SESSION" in worker.log


@pytest.mark.asyncio
async def test_a_gateway_that_cannot_prove_itself_gets_nothing(tmp_path: Path) -> None:
    async with running_worker(tmp_path, is_ready=False) as worker:
        await worker.receive()
        worker.send(WorkerEnvelope(challenge={"gateway_nonce": b"n" * 32}))
        await worker.receive()
        worker.send(WorkerEnvelope(welcome={"mac": b"m" * 32}))

        assert await until_gone(worker) == ExitCode.GATEWAY_UNREACHABLE
        assert "BAD_GATEWAY_PROOF" in worker.log


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        frame(b"\xff\xff\xff"),
        frame(WorkerEnvelope(ready=Ready(backend="x")).SerializeToString()),
    ],
)
async def test_garbage_before_the_handshake_ends_the_worker(tmp_path: Path, data: bytes) -> None:
    async with running_worker(tmp_path, is_ready=False) as worker:
        worker.send_raw(data)

        assert await until_gone(worker) == ExitCode.GATEWAY_UNREACHABLE


@pytest.mark.asyncio
async def test_garbage_later_cuts_the_connection_and_an_orphan_comes_back(tmp_path: Path) -> None:
    async with running_worker(tmp_path, orphan_lifetime_ms=10_000) as worker:
        worker.send_raw(b"\xff\xff\xff\xff")
        with pytest.raises(WorkerGone):
            await worker.receive()
        await worker.disconnect()
        await worker.accept()
        await worker.shake_hands()

        assert await worker.ready() == worker.ready_detail


@pytest.mark.asyncio
async def test_a_message_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        worker.send(WorkerEnvelope(ready=Ready(backend="x")))
        worker.send(WorkerEnvelope(correlation_id=5))

        assert (await worker.ask(CommandRequest(get_info=GetInfo()))).info.backend == worker.ready_detail


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("sim", {"profil": "plant"}, "'profile'"),
        ("smi", {}, "did you mean 'sim'"),
    ],
)
async def test_a_backend_that_cannot_start_is_reported_and_the_worker_leaves(
    tmp_path: Path, kind: str, options: dict[str, object], text: str
) -> None:
    async with running_worker(tmp_path, kind, options) as worker:
        assert text in worker.ready_detail
        assert await until_gone(worker) == ExitCode.BACKEND_UNAVAILABLE


@pytest.mark.asyncio
async def test_sigterm_is_an_orderly_stop_and_sigint_is_not_for_workers(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        worker.process.send_signal(signal.SIGINT)
        assert (await worker.ask(CommandRequest(get_info=GetInfo()))).info.backend
        worker.process.send_signal(signal.SIGTERM)

        assert await until_gone(worker) == ExitCode.STOPPED
        assert worker.goodbye == "STOPPED"


@pytest.mark.asyncio
async def test_secrets_and_options_are_neither_logged_nor_in_the_command_line(tmp_path: Path) -> None:
    options = {"users": {"operator": "hunter2"}, "security": "galaxy"}
    async with running_worker(tmp_path, "sim", options) as worker:
        command = c.AuthenticateUserCommand(
            server_handle=(await worker.mx(c.MxCommand(register={"client_name": "x"}))).server_handle,
            user="operator",
            password="hunter3",
        )
        await worker.mx(c.MxCommand(authenticate_user=command))
        command_line = " ".join(psutil.Process(worker.process.pid).cmdline())
        environment = psutil.Process(worker.process.pid).environ()
        worker.process.send_signal(signal.SIGTERM)
        await until_gone(worker)
        told = worker.log + command_line + repr(environment)

        assert "hunter" not in told
        assert worker.startup.secret.hex() not in told
        assert repr(worker.startup.secret)[2:-1] not in told


def test_without_a_startup_frame_the_worker_says_what_is_wrong() -> None:
    done = subprocess.run(
        (sys.executable, "-I", "-m", "mxgw_worker"), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    assert done.returncode == ExitCode.BAD_STARTUP
    assert "the gateway starts workers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.asyncio
async def test_a_worker_that_finds_nobody_at_its_endpoint_leaves(tmp_path: Path) -> None:
    async with running_worker(tmp_path, is_ready=False) as worker:
        lonely = WorkerDriver(worker.startup, (sys.executable, "-I", "-m", "mxgw_worker"), tmp_path / "lonely.log")
        lonely.startup.endpoint = str(platform.endpoint_in(tmp_path, "nobody"))
        await lonely.start()

        assert await lonely.exit_code() == ExitCode.GATEWAY_UNREACHABLE


def descriptor_0_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/fd/0").readlink()


@pytest.mark.asyncio
async def test_the_pipe_of_the_secret_is_closed_and_nothing_else_becomes_descriptor_0(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        assert descriptor_0_of(worker.process.pid) == Path("/dev/null")


@pytest.mark.asyncio
async def test_a_worker_is_small(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        info = (await worker.ask(CommandRequest(get_info=GetInfo()))).info

        assert info.rss_bytes <= 30 * 1024 * 1024
        assert abs(info.rss_bytes - psutil.Process(worker.process.pid).memory_info().rss) < 4 * 1024 * 1024


def modules_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run((sys.executable, "-I", "-c", script), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_worker_imports_neither_the_gateway_nor_grpc() -> None:
    modules = modules_after(
        "import mxgw_worker.main\nfrom mxgw_worker.backends import create_backend\ncreate_backend('sim', {})"
    )
    forbidden = {"mxgw_core", "mxgw_client", "grpc", "pydantic", "dynaconf", "asyncua", "importlib.metadata"}

    assert "mxgw_worker.worker" in modules
    assert not forbidden & modules


def test_the_shared_code_of_connections_needs_protobuf_and_the_standard_library_only() -> None:
    modules = modules_after(
        "import mxgw_worker.ipc.framing, mxgw_worker.ipc.handshake, mxgw_worker.ipc.startup, mxgw_worker.platform"
    )
    ours = {name for name in modules if name.split(".")[0] in {"mxgw_worker", "mxgw_core", "grpc"}}
    ours = {name for name in ours if not name.startswith("mxgw_worker.platform")}

    assert ours == {"mxgw_worker", "mxgw_worker.ipc"} | {
        f"mxgw_worker.ipc.{name}" for name in ("framing", "handshake", "startup")
    }


def test_no_backend_is_imported_before_it_is_asked_for() -> None:
    modules = modules_after("import mxgw_worker.main")

    assert not {name for name in modules if name.startswith("mxgw_worker.backends.")} - {
        "mxgw_worker.backends.base",
        "mxgw_worker.backends.partial",
        "mxgw_worker.backends.registry",
    }


@pytest.mark.asyncio
async def test_a_missing_package_of_a_backend_names_the_cure(tmp_path: Path) -> None:
    # A finder that refuses one package is what an environment without it looks like to an import.
    script = textwrap.dedent(
        """
        import sys

        class Without:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "asyncua":
                    raise ModuleNotFoundError("No module named 'asyncua'", name="asyncua")

        sys.meta_path.insert(0, Without())
        from mxgw_worker.main import main
        sys.exit(main())
        """
    )
    async with running_worker(
        tmp_path, "opcua", {"url": "opc.tcp://127.0.0.1:1"}, command=(sys.executable, "-I", "-c", script)
    ) as worker:
        assert "pip install 'mxgw[opcua]'" in worker.ready_detail


@pytest.mark.asyncio
async def test_ten_thousand_first_values_arrive_in_order_without_a_gap(tmp_path: Path) -> None:
    options = {"profile": "load", "items": 10_000, "rate": 0.0}
    async with running_worker(tmp_path, "sim", options, outbox_events=20_000) as worker:
        await subscribe(worker, 10_000)
        events = await worker.until_events(10_000)

        assert [event.sequence for event in events] == list(range(1, 10_001))
        assert worker.gaps == []


@pytest.mark.asyncio
async def test_writes_and_reads_work_end_to_end(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim") as worker:
        server = (await worker.mx(c.MxCommand(register={"client_name": "test"}))).server_handle
        nodes, found = [""], ""
        while nodes and not found:
            browse = (await worker.ask(CommandRequest(browse=Browse(parent=nodes.pop(0))))).browse
            nodes += [node.path for node in browse.nodes if node.has_children]
            found = next((n.reference for n in browse.nodes if n.writeable and n.security_classification == 2), "")
        read = c.ReadBulkCommand(server_handle=server, items=[{"item_definition": found}])
        (before,) = (await worker.mx(c.MxCommand(read_bulk=read))).bulk.items
        item = (await worker.mx(c.MxCommand(add_item={"server_handle": server, "item_definition": found}))).item_handle
        await worker.mx(c.MxCommand(advise_supervisory={"server_handle": server, "item_handle": item}))
        await worker.mx(c.MxCommand(read_bulk=read))
        write = c.WriteCommand(
            server_handle=server, item_handle=item, value=before.value.value, wait_for_completion=True
        )
        written = await worker.mx(c.MxCommand(write=write))

        assert before.hresult == 0
        assert written.write.completed
        assert [status.success for status in written.statuses] == [-1]


@pytest.mark.asyncio
async def test_a_backend_that_cannot_be_stopped_does_not_hold_the_process(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys, threading
        from mxgw_worker.backends import registry
        from mxgw_worker.testing import ScriptedBackend

        class Stuck(ScriptedBackend):
            async def register(self, client_name):
                await asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

        registry._BUILT_IN["stuck"] = ("__main__", "Stuck")
        from mxgw_worker.main import main
        sys.exit(main())
        """
    )
    async with running_worker(tmp_path, "stuck", command=(sys.executable, "-I", "-c", script)) as worker:
        worker.request(CommandRequest(mx=c.MxCommand(register={"client_name": "x"})))
        worker.send(WorkerEnvelope(stop=Stop(grace_ms=100)))

        assert await until_gone(worker) == ExitCode.STOPPED
        assert worker.goodbye == "STOPPED"
        assert "leaving without it" in worker.log
