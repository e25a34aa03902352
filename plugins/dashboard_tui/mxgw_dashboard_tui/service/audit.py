"""Finds which entries of the audit log to send to an administrator who watches the log.

The first message has the newest `ENTRIES` entries, and each further message has the entries that are new.
"""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.convert import timestamp_from_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import AuditEntry

# How many of the newest entries are read from the audit log for one message.
ENTRIES = 500


class NewEntries:
    """Finds the entries that were not sent yet, by comparing the entries of this call with those of the call before."""

    def __init__(self) -> None:
        self._sent: Sequence[AuditEntry] = ()

    def of(self, entries: Sequence[AuditEntry]) -> tuple[Sequence[AuditEntry], bool]:
        """Return the entries that were not sent yet, and whether older entries that were never sent are missing."""
        sent, self._sent = self._sent, entries
        if entries is sent or not entries:
            return (), False
        if not sent:
            return entries, False
        for index in range(len(entries) - 1, -1, -1):
            if entries[index] == sent[-1]:
                return entries[index + 1 :], False
        # The last sent entry is missing: the log was rotated, or more than `ENTRIES` entries were added meanwhile.
        return entries, True


def entry_message(entry: AuditEntry) -> pb.AuditEntry:
    """Return an entry as a protobuf message."""
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
