"""The start-up frame on standard input."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.startup import StartupError, backend_options, read_startup, write_startup
from mxgw_worker.platform import resident_bytes, start_ticks
from mxgw_worker.testing.driver import startup_for


def good() -> WorkerStartup:
    return startup_for(Path("/run/w.sock"), "sim", {"profile": "plant"})


def test_what_is_written_is_read_and_nothing_beyond() -> None:
    stream = BytesIO()
    write_startup(stream, good_one := good())
    stream.write(b"more")
    stream.seek(0)

    assert read_startup(stream) == good_one
    assert stream.read() == b"more"
    assert backend_options(good_one) == {"profile": "plant"}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("protocol_version", 9, "protocol_version is 9"),
        ("session_id", "", "session_id is empty"),
        ("endpoint", "", "endpoint is empty"),
        ("backend_kind", "", "backend_kind is empty"),
        ("secret", b"short", "secret has 5 bytes"),
        ("outbox_events", 0, "outbox_events is 0"),
        ("outbox_bytes", 0, "outbox_bytes is 0"),
        ("heartbeat_interval_ms", 0, "heartbeat_interval_ms is 0"),
        ("write_completion_timeout_ms", 0, "write_completion_timeout_ms is 0"),
        ("read_timeout_ms", 0, "read_timeout_ms is 0"),
        ("maximum_items", 0, "maximum_items is 0"),
        ("maximum_reference_bytes", 0, "maximum_reference_bytes is 0"),
        ("maximum_frame_bytes", 100, "at least 4096"),
        ("log_level", "LOUD", "log_level 'LOUD'"),
        ("backend_options_json", "{", "no JSON"),
        ("backend_options_json", "[1]", "must hold an object"),
    ],
)
def test_a_bad_field_is_named(field: str, value: object, text: str) -> None:
    startup = good()
    setattr(startup, field, value)

    with pytest.raises(StartupError, match=text):
        read_startup(BytesIO(frame(startup.SerializeToString())))


def test_an_error_in_the_options_does_not_show_them() -> None:
    startup = good()
    startup.backend_options_json = '{"password": "hunter2"'

    with pytest.raises(StartupError) as caught:
        backend_options(startup)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is empty"),
        (b"\0\0", "inside a frame"),
        (frame(b"half")[:-1], "inside a frame"),
        (b"\0\0\0\0", "length 0"),
        (b"GET / HTTP/1.1\r\n\r\n", "the limit is 1048576"),
        (frame(b"\xff\xff\xff"), "no WorkerStartup"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(StartupError, match=text):
        read_startup(BytesIO(data))


def test_options_that_do_not_fit_are_refused_before_they_are_written() -> None:
    startup = good()
    startup.backend_options_json = '{"x": "' + "y" * (1 << 20) + '"}'
    stream = BytesIO()

    with pytest.raises(StartupError, match="the limit is 1048576"):
        write_startup(stream, startup)
    assert stream.getvalue() == b""


def test_the_start_time_of_a_process_is_known_whatever_its_name() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'x) (y 1 2', 0, 0, 0); print('renamed', flush=True); input()"
    with subprocess.Popen((sys.executable, "-c", rename), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        assert "x) (y" in Path(f"/proc/{child.pid}/stat").read_text()
        ticks = start_ticks(child.pid)
        child.stdin.close()

    assert ticks >= start_ticks(os.getpid()) > 0


def test_the_start_time_of_no_process_is_zero() -> None:
    assert start_ticks(2**22 + 1) == 0


def test_resident_memory_is_known() -> None:
    assert 10 * 1024 * 1024 < resident_bytes() < 10 * 1024 * 1024 * 1024
