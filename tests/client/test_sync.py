"""The client without `await`, against a real gateway in another process."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest

import mxgw_client
from mxgw_client import DataChange, EventBatch, Heartbeat, Start, StreamOpened, errors, sync
from mxgw_client.sync import _loop

TAGS = ("Tank_001.Level", "Tank_002.Level", "Pump_001.Speed")


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mxgw-client"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sync.Gateway, mxgw_client.Gateway),
        (sync.Session, mxgw_client.Session),
        (sync.Subscription, mxgw_client.Subscription),
    ],
)
def test_the_facade_has_every_call_with_the_same_parameters(ours: type, theirs: type) -> None:
    names = [name for name in dir(theirs) if not name.startswith("_")]
    differing = [
        name
        for name in names
        if inspect.isfunction(getattr(theirs, name))
        and [*inspect.signature(getattr(theirs, name)).parameters.values()]
        != [*inspect.signature(getattr(ours, name)).parameters.values()]
    ]

    assert [name for name in names if not hasattr(ours, name)] == []
    assert differing == []
    assert inspect.signature(sync.connect).parameters == inspect.signature(mxgw_client.connect).parameters


def test_a_script_reads_writes_and_follows(gateway_process: str) -> None:
    with sync.connect(gateway_process) as gateway, gateway.open_session(client_name="script") as session:
        assert session.read("Tank_001.Level").is_good

        session.write_once("Bench_001.Amount", 12.5)

        assert session.read("Bench_001.Amount").value == 12.5
        assert [node.name for node in session.browse()] == ["Plant"]
        assert session.session_id in [entry.session_id for entry in gateway.sessions()]

        with session.subscribe(*TAGS) as subscription:
            seen: set[str] = set()
            with session.events() as events:
                assert isinstance(next(events), StreamOpened)
                for item in events:
                    if isinstance(item, DataChange) and item.is_good:
                        seen.add(item.reference)
                        assert events.position == item.position
                    if seen >= set(TAGS):
                        break
            assert subscription["Tank_001.Level"].reference == "Tank_001.Level"
            assert list(events) == []
    assert client_threads() == []


def test_errors_come_out_as_they_are(gateway_process: str) -> None:
    with (
        sync.connect(gateway_process) as gateway,
        gateway.open_session() as session,
        pytest.raises(errors.MxAccessError),
    ):
        session.advise(4711)
    with pytest.raises(RuntimeError, match="not connected"):
        gateway.open_session()
    with pytest.raises(errors.GatewayUnreachable), sync.connect("127.0.0.1:1"):
        pass
    assert client_threads() == []


def test_a_wait_may_be_given_up_without_losing_anything(gateway_process: str) -> None:
    with sync.connect(gateway_process) as gateway, gateway.open_session() as session:
        events = session.events(heartbeat_interval_s=1)
        assert isinstance(events.next(5), StreamOpened)
        with pytest.raises(TimeoutError):
            events.next(0.01)
        with pytest.raises(TimeoutError):
            events.next(0.01)
        item = session.add_item("Bench_001.Count")
        session.advise(item)
        sequences = []
        while len(sequences) < 2:
            read = events.next(10)
            if not isinstance(read, Heartbeat):
                assert isinstance(read, DataChange)
                sequences.append(read.sequence)

        assert sequences == [1, 2]


def test_batches_follow_what_was_begun(gateway_process: str) -> None:
    with sync.connect(gateway_process) as gateway, gateway.open_session() as session:
        outcomes = session.subscribe_bulk([f"Tank_00{n}.{name}" for n in (1, 2) for name in ("Level", "Volume")])
        assert all(outcome.ok for outcome in outcomes)
        time.sleep(0.2)
        events = session.events(start=Start.OLDEST)
        first = [next(events) for _ in range(2)]
        sequences = [first[1].sequence]
        for frame in events.batches():
            if isinstance(frame, EventBatch):
                sequences += [event.sequence for event in frame]
                assert events.position == frame.position
            if len(sequences) >= 8:
                break

        assert sequences == list(range(1, len(sequences) + 1))


def test_a_stream_that_is_dropped_ends_at_the_gateway(gateway_process: str) -> None:
    with sync.connect(gateway_process) as gateway, gateway.open_session() as session:
        for waits in (False, True):
            events = session.events()
            next(events)
            if waits:
                with pytest.raises(TimeoutError):
                    events.next(0.01)

            assert session.info().subscribers == 1

            del events
            deadline = time.monotonic() + 60
            while session.info().subscribers:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_gateways_share_one_thread_and_the_last_one_ends_it(gateway_process: str) -> None:
    with sync.connect(gateway_process) as first:
        with sync.connect(gateway_process) as second:
            assert len(client_threads()) == 1
            assert first.ping().round_trip_s > 0
        assert len(client_threads()) == 1
        assert first.info().default_backend == "sim"
        with pytest.raises(RuntimeError, match="not connected"):
            second.ping()
    assert client_threads() == []


def test_several_threads_may_use_one_session(gateway_process: str) -> None:
    with sync.connect(gateway_process) as gateway, gateway.open_session() as session:
        values: list[object] = []
        threads = [
            threading.Thread(target=lambda: values.append(session.read("Bench_001.Constant").value)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(values) == 8
        assert len(set(map(str, values))) == 1


def test_using_it_in_its_own_loop_is_refused_instead_of_waiting_for_ever() -> None:
    thread = _loop.acquire()
    try:

        async def inner() -> None:
            thread.run(inner())

        with pytest.raises(RuntimeError, match="cannot be used here"):
            thread.run(inner())
    finally:
        _loop.release()


def test_an_interrupted_call_has_let_go_before_it_leaves() -> None:
    thread = _loop.acquire()
    steps = []

    async def call() -> None:
        try:
            await asyncio.sleep(0.1)
            if os.name == "nt":  # there, os.kill ends a process
                signal.raise_signal(signal.SIGINT)
            else:
                os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            steps.append("let go")

    try:
        with pytest.raises(KeyboardInterrupt):
            thread.run(call())
        assert steps == ["let go"]
    finally:
        _loop.release()


SCRIPT = """
import sys
from mxgw_client import sync
with sync.connect(sys.argv[1]) as gateway, gateway.open_session() as session:
    print(session.session_id, flush=True)
    try:
        for event in session.events():
            pass
    except KeyboardInterrupt:
        print("interrupted", session.ping().round_trip_s > 0, flush=True)
        raise SystemExit(3)
"""


def test_ctrl_c_leaves_a_loop_and_the_session_is_closed(gateway_process: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, gateway_process], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        session_id = script.stdout.readline().strip()
        wait_for_subscriber(gateway_process, session_id)
        script.send_signal(signal.SIGINT)
        out, err = script.communicate(timeout=300)

    assert (out, err, script.returncode) == ("interrupted True\n", "", 3)
    with sync.connect(gateway_process) as gateway:
        assert session_id not in [entry.session_id for entry in gateway.sessions()]


def wait_for_subscriber(target: str, session_id: str) -> None:
    deadline = time.monotonic() + 60
    with sync.connect(target) as gateway:
        session = gateway.attach_session(session_id)
        while session.info().subscribers == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_script_that_forgets_to_close_still_ends(gateway_process: str) -> None:
    code = (
        "import sys\nfrom mxgw_client import sync\n"
        "gateway = sync.connect(sys.argv[1]).open()\nprint(gateway.ping().round_trip_s > 0)\n"
        "events = gateway.open_session().open().events()\nnext(events)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, gateway_process], capture_output=True, text=True, check=False, timeout=300
    )

    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_a_wait_in_parts_ends_with_the_result_or_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "_WAIT_S", 0.001)
    waiting: Future[int] = Future()
    with pytest.raises(TimeoutError):
        _loop._result_of(waiting, 0.005)
    waiting.set_result(7)

    assert _loop._result_of(waiting) == 7
