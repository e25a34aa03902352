"""What one client sees."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.alarms import record
from support.turns import counted_turns

from mxgw.v1.alarm_service_pb2 import AlarmFilter as Wanted
from mxgw.v1.alarms_pb2 import ALARM_EVENT_KIND_RAISED
from mxgw_alarms.book import NO_ALARM, AlarmBook
from mxgw_alarms.filters import AlarmFilter
from mxgw_core.api import ItemAccess
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import NAMES_AT_ONCE


class OnlyTanks:
    def may_read(self, reference: str) -> bool:
        return reference.startswith("Tank")

    def may_write(self, reference: str) -> bool:
        return False

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        raise AssertionError("a filter refuses nothing")


def book() -> AlarmBook:
    made = AlarmBook(10)
    alarms = [record("Tank_1.Level", area="North", priority=100), record("Boiler.P", area="South", priority=600)]
    made.reconcile(alarms, watched=None, degraded=False)
    return made


def seen(wanted: Wanted, access: Sequence[ItemAccess] = ()) -> set[str]:
    of = book()
    view = AlarmFilter(of, wanted, access)
    return {e.alarm.reference for e in of.entries() if view.keep(e.handle, e.alarm.priority, ALARM_EVENT_KIND_RAISED)}


def test_without_a_wish_everything_is_seen_and_nobody_need_ask() -> None:
    assert seen(Wanted()) == {"Tank_1.Level", "Boiler.P"}
    assert AlarmFilter(book(), Wanted(from_priority=1, to_priority=999), ()).lets_all_pass


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(areas=["nORTH", "East"]),
        Wanted(reference_prefixes=["tank_"]),
        Wanted(to_priority=100),
        Wanted(from_priority=100, to_priority=599),
        Wanted(areas=["North"], reference_prefixes=["T"], to_priority=500),
    ],
)
def test_everything_that_is_wanted_must_fit(wanted: Wanted) -> None:
    assert seen(wanted) == {"Tank_1.Level"}
    assert not AlarmFilter(book(), wanted, ()).lets_all_pass


def test_what_may_not_be_read_is_not_seen() -> None:
    assert seen(Wanted(), [OnlyTanks()]) == {"Tank_1.Level"}
    assert not AlarmFilter(book(), Wanted(), [OnlyTanks()]).lets_all_pass


def test_who_speaks_is_told_to_everybody() -> None:
    assert AlarmFilter(book(), Wanted(areas=["Nowhere"]), [OnlyTanks()]).keep(NO_ALARM, 0, 5)


def test_an_alarm_that_was_shown_is_followed_when_its_priority_leaves_the_range() -> None:
    of = book()
    handle = next(e.handle for e in of.entries() if e.alarm.reference == "Tank_1.Level")
    view, other = AlarmFilter(of, Wanted(to_priority=100), ()), AlarmFilter(of, Wanted(to_priority=100), ())

    assert view.keep(handle, 100, ALARM_EVENT_KIND_RAISED)
    assert view.keep(handle, 700, ALARM_EVENT_KIND_RAISED)
    assert not other.keep(handle, 700, ALARM_EVENT_KIND_RAISED)


@pytest.mark.parametrize(
    "wanted", [Wanted(from_priority=-1), Wanted(to_priority=1000), Wanted(from_priority=5, to_priority=4)]
)
def test_priorities_that_are_no_range_are_refused(wanted: Wanted) -> None:
    with pytest.raises(InvalidRequest, match="are no range"):
        AlarmFilter(book(), wanted, ())


def test_more_prefixes_than_each_alarm_can_be_compared_with_are_refused() -> None:
    prefixes = [f"Tank_{number}" for number in range(100)]

    assert seen(Wanted(reference_prefixes=prefixes)) == {"Tank_1.Level"}
    with pytest.raises(InvalidRequest, match="101 reference prefixes are asked for, 100 are allowed"):
        seen(Wanted(reference_prefixes=[*prefixes, "x"]))


@pytest.mark.asyncio
async def test_what_may_be_read_is_asked_for_a_few_alarms_at_a_time_and_never_again() -> None:
    class Counting(OnlyTanks):
        asked = 0

        def may_read(self, reference: str) -> bool:
            self.asked += 1
            return super().may_read(reference)

    of, access = AlarmBook(200), Counting()
    of.reconcile([record(f"Tank_{number}.Level") for number in range(100)], watched=None, degraded=False)
    view = AlarmFilter(of, Wanted(), [access])
    handles = [entry.handle for entry in of.entries()]
    async with counted_turns() as turns:
        await view.ask(handles)

    assert turns.taken == (100 - 1) // NAMES_AT_ONCE
    assert all(view.keep(handle, 500, ALARM_EVENT_KIND_RAISED) for handle in handles)
    assert access.asked == 100
