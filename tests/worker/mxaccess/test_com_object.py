"""The backend on a COM object: what only COM can show. The object is our double; it runs in 32-bit Windows Python."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mxaccess import sources
from support.mxaccess.sources import Source, register
from support.waiting import until

from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_ACCESSDENIED, E_NOTIMPL, BackendUnavailable, MxError
from mxgw_worker.backends.mxaccess import MxAccessBackend
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.com import Com
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.sim.testing import RecordingSink

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(sources.missing("com double")), reason=sources.missing("com double")),
]

_IS_32_BIT = sys.maxsize < 2**32
only_32_bit = pytest.mark.skipif(not _IS_32_BIT, reason="MXAccess and its double are 32-bit components")
CO_E_NOTINITIALIZED = 0x800401F0


class _ValueSink(RecordingSink):
    """Keeps the values as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, MxValue] = {}
        self.raw_times: list[str] = []

    def data_change(self, *arguments: object) -> None:  # type: ignore[override]
        item, value, statuses = arguments[1], arguments[2], arguments[5]
        assert isinstance(item, int)
        assert isinstance(value, MxValue)
        if getattr(statuses[0], "raw_category") == 0:  # type: ignore[index]  # noqa: B009
            self.values[item] = MxValue()
            self.values[item].CopyFrom(value)
            self.raw_times.append(str(arguments[6]))
        super().data_change(*arguments[:2], MxValue(), *arguments[3:])  # type: ignore[arg-type]


@pytest.fixture
def knobs() -> Iterator[dict[str, str]]:
    """Environment variables of the double, for the objects that are made in this test."""
    before = dict(os.environ)
    yield os.environ  # type: ignore[misc]
    for name in set(os.environ) - set(before):
        del os.environ[name]


def _source() -> Source:
    source = Source("com double")
    source.sink = _ValueSink()
    return source


RAW = {
    "Empty": MxValue(),
    "Null": MxValue(variant_type=1),
    "I1": MxValue(integer=-2, variant_type=16),
    "I2": MxValue(integer=-2, variant_type=2),
    "I4": MxValue(integer=41, variant_type=3),
    "I8": MxValue(long=1 << 40, variant_type=20),
    "UI1": MxValue(integer=255, variant_type=17),
    "UI2": MxValue(integer=65535, variant_type=18),
    "UI4": MxValue(long=2**32 - 1, variant_type=19),
    "UI8": MxValue(string="18446744073709551615", variant_type=21),
    "Int": MxValue(integer=7, variant_type=22),
    "UInt": MxValue(long=7, variant_type=23),
    "R4": MxValue(float=1.5, variant_type=4),
    "R8": MxValue(double=2.25, variant_type=5),
    "Bool": MxValue(boolean=True, variant_type=11),
    "Bstr": MxValue(string="grüß Ж", variant_type=8),
    "Error": MxValue(integer=-2147467259, variant_type=10),
    "Cy": MxValue(double=12.3456, variant_type=6),
    "Decimal": MxValue(double=3.75, variant_type=14),
    "Date": MxValue(time={"seconds": 1678838400, "nanos": 123_000_000}, variant_type=7),
    "OldDate": MxValue(double=-700000.0, variant_type=7),
    "Numbers": MxValue(array={"integers": {"elements": [1, 2, 3]}}, variant_type=0x2003),
    "Dates": MxValue(
        array={"times": {"elements": [{"seconds": 1678881600}, {"seconds": 1678946400}]}}, variant_type=0x2007
    ),
    "NoNumbers": MxValue(array={"integers": {}}, variant_type=0x2003),
    "Variants": MxValue(
        array={"values": {"elements": [{"integer": 7, "variant_type": 3}, {"string": "x", "variant_type": 8}]}},
        variant_type=0x200C,
    ),
    "Table": MxValue(
        array={"integers": {"elements": [0, 1, 2, 10, 11, 12]}, "dimensions": [2, 3]}, variant_type=0x2003
    ),
}


@only_32_bit
async def test_every_type_of_a_variant_comes_and_goes_back() -> None:
    source = _source()
    sink = source.sink
    assert isinstance(sink, _ValueSink)
    await source.start()
    items = {name: await source.added(f"Raw_001.{name}") for name in RAW}
    for item in items.values():
        await source.backend.advise(source.server, item)
    await until(lambda: len(sink.values) == len(items))

    assert {name: sink.values[item] for name, item in items.items()} == RAW

    # The double keeps what is written to it as the VARIANT that it got, and reports exactly that.
    anything = await source.added("Raw_001.Anything")
    await source.backend.advise(source.server, anything)
    await until(lambda: anything in sink.values)
    for value in RAW.values():
        if value == sink.values[anything]:
            continue
        await source.backend.write(source.server, anything, value, 0)
        await until(lambda expected=value: sink.values[anything] == expected)  # type: ignore[misc]
    await source.backend.stop()


@only_32_bit
async def test_only_the_apartments_thread_has_an_apartment() -> None:
    source = _source()
    await source.start()
    apartment, qualifier = ctypes.c_int(), ctypes.c_int()
    ask = getattr(ctypes, "WinDLL")("ole32").CoGetApartmentType  # noqa: B009  only Windows has it

    def here() -> int:
        return int(ask(ctypes.byref(apartment), ctypes.byref(qualifier))) & 0xFFFFFFFF

    backend = source.backend
    assert isinstance(backend, MxAccessBackend)
    assert backend._apartment is not None

    assert here() == CO_E_NOTINITIALIZED
    assert await backend._apartment.call("CoGetApartmentType", here) == 0
    assert apartment.value in (0, 3)  # APTTYPE_STA, APTTYPE_MAINSTA: the process' first one
    await backend.stop()


@only_32_bit
@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_an_older_object_has_what_its_interface_has(version: int, knobs: dict[str, str]) -> None:
    knobs["LMXDOUBLE_VERSION"] = str(version)
    source = _source()
    await source.start()
    item = await source.added("Bench_001.Count")
    await source.backend.advise(source.server, item)
    await source.value(item)
    missing = {
        2: source.backend.archestra_user_to_id(source.server, "{00000000-0000-0000-0000-000000000000}"),
        3: source.backend.add_item2(source.server, "Count", "Bench_001"),
        4: source.backend.suspend(source.server, item),
        5: source.backend.add_buffered_item(source.server, "Bench_001.Count", ""),
    }
    for since, call in missing.items():
        if since <= version:
            await call
            continue
        with pytest.raises(MxError, match=f"is of version {version} and has no") as refused:
            await call
        assert refused.value.hresult == E_NOTIMPL
    await source.backend.stop()


@only_32_bit
async def test_times_that_are_texts_or_beyond_the_calendar() -> None:
    source = _source()
    sink = source.sink
    assert isinstance(sink, _ValueSink)
    await source.start()
    item = await source.advised("Bench_001.Count")
    texts, bad = await source.advised("Sim.TextTimes"), await source.advised("Sim.BadTimes")
    await source.written(texts, True)
    source.sink.take()
    moment_ns = 1_700_000_000_250_000_000
    await source.backend.write2(source.server, item, MxValue(integer=5), moment_ns, 0)
    assert (await source.value(item)).time_ns == moment_ns
    assert sink.raw_times[-1] == "11/14/2023 10:13:20.250 PM"

    source.sink.take()
    await source.written(bad, True)
    source.sink.take()
    await source.written(item, 6)
    assert (await source.value(item)).time_ns is None
    assert sink.raw_times[-1] == "-700000.0"
    await source.backend.stop()


@only_32_bit
async def test_statuses_by_value_are_read_too() -> None:
    source = _source()
    await source.start()
    switch = await source.advised("Sim.StatusesByValue")
    await source.written(switch, True)
    source.sink.take()
    wrong = await source.added("Nobody.Count")
    await source.backend.advise(source.server, wrong)

    assert (await source.value(wrong)).detail == 8
    await source.backend.stop()


@only_32_bit
async def test_without_a_licence_the_item_and_the_start_say_so(knobs: dict[str, str]) -> None:
    source = _source()
    await source.start()
    with pytest.raises(MxError, match="run-time licence is missing") as refused:
        await source.added("Denied.Count")
    assert refused.value.hresult == E_ACCESSDENIED
    await source.backend.stop()

    knobs["LMXDOUBLE_NO_LICENCE"] = "1"
    with pytest.raises(BackendUnavailable, match=r"licence is missing.*E_ACCESSDENIED, 0x80070005"):
        await MxAccessBackend({}).start(RecordingSink())


@only_32_bit
async def test_a_call_that_hangs_is_found() -> None:
    register()
    sink = RecordingSink()
    backend = MxAccessBackend({"slow_call_s": 0.2, "call_limit_s": 1.0})
    await backend.start(sink)
    server = await backend.register("test")
    item = await backend.add_item(server, "Sim.Hang")
    await backend.advise(server, item)
    await until(lambda: any(event.value is not None for event in sink.events))
    await backend.write(server, item, MxValue(double=3.0), 0)
    await until(lambda: bool(sink.failures))

    assert sink.healths[-1] == SOURCE_HEALTH_DEGRADED
    assert "has not returned from the delivery of an event for 1 s" in sink.failures[0]
    await backend.stop()


class _Counter:
    """Implements `ComEvents`. Counts data changes in the thread of the apartment."""

    def __init__(self) -> None:
        self.changes = 0

    def data_change(self, *event: object) -> None:
        self.changes += 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *event: None


@only_32_bit
async def test_commands_have_their_turn_however_many_events_a_message_brings(knobs: dict[str, str]) -> None:
    """The double sends 2,000 events for one message of its timer when it is late, and always has the next one then."""
    from mxgw_worker.backends.mxaccess.windows.pump import WindowsPump

    def connect() -> Com:
        from mxgw_worker.backends.mxaccess.windows.lmx_proxy import LmxProxy

        return LmxProxy(counter, Dates(local=False))

    def advise() -> None:
        for number in range(1, 101):
            com.advise(server, com.add_item(server, f"Load.Item{number:05d}"))

    knobs["LMXDOUBLE_RATE"] = "1e6"
    register()
    counter = _Counter()
    apartment = Apartment(WindowsPump(), "test")
    com = await apartment.start(connect, "its creation")
    server = await apartment.call("Register", lambda: com.register("test"))
    await apartment.call("Advise", advise)
    await until(lambda: counter.changes > 20_000)
    before = counter.changes
    await apartment.call("Register", lambda: com.register("another"))
    passed = counter.changes - before
    await apartment.call("its release", lambda: (com.unregister(server), com.release()))
    await apartment.end()

    assert passed < 20_000


@only_32_bit
async def test_a_value_survives_the_garbage_collector_and_a_long_run() -> None:
    """Nothing of an event or a call is kept, and no reference is released in another thread."""
    source = _source()
    await source.start()
    item = await source.advised("Bench_001.Texts[]")
    resident = _resident_bytes()
    for number in range(300):
        source.sink.take()
        await source.written(item, [f"{number} " * 1000] * 50)
        await source.value(item)
    grown = _resident_bytes() - resident

    # 300 arrays of 50 texts of about 4,000 characters are 60 MB in each direction.
    assert grown < 30_000_000
    await source.backend.stop()


def _resident_bytes() -> int:
    from mxgw_worker.platform import resident_bytes

    return resident_bytes()


@pytest.mark.skipif(_IS_32_BIT, reason="a 32-bit Python is what it needs")
async def test_a_64_bit_python_is_refused_in_words() -> None:
    with pytest.raises(BackendUnavailable, match=r"needs a 32-bit Python.*in a 64-bit one \(.*python.exe\)"):
        MxAccessBackend({})


@only_32_bit
async def test_an_object_that_is_not_registered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "register", lambda: None)
    library = getattr(ctypes, "OleDLL")(os.environ[sources.com_double.VARIABLE])  # noqa: B009
    library.DllUnregisterServer()
    try:
        with pytest.raises(BackendUnavailable, match=r"not registered for 32-bit programs \(REGDB_E_CLASSNOTREG"):
            await MxAccessBackend({}).start(RecordingSink())
    finally:
        library.DllRegisterServer()


def _objects() -> int:
    """Return 0 when no object of the double is left, and 1 otherwise."""
    return int(getattr(ctypes, "WinDLL")(os.environ[sources.com_double.VARIABLE]).DllCanUnloadNow())  # noqa: B009


@only_32_bit
async def test_the_object_is_gone_when_the_backend_has_stopped_also_after_errors() -> None:
    """Without the garbage collector, which would release it in any thread."""
    gc.collect()
    gc.disable()
    try:
        source = _source()
        await source.start()
        item = await source.advised("Bench_001.Count")
        backend = source.backend
        assert isinstance(backend, MxAccessBackend)
        com, apartment = backend._com, backend._apartment
        assert com is not None
        assert apartment is not None
        for _ in range(3):
            with pytest.raises(MxError):
                await backend.advise(source.server, 99)
            with pytest.raises(MxError, match="plain bytes"):
                await backend.write(source.server, item, MxValue(opaque=b"x"), 0)
        # Behind the backend's back, so that taking down the item fails.
        await apartment.call("RemoveItem", lambda: com.remove_item(source.server, item))
        assert _objects() == 1
        await backend.stop()

        assert _objects() == 0
    finally:
        gc.enable()


@only_32_bit
async def test_events_that_come_within_a_call_are_delivered_in_their_order(knobs: dict[str, str]) -> None:
    knobs["LMXDOUBLE_PUMP_MS"] = "60"
    source = Source("com double")
    knobs["LMXDOUBLE_RESOLVE_MS"] = "0"
    await source.backend.start(source.sink)
    source.server = await source.backend.register("test")
    item = await source.added("Bench_001.Constant")
    await source.backend.advise(source.server, item)
    assert [event.value for event in source.of(item)] == [42]

    scan = await source.added("AppEngine_001.ScanCount")
    await source.backend.advise(source.server, scan)
    target = await source.advised("Bench_001.Count")
    for number in range(1, 4):
        await source.backend.write(source.server, target, MxValue(integer=number), 0)
    await until(lambda: sum(event.kind == "write_complete" for event in source.of(target)) == 3)
    await until(lambda: source.of(target)[-1].value == 3)
    await source.backend.remove_item(source.server, scan)
    source.sink.take()
    other = await source.added("Bench_001.Constant")
    await source.backend.advise(source.server, other)

    assert other == scan
    assert {event.value for event in source.of(other)} == {42}
    await source.backend.stop()


@only_32_bit
async def test_an_object_without_events_of_buffered_items_starts_and_is_told(
    knobs: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    knobs["LMXDOUBLE_NO_EVENTS_2"] = "1"
    source = _source()
    await source.start()
    assert await source.backend.add_buffered_item(source.server, "Bench_001.Count", "")
    await source.advised("Bench_001.Constant")
    await source.backend.stop()

    assert "MXAccess on this machine has buffered items, and no events for them" in caplog.text


@only_32_bit
async def test_a_completion_without_a_status_is_no_success() -> None:
    source = Source("com double")
    await source.start()
    switch = await source.advised("Sim.NoStatuses")
    values: list[int] = []
    statuses: list[object] = []

    def change(*arguments: object) -> None:
        assert isinstance(arguments[2], MxValue)
        values.append(arguments[2].integer)
        statuses.append(arguments[5])

    source.sink.data_change = change  # type: ignore[method-assign]
    await source.backend.write(source.server, switch, MxValue(boolean=True), 0)
    await source.completion(switch)
    item = await source.added("Bench_001.Constant")
    await source.backend.advise(source.server, item)
    await until(lambda: 42 in values)
    assert statuses[-1] == ()
    await source.backend.write(source.server, switch, MxValue(boolean=False), 0)
    await until(lambda: bool(source.sink.gaps))

    assert "an OnWriteComplete of MXAccess could not be read: it has no status" in source.sink.gaps[0][1]
    await source.backend.stop()


# Ends with 7, and prints what it has seen, as JSON.
_PROGRAM = """
import asyncio, atexit, ctypes, json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.mxaccess import sources
import mxgw_worker.backends.mxaccess.backend as backend
from mxgw_worker.backends.mxaccess.windows.pump import WindowsPump
from mxgw_worker.backends.sim.testing import RecordingSink

seen = {}

def report():
    # At the exit, after what the backend does there, because this was registered before.
    seen["releases nothing"] = type(sys.modules["comtypes"].IUnknown)._com_shutting_down
    print(json.dumps(seen), flush=True)

atexit.register(report)
packages = Path(sys.prefix) / "Lib" / "site-packages"
before = {str(path) for path in packages.glob("comtypes/**/*") if path.suffix != ".pyc"}

class Pump(WindowsPump):
    def leave(self):
        super().leave()
        kind, qualifier = ctypes.c_int(), ctypes.c_int()
        ask = ctypes.WinDLL("ole32").CoGetApartmentType
        seen["after leaving"] = hex(ask(ctypes.byref(kind), ctypes.byref(qualifier)) & 0xFFFFFFFF)

async def main(hangs):
    sources.register()
    backend._STOP_S = 0.3
    made = backend.MxAccessBackend({}, pump=Pump)
    await made.start(RecordingSink())
    server = await made.register("test")
    for _ in range(10):
        await made.advise(server, await made.add_item(server, "Bench_001.Count"))
    if hangs == "call":
        made._apartment.call("a call", lambda: ctypes.WinDLL("kernel32").Sleep(0xFFFFFFFF))
        await asyncio.sleep(0.1)
    if hangs != "nostop":
        await made.stop()
    return made

kept = asyncio.run(main(sys.argv[2]))
seen["caches"] = sorted(name for name in sys.modules if name.startswith(("comtypes.gen", "comtypes.client")))
seen["written"] = sorted({str(p) for p in packages.glob("comtypes/**/*") if p.suffix != ".pyc"} - before)
seen["objects"] = ctypes.WinDLL(os.environ[sources.com_double.VARIABLE]).DllCanUnloadNow()
sys.exit(7)
"""


@only_32_bit
@pytest.mark.parametrize(
    ("hangs", "seen"),
    [
        ("nothing", {"after leaving": "0x800401f0", "objects": 0}),
        ("call", {"objects": 1}),
        pytest.param("release", {"objects": 1}, marks=pytest.mark.soak),
        pytest.param("nostop", {"objects": 1}, marks=pytest.mark.soak),
    ],
)
async def test_the_process_ends_whatever_the_object_does(
    hangs: str, seen: dict[str, object], knobs: dict[str, str]
) -> None:
    """With its own exit code and without a crash; and comtypes writes nothing into its package."""
    if hangs == "release":
        knobs["LMXDOUBLE_HANGING_RELEASE"] = "1"
    done = subprocess.run(  # noqa: ASYNC221  there is nothing else to do
        [sys.executable, "-c", _PROGRAM, str(Path(__file__).parents[2]), hangs],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout) == {"caches": [], "written": [], "releases nothing": True, **seen}


@only_32_bit
@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_events_and_ten_thousand_writes_leave_nothing_behind(knobs: dict[str, str]) -> None:
    knobs["LMXDOUBLE_RATE"] = "5000"
    source = _source()
    await source.start()
    written = await source.advised("Bench_001.Text")
    for number in range(100):
        await source.backend.advise(source.server, await source.added(f"Load.Item{number:05}"))
    count = 0

    def counted(*_arguments: object) -> None:
        nonlocal count
        count += 1

    source.sink.data_change = counted  # type: ignore[method-assign]
    await until(lambda: count > 2_000)
    before, start = _usage(), count
    writes = 0
    while writes < 10_000 or count - start < 100_000:
        if writes < 10_000:
            await source.written(written, f"{writes} " * 20)
            source.sink.take()
            writes += 1
        else:
            await asyncio.sleep(0.1)
    after = _usage()
    await source.backend.stop()

    assert after["bytes"] - before["bytes"] < 10_000_000
    for kind in ("gdi", "user", "handles"):
        assert after[kind] - before[kind] <= 2, (before, after)


def _usage() -> dict[str, int]:
    """Return what this process holds: bytes in memory, and handles by kind."""
    load = getattr(ctypes, "WinDLL")  # noqa: B009  only Windows has it
    handles = ctypes.c_uint32()
    process = ctypes.c_void_p(load("kernel32").GetCurrentProcess())
    load("kernel32").GetProcessHandleCount(process, ctypes.byref(handles))
    resources = load("user32").GetGuiResources
    return {
        "bytes": _resident_bytes(),
        "gdi": int(resources(process, 0)),
        "user": int(resources(process, 1)),
        "handles": handles.value,
    }
