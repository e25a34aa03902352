"""The interface between the monitor and its providers of alarms."""

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
    """The outcome of one acknowledgement."""

    outcome: AcknowledgeOutcome.ValueType
    hresult: int = 0
    message: str = ""


def outcome_of(hresult: int, message: str, detail: int) -> Outcome:
    """Return the outcome that the source's answer means."""
    if detail == ACKED_ALREADY:
        return Outcome(ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED, hresult, message or "it is acknowledged already")
    if hresult < 0 or detail:
        return Outcome(ACKNOWLEDGE_OUTCOME_FAILED, hresult, message or f"the source refused it, with detail {detail}")
    return Outcome(ACKNOWLEDGE_OUTCOME_ACCEPTED)


class Reporter(Protocol):
    """Takes the reports of a provider. Called in the event loop; never waits."""

    def everything(self, alarms: Sequence[Alarm], watched: Collection[str] | None) -> None:
        """Report all alarms; `watched` are the references that the provider watches, None for all."""

    def changed(self, alarms: Sequence[Alarm]) -> None:
        """Report alarms after a change, in order."""

    def unseen(self, references: Collection[str]) -> None:
        """Report that these alarms cannot be seen until they are reported again."""

    def works(self) -> None:
        """Report that the provider was asked and answered."""

    def failed(self, detail: str, *, for_good: bool = False) -> bool:
        """Report a failure, or that the provider can never answer; return whether it must stop."""


class Provider(Protocol):
    """One way to get alarms, over one session."""

    async def run(self, reporter: Reporter) -> None:
        """Report, starting with `everything`, until told to stop or until everything must be reported anew."""

    async def acknowledge(self, alarms: Sequence[Alarm], comment: str, operator: str) -> Sequence[Outcome]:
        """Acknowledge active alarms; one outcome each.

        Raises:
            GatewayError: the source could not be asked.
        """
