"""Sessions of the gateway's own. For plugins that need MXAccess without a client."""

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
    """What a backend's alarm manager reported.

    If `is_complete`, `alarms` are all active alarms and replace everything known; otherwise they are changes, in order,
    and an alarm in ACK_RTN is over. Pass `revision` to the next poll. If `is_event_driven`, waiting for changes costs
    the source nothing.
    """

    revision: int
    is_complete: bool
    alarms: Sequence[Alarm]
    is_event_driven: bool


@dataclass(frozen=True, slots=True)
class AlarmAcknowledged:
    """The source's answer to one acknowledgement: `hresult` 0 is success; `detail` is an MxStatusDetail, or 0."""

    hresult: int
    message: str
    detail: int


class InternalSession(Protocol):
    """A session without an owner, with a worker of its own, like a session of a client.

    It has no lease, does not count for `limits.sessions`, and never outlives the gateway.
    """

    @property
    def session_id(self) -> str:
        """Its id among the sessions."""

    def info(self) -> SessionInfo:
        """Return the session at this moment."""

    @property
    def worker_state(self) -> WorkerState.ValueType:
        """The state of its worker, as the gateway sees it."""

    @property
    def source_health(self) -> SourceHealth.ValueType:
        """The health of the source that its worker reported last."""

    async def wait_closed(self) -> None:
        """Return when the session has ended for any reason; `info` has the reason."""

    async def close(self) -> None:
        """End the session, and return when its worker has exited."""

    async def invoke(self, command: MxCommand, timeout_s: float) -> MxReply:
        """Run a command.

        Raises:
            GatewayError: it could not be run, or its outcome is unknown.
        """

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Return all children of a node, "" being the root.

        Raises:
            GatewayError: as `invoke`; CommandFailed with `worker_reason` BROWSE_NOT_SUPPORTED when the backend
                cannot browse.
        """

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[StreamEventsResponse]]:
        """Follow the session while the block runs: every event and gap after entering it.

        Raises:
            GatewayError: the session ended (after its last event).
        """

    async def poll_alarms(self, after_revision: int, wait_s: float, timeout_s: float) -> AlarmReport:
        """Return what changed since a revision (0: all active alarms); wait for a change if the backend can.

        Raises:
            GatewayError: CommandFailed with `worker_reason` ALARMS_NOT_SUPPORTED when the backend has no alarm
                manager, ALARMS_UNAVAILABLE when the alarm manager does not answer; or as `invoke`.
        """

    async def acknowledge_alarms(
        self, alarm_ids: Sequence[str], comment: str, operator: str, timeout_s: float
    ) -> Sequence[AlarmAcknowledged]:
        """Acknowledge alarms in the backend's alarm manager; one result each.

        Raises:
            GatewayError: as `poll_alarms`.
        """
