"""The four states and what lies between two looks at them."""

from __future__ import annotations

import pytest
from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, UNACK_RTN

from mxgw_alarms.states import ACKNOWLEDGED, CLEARED, INACTIVE, RAISED, is_active, state_of, step


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (INACTIVE, UNACK_ALM, RAISED),
        (UNACK_ALM, ACK_ALM, ACKNOWLEDGED),
        (UNACK_ALM, UNACK_RTN, CLEARED),
        (UNACK_RTN, ACK_RTN, ACKNOWLEDGED),
        (ACK_ALM, ACK_RTN, CLEARED),
        (UNACK_RTN, UNACK_ALM, RAISED),
        (ACK_RTN, UNACK_ALM, RAISED),
        # More than one thing happened between two looks.
        (UNACK_ALM, ACK_RTN, CLEARED),
        (ACK_ALM, UNACK_ALM, RAISED),
        (ACK_ALM, UNACK_RTN, RAISED),
        (INACTIVE, UNACK_RTN, RAISED),
        (INACTIVE, ACK_ALM, RAISED),
        # Nothing happened.
        (INACTIVE, ACK_RTN, None),
        (UNACK_ALM, UNACK_ALM, None),
        (ACK_RTN, ACK_RTN, None),
    ],
)
def test_a_step_is_named_for_what_matters_most(before: int, after: int, kind: int | None) -> None:
    assert step(before, after) == kind  # type: ignore[arg-type]  # enums of the contract are numbers


@pytest.mark.parametrize(
    ("in_alarm", "acknowledged", "state"),
    [(True, False, UNACK_ALM), (True, True, ACK_ALM), (False, False, UNACK_RTN), (False, True, ACK_RTN)],
)
def test_two_flags_make_a_state(in_alarm: bool, acknowledged: bool, state: int) -> None:
    assert state_of(in_alarm=in_alarm, acknowledged=acknowledged) == state


def test_only_a_normal_acknowledged_alarm_is_over() -> None:
    assert [is_active(s) for s in (UNACK_ALM, ACK_ALM, UNACK_RTN, ACK_RTN)] == [True, True, True, False]
