"""Internal sessions: sessions that a plugin opens, without a client. For plugins that need MXAccess themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode, MxCommand, MxReply
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw_core.api.types import SessionInfo


@dataclass(frozen=True, slots=True)
class AlarmReport:
    """A report of a backend's alarm manager.

    Attributes:
        revision: pass this number to the next poll.
        is_complete: if true, `alarms` are all active alarms, and alarms that are not among them are over. If false,
            `alarms` are the changes since the last report, in order, and an alarm in the state ACK_RTN is over.
        is_event_driven: whether the source reports changes by itself. If true, waiting for a change causes no load.
    """

    revision: int
    is_complete: bool
    alarms: Sequence[Alarm]
    is_event_driven: bool


@dataclass(frozen=True, slots=True)
class AlarmAcknowledged:
    """The answer of the source to the acknowledgement of one alarm.

    `hresult` 0 means success. `detail` is a number of the enum MxStatusDetail, or 0.
    """

    hresult: int
    message: str
    detail: int


class InternalSession(Protocol):
    """A session that the gateway opened for itself. Like any session it has a worker.

    It has no lease, does not count for `limits.sessions`, and ends with the gateway at the latest.
    """

    @property
    def session_id(self) -> str:
        """The id of the session."""

    def info(self) -> SessionInfo:
        """Return the present state of the session."""

    @property
    def worker_state(self) -> WorkerState.ValueType:
        """The state of the session's worker, as the gateway sees it."""

    @property
    def source_health(self) -> SourceHealth.ValueType:
        """The health of the source, from the last report of the session's worker."""

    async def wait_closed(self) -> None:
        """Wait until the session has ended. `info` then has the close reason."""

    async def close(self) -> None:
        """End the session, and return when its worker has exited."""

    async def invoke(self, command: MxCommand, timeout_s: float) -> MxReply:
        """Run a command.

        Raises:
            GatewayError: the command could not be run, or its outcome is unknown.
        """

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Return all children of a node. With `parent` "", return the children of the root.

        Raises:
            CommandFailed: with `worker_reason` BROWSE_NOT_SUPPORTED when the backend cannot browse.
            GatewayError: the command could not be run.
        """

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[StreamEventsResponse]]:
        """Follow the events of the session: the context yields an iterator over all events and gaps from now on.

        Raises:
            GatewayError: the session ended. The iterator raises this after the last event.
        """

    async def poll_alarms(self, after_revision: int, wait_s: float, timeout_s: float) -> AlarmReport:
        """Return the changes of alarms since the report with the revision `after_revision`; with 0, all active alarms.

        When nothing has changed, wait up to `wait_s` seconds for a change, if the backend can do this.

        Raises:
            CommandFailed: with `worker_reason` ALARMS_NOT_SUPPORTED when the backend has no alarm manager, and with
                ALARMS_UNAVAILABLE when the alarm manager does not answer.
            GatewayError: the command could not be run.
        """

    async def acknowledge_alarms(
        self, alarm_ids: Sequence[str], comment: str, operator: str, timeout_s: float
    ) -> Sequence[AlarmAcknowledged]:
        """Acknowledge alarms in the backend's alarm manager. Return one result for each alarm, in the same order.

        Raises:
            GatewayError, CommandFailed: as in `poll_alarms`.
        """
