"""The end of the audit log for one administrator: all of it first, then what is new."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.convert import timestamp_from_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import AuditEntry

# What is asked for at a look, and so the most that one message holds.
ENTRIES = 500


class NewEntries:
    """Remembers what was told last."""

    def __init__(self) -> None:
        self._told: Sequence[AuditEntry] = ()

    def of(self, entries: Sequence[AuditEntry]) -> tuple[Sequence[AuditEntry], bool]:
        """Return what was not told yet, and whether something between the last time and now is missing."""
        told, self._told = self._told, entries
        if entries is told or not entries:
            return (), False
        if not told:
            return entries, False
        for index in range(len(entries) - 1, -1, -1):
            if entries[index] == told[-1]:
                return entries[index + 1 :], False
        # The log was rotated, or grew by more than one look takes in.
        return entries, True


def entry_message(entry: AuditEntry) -> pb.AuditEntry:
    """Return an entry as it is sent."""
    return pb.AuditEntry(
        time=timestamp_from_ns(entry.time_ns),
        actor=entry.actor,
        action=entry.action,
        decision=entry.decision,
        reason=entry.reason,
        peer=entry.peer,
        session_id=entry.session_id,
        tag=entry.tag,
        detail=entry.detail,
        correlation_id=entry.correlation_id,
    )
