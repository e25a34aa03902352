"""What the gateway is doing. For plugins that show it: sessions, commands, plugins, settings, metrics, events."""

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
    """One plugin at one moment. `state` is "loaded", "failed" or "available"; `hook_failures` counts exceptions by
    hook.
    """

    name: str
    state: str
    distribution: str
    version: str
    required: bool
    detail: str
    hook_failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting in effect: `value` is plain data for JSON, with secrets as `***`; `origin` says where it was set."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class CommandInFlight:
    """A command that its worker has not answered: its name in the contract, and its age."""

    name: str
    age_s: float


class Observation(Protocol):
    """Looks at the running gateway and changes nothing. Call it in the event loop only.

    It does not count as use of a session: it extends no lease and takes no subscriber's place.
    """

    @property
    def backends(self) -> Sequence[str]:
        """The names that OpenSession accepts."""

    @property
    def session_limit(self) -> int:
        """How many sessions may be open."""

    @property
    def memory_bytes(self) -> int:
        """How much memory the events of all sessions use."""

    @property
    def memory_limit_bytes(self) -> int:
        """How much memory they may use (`limits.memory_bytes`)."""

    @property
    def spare_workers(self) -> int:
        """How many workers are started for future sessions; `workers.warm_pool` is the number wanted."""

    @property
    def is_draining(self) -> bool:
        """Whether the gateway is shutting down."""

    def sessions(self) -> Sequence[Session]:
        """Return the live sessions, oldest first, as `ListSessions` shows them."""

    def session(self, session_id: str) -> Session | None:
        """Return a live session, or one that ended lately; None for any other id."""

    def subscribers(self, session_id: str) -> ListSubscribersResponse | None:
        """Return the subscribers of a live session with their counters; None when there is no such session."""

    def commands(self, session_id: str) -> Sequence[CommandInFlight]:
        """Return the commands of a live session that wait for an answer, oldest first; none when there is no such
        session.
        """

    async def session_state(
        self, session_id: str, *, include_values: bool, page_size: int, page_token: str = ""
    ) -> GetSessionStateResponse:
        """Return the MXAccess state of a session. It is a command to the worker: ask seldom, and for few items.

        Raises:
            GatewayError: the session is not there, or its worker does not answer.
        """

    def watch(
        self, session_id: str, interval_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamEventsResponse]]:
        """Mirror a session while the block runs: events and gaps after entering it.

        The mirror takes no subscriber's place, extends no lease, and is never ended for being slow. It gets at most one
        data change per item in `interval_s` seconds; CONFLATED gaps replace the others.

        Raises:
            GatewayError: the session is not there (on entering), or ended (after its last event).
        """

    def audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first; None when no plugin keeps one.

        Show them to administrators only; the caller must check that.

        Raises:
            GatewayError: the log cannot be read.
        """

    def plugins(self) -> Sequence[PluginStatus]:
        """Return the enabled plugins in the order of the settings, then the installed plugins that are not enabled."""

    def metrics(self) -> Sequence[Metric]:
        """Return the gateway's metrics as of now, then those of plugins (hook `mxgw_metrics`).

        They are copied from counters that are kept anyway, which takes some milliseconds for a full gateway.
        """

    def settings(self) -> Sequence[ShownSetting]:
        """Return every setting in the order of the sections, secrets masked."""
