"""What the tests for a Galaxy are careful with: they write to the scratch object only, and put its values back."""

from __future__ import annotations

import pytest
from support.mxaccess import sources
from support.mxaccess.python_double import DoubledBackend, PythonDouble
from support.mxaccess.sources import GALAXY, Source

from mxgw.convert import PyValue, from_value
from mxgw.v1.values_pb2 import MxValue

pytestmark = pytest.mark.asyncio


async def test_in_a_galaxy_the_scratch_object_takes_the_place_of_the_bench_and_gets_its_values_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    references: dict[int, str] = {}
    written: list[tuple[str, PyValue]] = []
    add_item, write = PythonDouble.add_item, PythonDouble.write

    def add(double: PythonDouble, server: int, definition: str) -> int:
        references[item := add_item(double, server, definition)] = definition
        return item

    def note(double: PythonDouble, server: int, item: int, value: MxValue, user: int) -> None:
        written.append((references[item], from_value(value)))
        write(double, server, item, value, user)

    monkeypatch.setattr(PythonDouble, "add_item", add)
    monkeypatch.setattr(PythonDouble, "write", note)
    monkeypatch.setenv(sources.SCRATCH_VARIABLE, "Bench_001")
    monkeypatch.setitem(sources._MAKERS, GALAXY, lambda: DoubledBackend({}, {}).backend)
    source = Source(GALAXY)
    await source.start()
    count, constant = await source.advised("Bench_001.Count"), await source.advised("Bench_001.Constant")
    await source.written(count, 5)
    await source.value(count)
    await source.stop()

    assert [references[count], references[constant]] == ["Bench_001.Count", "Bench_001.Constant"]
    assert written == [("Bench_001.Count", 5), ("Bench_001.Count", 0)]


@pytest.mark.parametrize(
    ("reference", "there"),
    [
        ("Bench_001.Count", "Line1.Count"),
        ("BENCH_001.count", "lINE1.count"),
        ("Bench_001", "Line1"),
        ("Nobody.Count", "Nobody.Count"),
    ],
)
async def test_references_of_tests_become_those_of_the_scratch_object(
    reference: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.SCRATCH_VARIABLE, "Line1")
    monkeypatch.setitem(sources._MAKERS, GALAXY, lambda: DoubledBackend({}, {}).backend)

    assert Source(GALAXY).reference(reference) == there


async def test_what_would_make_a_galaxy_misbehave_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.SCRATCH_VARIABLE, "Line1")
    monkeypatch.setitem(sources._MAKERS, GALAXY, lambda: DoubledBackend({}, {}).backend)

    with pytest.raises(pytest.skip.Exception, match="has no switches"):
        await Source(GALAXY).added("Sim.PlatformDown")


async def test_without_a_galaxy_the_reason_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sources.SCRATCH_VARIABLE, raising=False)

    assert "MXGWTEST_SCRATCH: docs/development.md" in sources.missing(GALAXY)
