"""The table row of an active alarm of the plant."""

from __future__ import annotations

from mxgw.convert import timestamp_to_ns
from mxgw.v1 import alarms_pb2 as a
from mxgw.v1.values_pb2 import MxValue
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Row

COLUMNS = (
    Column("state", "State", 10),
    Column("reference", "Reference", 15, grow=3),
    Column("priority", "Prio", 5, right=True),
    Column("area", "Area", 8, grow=1, drop=2),
    Column("age", "Age", 6, right=True),
    Column("value", "Value", 7, right=True),
    Column("limit", "Limit", 7, right=True),
    Column("mark", "Mark", 10),
    Column("raised", "Raised (UTC)", 14, drop=3),
    Column("said", "Who: comment", 24, grow=2, drop=4),
    Column("type", "Type", 10, drop=6),
    Column("description", "Description", 20, grow=2, drop=7),
)
# Key: state. Value: the text to show, its tone, and the urgency (a lower number is more urgent).
_STATES = {
    a.ALARM_STATE_UNACK_ALM: ("▲ UNACKED", "bad", 0),
    a.ALARM_STATE_UNACK_RTN: ("▽ returned", "warn", 1),
    a.ALARM_STATE_ACK_ALM: ("✓ acked", "good", 2),
}
# The sort key of a state is the urgency times this number, plus the priority. No priority is as great as this number.
_PRIORITIES = 1000


def alarm_row(alarm: a.Alarm, now_ns: int | None, *, is_marked: bool) -> Row:
    """Return the row of an alarm.

    The column State sorts by urgency of the state and, within a state, by priority; 1 is the most severe priority.
    """
    state, tone, urgency = _STATES.get(alarm.state, ("? unknown", "warn", 3))
    raised_ns = timestamp_to_ns(alarm.raise_time) if alarm.HasField("raise_time") else None
    age_s = None if raised_ns is None or now_ns is None else (now_ns - raised_ns) / 1e9
    cells = {
        "state": Cell(state, tone, float(urgency * _PRIORITIES + alarm.priority)),
        "reference": Cell(t.clean(alarm.reference, 200)),
        "priority": Cell(str(alarm.priority), order=float(alarm.priority)),
        "area": Cell(t.clean(alarm.area, 80)),
        # The sort key is the time at which the alarm was raised. This time stays the same while the age grows.
        "age": Cell(t.span(age_s), order=float("inf") if raised_ns is None else -float(raised_ns)),
        "value": _value(alarm.value),
        "limit": _value(alarm.limit),
        "mark": _mark(alarm, is_marked=is_marked),
        "raised": Cell(t.moment(alarm.raise_time), order=float(raised_ns or 0)),
        "said": Cell(_said(alarm)),
        "type": Cell(t.clean(alarm.alarm_type, 60)),
        "description": Cell(t.clean(alarm.description, 200)),
    }
    return Row(alarm.reference, cells, alarm)


def _value(value: MxValue) -> Cell:
    text = t.value_text(value)
    try:
        return Cell(text, order=float(text))
    except ValueError:
        return Cell(text)


def _mark(alarm: a.Alarm, *, is_marked: bool) -> Cell:
    """Return a cell that says whether the operator has marked the alarm, and whether the alarm is stale or degraded.

    Stale is worse than degraded, so only "stale" is shown when both are true.
    """
    doubt = "stale" if alarm.stale else "degraded" if alarm.degraded else ""
    text = f"✱ {doubt or 'marked'}" if is_marked else doubt
    return Cell(text, "bad" if alarm.stale else "warn" if alarm.degraded else "accent")


def _said(alarm: a.Alarm) -> str:
    operator, comment = t.clean(alarm.operator, 60), t.clean(alarm.comment, 200)
    return f"{operator}: {comment}" if operator and comment else operator or comment
