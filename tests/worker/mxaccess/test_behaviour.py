"""How MXAccess behaves, as one set of tests for every source that claims to: the simulator, the double in Python, the
double of the COM object, and MXAccess itself where there is a Galaxy. Where they differ, the test says why.

Source of each: the heading of docs/reference/mxaccess.md that the test cites.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from support.mxaccess.sources import GALAXY, Source

from mxgw.convert import to_value
from mxgw_worker.backends.base import E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio

CONFIGURATION, OPERATIONAL, SECURITY = 4, 5, 6


async def test_the_first_event_is_initialising_and_then_comes_the_value(source: Source) -> None:
    """Cites #first-values."""
    item = await source.added("Bench_001.Constant")
    await source.backend.advise(source.server, item)
    await source.value(item)
    first, second = source.of(item)

    assert (first.quality, first.success, first.category, first.detail, first.value) == (32, -1, 1, 11, None)
    assert (second.quality, second.success, second.category, second.value) == (192, -1, 0, 42)
    if source.name != GALAXY:  # where the attribute can have its value for long
        assert abs(second.time_ns / 1e9 - datetime.now(UTC).timestamp()) < 86_400


@pytest.mark.parametrize(
    ("reference", "detail", "category"),
    [
        ("NoReference", 6, CONFIGURATION),
        ("Nobody.Count", 8, CONFIGURATION),
        ("Bench_001.Nothing", 1001, CONFIGURATION),
        ("Bench_001.Counts", 1003, CONFIGURATION),
        ("Bench_001.Counts[11]", 1003, CONFIGURATION),
        ("Bench_001.Count[]", 14, CONFIGURATION),
        ("Bench_001.Counts[0]", 15, CONFIGURATION),
    ],
)
async def test_a_wrong_name_fails_after_its_advise(source: Source, reference: str, detail: int, category: int) -> None:
    """Cites #wrong-names and #references."""
    item = await source.added(reference)
    await source.backend.advise(source.server, item)
    event = await source.value(item)

    assert (event.success, event.category, event.detail, event.value) == (0, category, detail, None)


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("Bench_001.Flag", True),
        ("Bench_001.Count", -7),
        ("Bench_001.Ratio", struct.unpack("f", struct.pack("f", 0.1))[0]),
        ("Bench_001.Amount", 0.1),
        ("Bench_001.Text", "grüß Ж"),
        ("Bench_001.Moment", datetime(2024, 2, 29, 12, 30, 15, 250_000, UTC)),
        ("Bench_001.Flags[]", [True, False]),
        ("Bench_001.Counts[]", [1, 2, 3]),
        ("Bench_001.Ratios[]", [0.5]),
        ("Bench_001.Amounts[]", [0.1, -1e300]),
        ("Bench_001.Texts[]", ["", "x"]),
        ("Bench_001.Counts[10]", 5),
        ("BENCH_001.count", 8),
    ],
)
async def test_what_is_written_completes_and_is_reported(source: Source, reference: str, value: object) -> None:
    """Cites #write-outcomes, #references and #data-types."""
    item = await source.advised(reference)
    done = await source.written(item, value)
    event = await source.value(item)

    assert (done.success, done.category, done.detail) == (-1, 0, 0)
    assert (event.value, event.quality, event.success) == (value, 192, -1)


@pytest.mark.parametrize(
    ("reference", "given", "stored"),
    [
        ("Bench_001.Amount", 3, 3.0),
        ("Bench_001.Count", "12", 12),
        ("Bench_001.Count", 2.5, 2),
        ("Bench_001.Count", 3.5, 4),
        ("Bench_001.Count", True, -1),
        ("Bench_001.Flag", 5, True),
        ("Bench_001.Flag", "true", True),
        ("Bench_001.Amount", "-1.5e3", -1500.0),
        ("Bench_001.Counts[]", [1.0, 2.0], [1, 2]),
    ],
)
async def test_a_value_of_another_type_is_converted_as_com_does(
    source: Source, reference: str, given: object, stored: object
) -> None:
    """The rules of VariantChangeType, which the double of the COM object calls."""
    item = await source.advised(reference)
    await source.written(item, given)

    assert (await source.value(item)).value == stored


@pytest.mark.parametrize(
    ("reference", "given", "detail", "category"),
    [
        ("Bench_001.Count", "twelve", 19, OPERATIONAL),
        ("Bench_001.Count", "", 19, OPERATIONAL),
        ("Bench_001.Count", "1_000", 19, OPERATIONAL),
        ("Bench_001.Amount", "nan", 19, OPERATIONAL),
        ("Bench_001.Amount", "infinity", 19, OPERATIONAL),
        ("Bench_001.Count", "\u0661\u0662", 19, OPERATIONAL),  # digits of another script
        ("Bench_001.Count", 3e9, 20, OPERATIONAL),
        ("Bench_001.Ratio", 1e300, 20, OPERATIONAL),
        ("Bench_001.Count", [1], 14, CONFIGURATION),
        ("Bench_001.Counts[]", 1, 14, CONFIGURATION),
        ("Bench_001.Percent", 101.0, 1004, OPERATIONAL),
        ("Bench_001.Constant", 1, 1007, OPERATIONAL),
        ("Bench_001.ViewOnly", 1, 1008, SECURITY),
        ("Bench_001.SecuredWrite", 1, 1012, SECURITY),
        ("Bench_001.VerifiedWrite", 1, 1013, SECURITY),
    ],
)
async def test_a_write_that_fails_says_so_in_its_completion(
    source: Source, reference: str, given: object, detail: int, category: int
) -> None:
    """Cites #write-outcomes and #status-details."""
    item = await source.advised(reference)
    done = await source.written(item, given)

    assert (done.success, done.detail, done.category) == (0, detail, category)
    assert not [event for event in source.of(item) if event.kind == "data_change"]


async def test_secured_and_verified_writes_need_their_users(source: Source) -> None:
    """Cites #secured-writes and #logins."""
    if source.name == GALAXY:
        pytest.skip("a Galaxy can lock a user out, or report a wrong password to others")
    user = await source.backend.authenticate_user(source.server, "operator", "x")
    assert user != 0
    for reference, verifier in (("Bench_001.SecuredWrite", 0), ("Bench_001.VerifiedWrite", user)):
        item = await source.advised(reference)
        await source.backend.write_secured(source.server, item, user, verifier, to_value(5))

        assert (await source.completion(item)).success == -1
        assert (await source.value(item)).value == 5


async def test_a_write_needs_an_advised_item_whose_type_is_known(source: Source) -> None:
    """Cites #early-writes and #writes-need-an-advised-item."""
    item = await source.added("Bench_001.Count")

    with pytest.raises(MxError, match="Value does not fall within the expected range") as refused:
        await source.backend.write(source.server, item, to_value(1), 0)
    assert refused.value.hresult == E_INVALIDARG


async def test_handles_are_small_and_given_out_again(source: Source) -> None:
    """Cites #handles."""
    first, second, third = [await source.added("Bench_001.Count") for _ in range(3)]
    await source.backend.remove_item(source.server, second)

    if source.name == GALAXY:
        assert min(first, second, third) > 0
        assert len({first, second, third}) == 3
    else:
        assert (first, second, third) == (1, 2, 3)
    assert await source.added("Bench_001.Amount") == second
    for call in (
        source.backend.remove_item(source.server, 99),
        source.backend.advise(source.server, 99),
        source.backend.add_item(99, "Bench_001.Count"),
        source.backend.unregister(99),
        source.backend.add_item(source.server, " "),
    ):
        with pytest.raises(MxError) as refused:
            await call
        assert refused.value.hresult == E_INVALIDARG


async def test_suspend_ends_the_changes_until_activate(source: Source) -> None:
    """Cites #events: OperationComplete answers both."""
    item = await source.advised("Bench_001.Count")
    other = await source.advised("Bench_001.Count")

    assert (await source.backend.suspend(source.server, item)).raw_category == 1
    await source.operation(item)
    await source.written(other, 71)
    await source.value(other)
    assert not [event for event in source.of(item) if event.kind == "data_change"]
    assert (await source.backend.activate(source.server, item)).raw_category == 1

    assert (await source.value(item)).value == 71
    assert (await source.backend.activate(source.server, item)).raw_category == 0


async def test_a_relative_name_is_taken_within_its_context(source: Source) -> None:
    """Cites #methods: AddItem2."""
    item = await source.backend.add_item2(source.server, "Constant", source.reference("Bench_001"))
    await source.backend.advise(source.server, item)

    assert (await source.value(item)).value == 42


async def test_write2_sets_the_time(source: Source) -> None:
    """Cites #times."""
    item = await source.advised("Bench_001.Count")
    moment_ns = 1_700_000_000_250_000_000
    await source.backend.write2(source.server, item, to_value(9), moment_ns, 0)

    assert (await source.value(item)).time_ns == moment_ns


async def test_buffered_items_report_arrays_of_values_qualities_and_times(source: Source) -> None:
    """Cites #events: OnBufferedDataChange."""
    item = await source.backend.add_buffered_item(source.server, source.reference("Bench_001.Count"), "")
    await source.backend.set_buffered_update_interval(source.server, 50)
    writer = await source.advised("Bench_001.Count")
    await source.written(writer, 10)
    await source.value(writer)
    source.sink.take()
    await source.backend.advise(source.server, item)
    values: list[object] = []
    async for event in source.buffered(item):
        assert event.value == [10]
        break
    for number in (11, 12, 13):
        await source.written(writer, number)
        source.forget_completions()
    async for event in source.buffered(item):
        assert isinstance(event.value, list)
        assert len(event.value) == len(event.qualities) == len(event.times_ns)
        assert event.data_type == 2
        values += event.value
        if values[-1] == 13:
            break

    assert values[-3:] == [11, 12, 13]


async def test_a_lost_platform_is_told_once_and_its_return_begins_anew(source: Source) -> None:
    """Cites #platform-loss."""
    item = await source.advised("Bench_001.Constant")
    switch = await source.advised("Sim.PlatformDown")
    await source.written(switch, True)
    lost = await source.value(item)
    source.sink.take()
    await source.written(switch, False)
    back = await source.value(item)

    assert (lost.quality, lost.success, lost.category, lost.detail) == (24, 0, 3, 2)
    assert (back.value, back.quality) == (42, 192)
    assert source.of(item)[0].detail == 1011


async def test_a_completion_that_says_pending_is_a_success(source: Source) -> None:
    """Cites #statuses."""
    if source.name != "com double":
        pytest.skip("no attribute of the simulator answers so")
    item = await source.advised("Bench_001.Pending")
    done = await source.written(item, 1)

    assert (done.success, done.category) == (-1, 1)


async def test_un_advise_ends_the_changes_and_a_new_advise_begins_with_the_value(source: Source) -> None:
    item = await source.advised("Bench_001.Count")
    other = await source.advised("Bench_001.Count")
    await source.backend.un_advise(source.server, item)
    await source.written(other, 81)
    await source.value(other)
    assert not source.of(item)
    await source.backend.advise(source.server, item)

    assert (await source.value(item)).value == 81


async def test_attributes_are_listed(source: Source) -> None:
    """Cites #references."""
    item = await source.added("Bench_001._Attributes")
    await source.backend.advise(source.server, item)
    names = (await source.value(item)).value

    assert isinstance(names, list)
    assert {"Count", "Amount", "Flag"} <= set(names)
