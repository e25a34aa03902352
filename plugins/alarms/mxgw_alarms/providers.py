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

# The status detail of MXAccess for an alarm that was acknowledged before.
# Source: docs/reference/mxaccess.md#status-details.
ACKED_ALREADY = 1015


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of the acknowledgement of one alarm."""

    outcome: AcknowledgeOutcome.ValueType
    hresult: int = 0
    message: str = ""


def outcome_of(hresult: int, message: str, detail: int) -> Outcome:
    """Translate the source's answer to an acknowledgement into an outcome."""
    if detail == ACKED_ALREADY:
        return Outcome(ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED, hresult, message or "it is acknowledged already")
    if hresult < 0 or detail:
        return Outcome(ACKNOWLEDGE_OUTCOME_FAILED, hresult, message or f"the source refused it, with detail {detail}")
    return Outcome(ACKNOWLEDGE_OUTCOME_ACCEPTED)


class Reporter(Protocol):
    """Receives the reports of a provider. Its methods are called in the event loop and never wait."""

    def everything(self, alarms: Sequence[Alarm], watched: Collection[str] | None) -> None:
        """Report all active alarms at once.

        `watched` are the references that the provider watches; None means that it watches all alarms.
        """

    def changed(self, alarms: Sequence[Alarm]) -> None:
        """Report the new state of alarms that changed, in the order of the changes."""

    def unseen(self, references: Collection[str]) -> None:
        """Report that the state of these alarms is unknown until they are reported again."""

    def works(self) -> None:
        """Report that the source answered the provider."""

    def failed(self, detail: str, *, for_good: bool = False) -> bool:
        """Report a failure; return True when the provider must stop.

        `for_good` says that the source can never answer this provider.
        """


class Provider(Protocol):
    """One way to get alarms from a backend, through one session."""

    async def run(self, reporter: Reporter) -> None:
        """Report to `reporter`, starting with `everything`.

        Return when `reporter.failed` returned True, when the session has ended, or when reports were perhaps missed. In
        the last case the monitor runs a new provider, which reports everything again.
        """

    async def acknowledge(self, alarms: Sequence[Alarm], comment: str, operator: str) -> Sequence[Outcome]:
        """Acknowledge active alarms; return one outcome for each alarm.

        Raises:
            GatewayError: the provider could not reach the source.
        """
