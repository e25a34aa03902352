"""What the monitor asks of a provider, and what a provider may tell the monitor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mxgw.v1.alarm_service_pb2 import (
    ACKNOWLEDGE_OUTCOME_ACCEPTED,
    ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED,
    ACKNOWLEDGE_OUTCOME_FAILED,
    AcknowledgeOutcome,
)
from mxgw.v1.alarms_pb2 import Alarm

# Source: docs/reference/mxaccess.md#status-details.
ACKED_ALREADY = 1015


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one acknowledgement."""

    outcome: AcknowledgeOutcome.ValueType
    hresult: int = 0
    message: str = ""


def outcome_of(hresult: int, message: str, detail: int) -> Outcome:
    """Return what the source's answer means."""
    if detail == ACKED_ALREADY:
        return Outcome(ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED, hresult, message or "it is acknowledged already")
    if hresult < 0 or detail:
        return Outcome(ACKNOWLEDGE_OUTCOME_FAILED, hresult, message or f"the source refused it, with detail {detail}")
    return Outcome(ACKNOWLEDGE_OUTCOME_ACCEPTED)


class Reporter(Protocol):
    """Takes what a provider sees; in the event loop, never waiting."""

    def everything(self, alarms: Sequence[Alarm], watched: Collection[str] | None) -> None:
        """All alarms as they are; `watched` are the references it would know of, None for all."""

    def changed(self, alarms: Sequence[Alarm]) -> None:
        """Alarms as they are after a change, in order."""

    def unseen(self, references: Collection[str]) -> None:
        """What was shown of these no longer counts, until they are shown again."""

    def works(self) -> None:
        """The provider was asked and answered."""

    def failed(self, detail: str, *, for_good: bool = False) -> bool:
        """The provider did not answer, or never will; return whether it is to stop."""


class Provider(Protocol):
    """One way to learn of alarms, over one session."""

    async def run(self, reporter: Reporter) -> None:
        """Report until told to stop, or until everything has to be seen anew. First of all comes `everything`."""

    async def acknowledge(self, alarms: Sequence[Alarm], comment: str, operator: str) -> Sequence[Outcome]:
        """Acknowledge alarms that are active; one outcome each.

        Raises:
            GatewayError: the source could not be asked.
        """
