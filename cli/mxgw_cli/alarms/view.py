"""Writes alarms as tables, lines and JSON documents. Control characters in text from the gateway are replaced."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from mxgw_cli.render import age_text, enum_key, enum_words, hresult_text, shortened, utc_text, value_text
from mxgw_client import (
    Acknowledgement,
    Alarm,
    AlarmProvider,
    AlarmState,
    AlarmTransition,
    ProviderChanged,
    ProviderStatus,
)
from mxgw_core.printable import printable

# Key: state. Value: the state in words, and its colour. The words are enough for a terminal without colours.
_STATE_WORDS = {
    AlarmState.UNACK_ALM: ("ALARM", "bold red"),
    AlarmState.ACK_ALM: ("alarm, acked", "red"),
    AlarmState.UNACK_RTN: ("normal, unacked", "yellow"),
    AlarmState.ACK_RTN: ("normal", "green"),
}
_SEVERE, _MEDIUM = 250, 500
_REFERENCE_AT_MOST = 48


def in_order(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Return the alarms sorted by state, then by priority (the most severe first), then by time (the newest first).

    Unacknowledged alarms come before acknowledged alarms. In each of these two groups, alarms that are still in alarm
    come before alarms that have returned to normal.
    """

    def rank(alarm: Alarm) -> tuple[bool, bool, int, float, str]:
        raised = alarm.raise_time.timestamp() if alarm.raise_time is not None else 0.0
        state = alarm.state
        return (not state.is_unacknowledged, not state.is_in_alarm, alarm.priority, -raised, alarm.reference)

    return sorted(alarms, key=rank)


def alarms_table(alarms: Sequence[Alarm], width: int) -> Table:
    """Return a table of alarms in the given order.

    When `width` is at least 100 characters, the table also has a column for the area, and a column for the
    acknowledgement with operator and comment.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("PRI", justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("REFERENCE", no_wrap=True, overflow="ellipsis", min_width=12)
    table.add_column("VALUE", justify="right", no_wrap=True)
    table.add_column("AGE", justify="right", no_wrap=True)
    wide = width >= 100
    if wide:
        table.add_column("AREA", no_wrap=True, overflow="ellipsis")
        table.add_column("ACKNOWLEDGED", no_wrap=True, overflow="ellipsis", ratio=1)
    now = time.time()
    for alarm in alarms:
        row = [
            Text(str(alarm.priority), style=_priority_style(alarm.priority)),
            state_text(alarm),
            Text(shortened(printable(alarm.reference, 1024), _REFERENCE_AT_MOST)),
            Text(value_text(alarm.value, 12) if alarm.value is not None else ""),
            Text(age_text(max(0.0, now - alarm.raise_time.timestamp())) if alarm.raise_time is not None else "?"),
        ]
        if wide:
            row += [Text(printable(alarm.area, 40)), Text(_acknowledged(alarm))]
        table.add_row(*row)
    return table


def state_text(alarm: Alarm) -> Text:
    """Return the state in words, followed by `stale` or `degraded` when the state is perhaps wrong."""
    words, style = _STATE_WORDS.get(alarm.state, (enum_words(alarm.state), ""))
    text = Text(words, style=style)
    if alarm.stale:
        text.append(" stale", style="bold yellow")
    elif alarm.degraded:
        text.append(" degraded", style="yellow")
    return text


def _priority_style(priority: int) -> str:
    return "bold red" if priority <= _SEVERE else "yellow" if priority <= _MEDIUM else ""


def _acknowledged(alarm: Alarm) -> str:
    parts = [printable(text, 80) for text in (alarm.operator, alarm.comment) if text]
    return ": ".join(parts)


def provider_line(provider: ProviderStatus | None) -> Text:
    """Return a line that says which provider reports alarms."""
    if provider is None:
        return Text("nobody has reported alarms yet", style="yellow")
    detail = printable(provider.detail, 200)
    match provider.provider:
        case AlarmProvider.PRIMARY:
            return Text(f"from {detail}", style="dim")
        case AlarmProvider.FALLBACK:
            return Text(f"DEGRADED, from {detail}", style="yellow")
        case _:
            return Text(f"STALE, nobody reports: {detail}", style="bold red")


def counts_line(alarms: Iterable[Alarm]) -> str:
    """Return a line that says how many alarms are active, in alarm, and unacknowledged."""
    states = [alarm.state for alarm in alarms]
    in_alarm = sum(state.is_in_alarm for state in states)
    unacked = sum(state.is_unacknowledged for state in states)
    return f"{len(states):,} active, {in_alarm:,} in alarm, {unacked:,} unacknowledged"


def transition_line(transition: AlarmTransition) -> Text:
    """Return the change of an alarm as a line."""
    alarm = transition.alarm
    moment = transition.gateway_time
    line = Text(no_wrap=True, overflow="ignore")
    line.append(utc_text(moment) if moment is not None else "", style="dim")
    line.append(f"  {enum_words(transition.kind):<12}  ", style="bold")
    line.append(f"{alarm.priority:>3}  ", style=_priority_style(alarm.priority))
    line.append(f"{shortened(printable(alarm.reference, 1024), _REFERENCE_AT_MOST):<32}  ")
    line.append_text(state_text(alarm))
    if said := _acknowledged(alarm):
        line.append(f"  {said}", style="dim")
    if transition.reconciled:
        line.append("  (found by comparing)", style="dim")
    return line


def alarm_document(alarm: Alarm) -> dict[str, object]:
    """Return an alarm for JSON."""
    return {
        "reference": alarm.reference,
        "state": enum_key(alarm.state),
        "priority": alarm.priority,
        "area": alarm.area,
        "alarm_type": alarm.alarm_type,
        "description": alarm.description,
        "value": alarm.value,
        "limit": alarm.limit,
        "raise_time": alarm.raise_time,
        "ack_time": alarm.ack_time,
        "clear_time": alarm.clear_time,
        "operator": alarm.operator,
        "comment": alarm.comment,
        "degraded": alarm.degraded,
        "stale": alarm.stale,
        "alarm_id": alarm.alarm_id,
    }


def transition_document(transition: AlarmTransition) -> dict[str, object]:
    """Return the change of an alarm for JSON."""
    return {
        "type": "transition",
        "kind": enum_key(transition.kind),
        "position": transition.position.to_text(),
        "previous_state": enum_key(transition.previous_state),
        "gateway_time": transition.gateway_time,
        "reconciled": transition.reconciled,
        "alarm": alarm_document(transition.alarm),
    }


def provider_document(status: ProviderStatus) -> dict[str, object]:
    """Return the state of the provider for JSON."""
    return {
        "provider": enum_key(status.provider),
        "detail": status.detail,
        "since": status.since,
        "backend": status.backend,
    }


def provider_changed_document(changed: ProviderChanged) -> dict[str, object]:
    """Return a change of provider for JSON."""
    return {
        "type": "provider_changed",
        "position": changed.position.to_text(),
        "previous": enum_key(changed.previous),
        "unwatched_alarms": changed.unwatched_alarms,
        **provider_document(changed.current),
    }


def acknowledgement_document(result: Acknowledgement) -> dict[str, object]:
    """Return the result of an acknowledgement for JSON."""
    return {
        "reference": result.reference,
        "accepted": result.accepted,
        "outcome": enum_key(result.outcome),
        "hresult": result.hresult,
        "message": result.message,
    }


def acknowledgement_line(result: Acknowledgement) -> str:
    """Return the result of an acknowledgement as a line."""
    number = f" ({hresult_text(result.hresult)})" if result.hresult < 0 else ""
    detail = f": {printable(result.message, 300)}" if result.message else ""
    return f"{printable(result.reference, 200)}: {enum_words(result.outcome)}{number}{detail}"
