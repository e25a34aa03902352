"""One session's worker as the gateway sees it, with a scripted worker at the other end of a real socket."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from support.distributing import Told
from support.events import EPOCH, taken, told
from support.peers import SECRET, SESSION, ScriptedWorker, block, gap, scripted_worker
from support.waiting import until

from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import InvalidRequest, SessionEnded, WorkerStartFailed
from mxgw_core.api.events import DropOldest, QueueLimits, Retention
from mxgw_core.api.types import CloseReason
from mxgw_core.api.workers import WorkerSpawn
from mxgw_core.config import load_settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Gap
from mxgw_core.events.start import Start
from mxgw_core.plugins import PluginHost
from mxgw_core.workers import intake
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.session_worker import SessionWorker, WorkerEnd

pytestmark = pytest.mark.asyncio

FRAME_BYTES = 64 * 1024


@dataclass
class Setting:
    """A worker that listens; its process is the test itself."""

    worker: SessionWorker
    distributor: Distributor
    endpoint: Path
    data: DataDirectory

    @property
    def items(self) -> ItemBook:
        assert self.distributor.items is not None
        return self.distributor.items

    async def ended(self) -> WorkerEnd:
        async with asyncio.timeout(60):
            return await asyncio.shield(self.worker.ended)

    async def head(self, head: int) -> None:
        """Wait for the log to reach `head`."""
        await until(lambda: self.distributor.log.head >= head)

    def what_arrived(self) -> list[object]:
        subscriber = self.distributor.attach(
            "reader", Start.OLDEST_RETAINED, limits=QueueLimits(0, 0, 0.0), policy=Told(None)
        )
        try:
            return told(taken(subscriber))
        finally:
            self.distributor.detach(subscriber)


def _worker(data: DataDirectory, **overrides: object) -> tuple[SessionWorker, Distributor]:
    settings = load_settings(
        overrides={"workers.frame_bytes": FRAME_BYTES, "workers.heartbeat_interval_s": 0.1, **overrides},
        environ={},
        directory=data.path,
    ).settings
    items = ItemBook(100)
    distributor = Distributor(unattached=Retention(1000, 1 << 20, 0.0), items=items)
    spawn = WorkerSpawn(
        session_id=SESSION,
        backend="sim",
        endpoint=data.socket_of(SESSION),
        secret=SECRET,
        owner="anonymous",
        tag="",
        client_name="test",
        lease_s=60.0,
    )
    worker = SessionWorker(
        spawn,
        settings=settings,
        data=data,
        distributor=distributor,
        items=items,
        plugins=PluginHost(),
        pool=WarmPool(0, "sim", data.log_of_spare, remove=data.remove_later),
    )
    return worker, distributor


@pytest_asyncio.fixture
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    with DataDirectory(tmp_path_factory.mktemp("w")) as data:
        worker, distributor = _worker(data)
        await worker._endpoint.listen()
        try:
            yield Setting(worker, distributor, data.socket_of(SESSION), data)
        finally:
            await worker.stop()


@asynccontextmanager
async def _ready(setting: Setting) -> AsyncIterator[ScriptedWorker]:
    async with scripted_worker(setting.endpoint) as peer:
        await peer.shake()
        peer.send(w.WorkerEnvelope(ready=w.Ready(backend="scripted")))
        yield peer


async def test_events_and_gaps_arrive_in_their_order_and_are_acknowledged(setting: Setting) -> None:
    async with _ready(setting) as peer:
        peer.send(block(1, 3), gap(4, 5), block(6, 6))
        ack = await peer.receive_kind("ack")

        assert ack.ack.sequence == 6

    assert setting.distributor.epoch == EPOCH
    assert setting.what_arrived() == [1, 2, 3, (4, 5), 6]


async def test_many_events_are_acknowledged_without_waiting(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_DELAY_S", 60.0)
    async with _ready(setting) as peer:
        peer.send(block(1, 255), block(256, 256))
        ack = await peer.receive_kind("ack")

        assert ack.ack.sequence == 256


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(block(5, 5), id="a hole"),
        pytest.param(block(3, 4), id="an overlap"),
        pytest.param(block(1, 3), id="the same again"),
        pytest.param(block(4, 3), id="an empty range"),
        pytest.param(block(0, 0), id="zero"),
        pytest.param(gap(5, 6), id="a gap behind a hole"),
        pytest.param(gap(2, 4), id="a gap over what was sent"),
        pytest.param(gap(4, 3), id="an empty gap"),
    ],
)
async def test_wrong_numbering_ends_the_worker_and_keeps_what_was_right(
    setting: Setting, bad: w.WorkerEnvelope
) -> None:
    async with _ready(setting) as peer:
        peer.send(block(1, 3), bad, block(4, 4))
        end = await setting.ended()
        await peer.ended()

    assert end.reason is CloseReason.WORKER_PROTOCOL_ERROR
    assert "numbering" in end.detail
    assert setting.what_arrived() == [1, 2, 3]


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        pytest.param(w.WorkerEnvelope(correlation_id=7, reply=w.CommandReply()), "not sent (7)", id="reply"),
        pytest.param(w.WorkerEnvelope(reply=w.CommandReply()), "not sent (0)", id="reply to nothing"),
        pytest.param(w.WorkerEnvelope(ready=w.Ready(backend="again")), "Ready twice", id="ready"),
        pytest.param(w.WorkerEnvelope(correlation_id=7), "an empty message", id="empty"),
        *(
            pytest.param(w.WorkerEnvelope(**{name: kind()}), f"sent {name}", id=name)  # type: ignore[arg-type]
            for name, kind in {
                "hello": w.Hello,
                "challenge": w.Challenge,
                "proof": w.Proof,
                "welcome": w.Welcome,
                "reject": w.Reject,
                "command": w.CommandRequest,
                "ack": w.EventAck,
                "ping": w.Ping,
                "stop": w.Stop,
            }.items()
        ),
    ],
)
async def test_what_is_not_the_workers_to_send_ends_it(setting: Setting, bad: w.WorkerEnvelope, detail: str) -> None:
    async with _ready(setting) as peer:
        peer.send(block(1, 2), bad, block(3, 3))
        end = await setting.ended()
        await peer.ended()

    assert end.reason is CloseReason.WORKER_PROTOCOL_ERROR
    assert detail in end.detail
    assert setting.what_arrived() == [1, 2]


def items(*records: w.ItemRecord) -> w.WorkerEnvelope:
    return w.WorkerEnvelope(item_records=w.ItemRecords(records=records))


async def test_what_the_worker_tells_of_items_is_known_before_what_comes_behind_it(setting: Setting) -> None:
    added = w.ItemRecord(item_serial=7, server_handle=1, item_handle=2, item_definition="Tank_001.Level")
    async with _ready(setting) as peer:
        peer.send(items(added), block(1, 1))
        await setting.head(1)
        item = setting.items.current(1, 2)

        assert item is not None
        assert (item.serial, item.item_definition) == (7, "Tank_001.Level")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param([w.ItemRecord(item_serial=0, item_handle=1)], id="serial 0"),
        pytest.param([w.ItemRecord(item_serial=n, item_handle=n) for n in (5, 5)], id="a serial twice"),
        pytest.param([w.ItemRecord(item_serial=n, item_handle=n) for n in range(1, 200)], id="a flood"),
        pytest.param([w.ItemRecord(item_serial=1, ended=True)] * 2, id="ended twice"),
    ],
)
async def test_item_records_that_cannot_be_true_end_the_worker(setting: Setting, bad: list[w.ItemRecord]) -> None:
    async with _ready(setting) as peer:
        peer.send(block(1, 2), items(*bad), block(3, 3))
        end = await setting.ended()
        await peer.ended()

    assert end.reason is CloseReason.WORKER_PROTOCOL_ERROR
    assert "reported an impossible item" in end.detail
    assert setting.what_arrived() == [1, 2]


async def test_events_that_are_none_end_the_worker_where_somebody_has_to_look(setting: Setting) -> None:
    setting.distributor.attach("s1", Start.NOW, limits=QueueLimits(3, 0, 0.0), policy=Told(DropOldest(1)))
    async with _ready(setting) as peer:
        peer.send(block(1, 5, b"\xff" * 40))
        end = await setting.ended()

    assert end.reason is CloseReason.WORKER_PROTOCOL_ERROR
    assert "events that are none" in end.detail


async def test_a_reason_nobody_knows_is_a_gap_all_the_same(setting: Setting) -> None:
    async with _ready(setting) as peer:
        peer.send(gap(1, 2, reason=99))
        await setting.head(2)
    held = setting.distributor.log.read(0, 1)

    assert isinstance(held, Gap)
    assert held.reason == e.GAP_REASON_UNSPECIFIED
    assert setting.what_arrived() == [(1, 2)]


async def test_a_gap_of_millions_disconnects_nobody(setting: Setting) -> None:
    subscriber = setting.distributor.attach("s1", Start.NOW, limits=QueueLimits(10, 0, 0.0), policy=Told(DropOldest(1)))
    async with _ready(setting) as peer:
        peer.send(gap(1, 5_000_000), block(5_000_001, 5_000_002))
        await setting.head(5_000_002)

    assert told(taken(subscriber)) == [(1, 5_000_000), 5_000_001, 5_000_002]


async def test_refused_connections_leave_nothing_in_the_gateway(setting: Setting) -> None:
    async with _ready(setting) as peer:
        for _ in range(50):
            async with scripted_worker(setting.endpoint) as false:
                false.send_raw(bytes(4))
                await false.ended()
        peer.send(block(1, 1))
        await setting.head(1)
        gc.collect()

        assert len(setting.worker._endpoint._connections) <= 2


async def test_commands_and_replies_pair_by_their_number(setting: Setting) -> None:
    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        call = tasks.create_task(setting.worker.commands.call(w.CommandRequest(get_info=w.GetInfo()), 5.0))
        command = await peer.receive_kind("command")

        assert command.command.timeout_ms == 4950

        peer.send(
            w.WorkerEnvelope(
                correlation_id=command.correlation_id, reply=w.CommandReply(info=w.WorkerInfo(backend="scripted"))
            )
        )

    assert call.result().info.backend == "scripted"


async def test_a_command_larger_than_a_frame_is_refused_and_the_worker_lives_on(setting: Setting) -> None:
    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        with pytest.raises(InvalidRequest, match=r"workers\.frame_bytes"):
            await setting.worker.commands.call(w.CommandRequest(browse=w.Browse(parent="x" * FRAME_BYTES)), 5.0)

        assert len(setting.worker.commands) == 0

        largest = w.CommandRequest(browse=w.Browse(parent="x" * (FRAME_BYTES - 60)))
        tasks.create_task(setting.worker.commands.call(largest, 5.0))
        command = await peer.receive_kind("command")

        assert command.ByteSize() <= FRAME_BYTES

        peer.send(w.WorkerEnvelope(correlation_id=command.correlation_id, reply=w.CommandReply()))


async def test_a_ping_measures_the_round_trip(setting: Setting) -> None:
    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        ping = tasks.create_task(setting.worker.health.ping(5.0))
        token = (await peer.receive_kind("ping")).ping.token
        peer.send(w.WorkerEnvelope(pong=w.Pong(token=token, source_health=e.SOURCE_HEALTH_GOOD)))

    assert 0 <= ping.result() < 5
    assert setting.worker.health.source == e.SOURCE_HEALTH_GOOD


async def test_a_ping_without_an_answer_times_out(setting: Setting) -> None:
    async with _ready(setting):
        with pytest.raises(TimeoutError):
            await setting.worker.health.ping(0.05)


async def test_a_silent_worker_is_found_after_two_and_a_half_heartbeats(setting: Setting) -> None:
    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(setting.worker.supervise())
        await peer.receive_kind("ping")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(60):
            end = await watching
        took = loop.time() - began

    assert end.reason is CloseReason.WORKER_SILENT
    assert took >= 0.2  # the interval is 0.1 s here, and a sign of life is missed after two and a half


async def test_any_sign_of_life_is_good_enough(setting: Setting) -> None:
    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(setting.worker.supervise())
        for number in range(1, 9):
            await peer.receive_kind("ping")
            peer.send(block(number, number))

        assert not watching.done()

        watching.cancel()


async def test_last_words_are_the_reason(setting: Setting) -> None:
    async with _ready(setting) as peer:
        peer.send(w.WorkerEnvelope(goodbye=w.Goodbye(reason="BACKEND_FAILED", detail="the source\x1b[31m is gone")))
        end = await setting.ended()

    assert end.reason is CloseReason.WORKER_EXITED
    assert end.detail == "the worker left: the source\N{REPLACEMENT CHARACTER}[31m is gone"


async def test_a_connection_that_ends_without_a_word_ends_the_worker(setting: Setting) -> None:
    async with _ready(setting) as peer:
        peer.send(block(1, 2))
    end = await setting.ended()

    assert end.reason is CloseReason.WORKER_EXITED
    assert setting.what_arrived() == [1, 2]


async def test_an_answer_that_comes_while_the_worker_leaves_is_no_broken_protocol(setting: Setting) -> None:
    async def call() -> None:
        with pytest.raises(SessionEnded):
            await setting.worker.commands.call(w.CommandRequest(get_info=w.GetInfo()), 5.0)

    async with _ready(setting) as peer, asyncio.TaskGroup() as tasks:
        tasks.create_task(call())
        command = await peer.receive_kind("command")
        setting.worker.commands.fail_all(SessionEnded("closed", close_reason="CLIENT"))
        peer.send(w.WorkerEnvelope(correlation_id=command.correlation_id, reply=w.CommandReply()), block(1, 1))
        await setting.head(1)

        assert not setting.worker.ended.done()


async def test_only_the_gateways_user_has_access_to_the_endpoint(setting: Setting) -> None:
    if sys.platform == "win32":
        from mxgw_worker.platform.windows import security, winapi

        handle = winapi.create_file(str(setting.endpoint), winapi.GENERIC_READ, share=0)
        others = security.others_with_access(handle, security.KERNEL_OBJECT)
        winapi.close(handle)

        assert others == []
    else:
        assert setting.endpoint.stat().st_mode & 0o777 == 0o600


async def test_the_endpoint_is_gone_with_its_worker(setting: Setting) -> None:
    await setting.worker.stop()

    await _nobody_listens(setting.endpoint)


async def _nobody_listens(endpoint: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with scripted_worker(endpoint):
            pass


# with a real process


async def _started(data: DataDirectory, **overrides: object) -> SessionWorker:
    worker, _ = _worker(data, **{"workers.heartbeat_interval_s": 1.0, **overrides})
    try:
        await worker.start()
    except BaseException:
        await worker.stop()
        raise
    return worker


async def test_a_worker_that_leaves_as_told_leaves_no_log_and_counts_as_closed(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        worker = await _started(data)

        assert worker.state == e.WORKER_STATE_READY

        log = data.log_of(SESSION)

        assert log.exists()

        await worker.stop()

    assert worker.ended.result().reason is CloseReason.CLIENT
    assert not log.exists()


async def test_a_worker_that_was_killed_leaves_its_log(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        worker = await _started(data)
        psutil.Process(worker.pid).kill()
        async with asyncio.timeout(60):
            end = await asyncio.shield(worker.ended)
        await worker.stop()

        assert end.reason is CloseReason.WORKER_EXITED
        assert ("left with exit code" if sys.platform == "win32" else "signal 9") in end.detail
        assert data.log_of(SESSION).exists()


async def test_a_backend_that_cannot_start_is_told_with_its_reason_and_leaves_its_log(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        with pytest.raises(WorkerStartFailed, match="no_such_option"):
            await _started(data, **{"backends.sim.no_such_option": 1})

        assert data.log_of(SESSION).exists()
        await _nobody_listens(data.socket_of(SESSION))


async def test_a_worker_that_is_not_ready_in_time_is_ended_and_its_log_stays_as_the_error_says(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        with pytest.raises(WorkerStartFailed) as failed:
            await _started(data, **{"workers.start_timeout_s": 0.01})

        assert "workers.start_timeout_s" in failed.value.message
        assert str(data.log_of(SESSION)) in failed.value.message
        assert data.log_of(SESSION).exists()


async def test_a_false_worker_beside_the_true_one_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        worker = await _started(data)
        async with scripted_worker(data.socket_of(SESSION)) as false:
            assert await false.refusal() == "WRONG_PROCESS"

        async with asyncio.timeout(60):
            await worker.health.ping(5.0)
        await worker.stop()


async def test_a_stopped_process_that_ignores_everything_is_killed_after_its_grace(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        worker = await _started(data, **{"workers.stop_grace_s": 0.2})
        psutil.Process(worker.pid).suspend()
        async with asyncio.timeout(60):
            await worker.stop()

    assert worker.ended.result().reason is CloseReason.CLIENT
