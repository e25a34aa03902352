"""What a plugin may see of sessions, plugins and settings: the contract's own messages, and a mirror of the events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.session_service_pb2 import GetSessionStateResponse, ListSubscribersResponse, Session
from mxgw_core.api.access import AuditEntry
from mxgw_core.api.metrics import Metric


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One plugin at one moment. `state` is "loaded", "failed" or "available"; `hook_failures` counts by hook."""

    name: str
    state: str
    distribution: str
    version: str
    required: bool
    detail: str
    hook_failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting as it counts: `value` is plain data fit for JSON with secrets as `***`; `origin` says who set it."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class CommandInFlight:
    """A command that its worker has not answered: what it is called in the contract, and how long it waits."""

    name: str
    age_s: float


class Observation(Protocol):
    """Looks at the running gateway and changes nothing; call it in the event loop only.

    Nothing here counts as use of a session: no lease is extended, and no subscriber's place is taken.
    """

    @property
    def backends(self) -> Sequence[str]:
        """The names that OpenSession accepts."""

    @property
    def session_limit(self) -> int:
        """How many sessions may be open."""

    @property
    def memory_bytes(self) -> int:
        """How much memory the events of all sessions take."""

    @property
    def memory_limit_bytes(self) -> int:
        """How much they may take; see `limits.memory_bytes`."""

    @property
    def spare_workers(self) -> int:
        """How many workers stand ready for the next sessions; `workers.warm_pool` says how many should."""

    @property
    def is_draining(self) -> bool:
        """Whether the gateway is shutting down."""

    def sessions(self) -> Sequence[Session]:
        """Return the live sessions, oldest first, as `ListSessions` tells them."""

    def session(self, session_id: str) -> Session | None:
        """Return a session, live or ended lately; None when it is not known."""

    def subscribers(self, session_id: str) -> ListSubscribersResponse | None:
        """Return who follows a live session, and its counters; None when there is no such session."""

    def commands(self, session_id: str) -> Sequence[CommandInFlight]:
        """Return the commands of a live session that wait for their answer, oldest first; none when it is not there."""

    async def session_state(
        self, session_id: str, *, include_values: bool, page_size: int, page_token: str = ""
    ) -> GetSessionStateResponse:
        """Return the MXAccess state of a session. It is a command to its worker: ask seldom, and for few items.

        Raises:
            GatewayError: the session is not there, or its worker does not answer.
        """

    def watch(
        self, session_id: str, interval_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamEventsResponse]]:
        """Hold a mirror of a session's events, from entering on: frames of events and gaps only.

        A mirror of the gateway's own: it takes no subscriber's place, holds no lease, and is never cut for being slow.
        At most one data change per item comes in `interval_s` seconds; CONFLATED gaps stand for those in between.

        Raises:
            GatewayError: the session is not there (on entering), or ended (after its last event).
        """

    def audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first; None when no plugin keeps one.

        For administrators only: whoever shows it must know that its reader is one.

        Raises:
            GatewayError: it cannot be read.
        """

    def plugins(self) -> Sequence[PluginStatus]:
        """Return the enabled plugins in the order of the settings, then the others that are installed."""

    def metrics(self) -> Sequence[Metric]:
        """Return the gateway's metrics as of now, then those that plugins bring (hook `mxgw_metrics`).

        Made from counters that are kept anyway: some milliseconds for a full gateway, and nothing until asked.
        """

    def settings(self) -> Sequence[ShownSetting]:
        """Return every setting in the order of the sections, secrets masked."""
