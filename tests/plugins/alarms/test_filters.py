"""What one client sees."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.alarms import record

from mxgw.v1.alarm_service_pb2 import AlarmFilter as Wanted
from mxgw.v1.alarms_pb2 import ALARM_EVENT_KIND_RAISED
from mxgw_alarms.book import NO_ALARM, AlarmBook
from mxgw_alarms.filters import AlarmFilter
from mxgw_core.api import ItemAccess
from mxgw_core.api.errors import InvalidRequest


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
    return {
        e.alarm.reference for e in of.entries() if view.keep(e.alarm.priority, e.handle, ALARM_EVENT_KIND_RAISED, 1)
    }


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
    assert AlarmFilter(book(), Wanted(areas=["Nowhere"]), [OnlyTanks()]).keep(0, NO_ALARM, 5, 1)


def test_an_alarm_that_was_shown_is_followed_when_its_priority_leaves_the_range() -> None:
    of = book()
    handle = next(e.handle for e in of.entries() if e.alarm.reference == "Tank_1.Level")
    view, other = AlarmFilter(of, Wanted(to_priority=100), ()), AlarmFilter(of, Wanted(to_priority=100), ())

    assert view.keep(100, handle, ALARM_EVENT_KIND_RAISED, 1)
    assert view.keep(700, handle, ALARM_EVENT_KIND_RAISED, 2)
    assert not other.keep(700, handle, ALARM_EVENT_KIND_RAISED, 2)


@pytest.mark.parametrize(
    "wanted", [Wanted(from_priority=-1), Wanted(to_priority=1000), Wanted(from_priority=5, to_priority=4)]
)
def test_priorities_that_are_no_range_are_refused(wanted: Wanted) -> None:
    with pytest.raises(InvalidRequest, match="are no range"):
        AlarmFilter(book(), wanted, ())
