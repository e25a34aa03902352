"""What the gateway is doing now. For plugins that show sessions, commands, plugins, settings, metrics or events."""

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
    """The state of one plugin. `state` is "loaded", "failed" or "available". With `controls_access` it decides about
    access, so calls are denied when it has failed.

    `hook_failures` counts exceptions. Key: the name of a hook. Value: how many exceptions it raised.
    """

    name: str
    state: str
    distribution: str
    version: str
    required: bool
    detail: str
    hook_failures: Mapping[str, int]
    controls_access: bool = False


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting: its dotted key, its value as plain data for JSON with `***` for secrets, and where it was set."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class CommandInFlight:
    """A command that the worker has not answered yet: its name in the contract, and how long ago it was sent."""

    name: str
    age_s: float


class Observation(Protocol):
    """Shows the state of the running gateway, without changing it. Use it in the event loop only.

    Looking at a session does not count as use of the session: its lease does not start again, and no subscriber is
    attached.
    """

    @property
    def backends(self) -> Sequence[str]:
        """The names of the backends that the settings define."""

    @property
    def session_limit(self) -> int:
        """How many sessions can be open at the same time (`limits.sessions`)."""

    @property
    def memory_bytes(self) -> int:
        """How much memory the events of all sessions use."""

    @property
    def memory_limit_bytes(self) -> int:
        """How much memory the events of all sessions are allowed to use (`limits.memory_bytes`)."""

    @property
    def spare_workers(self) -> int:
        """How many spare workers are ready for future sessions; at most `workers.warm_pool`."""

    @property
    def is_draining(self) -> bool:
        """Whether the gateway is shutting down."""

    def sessions(self) -> Sequence[Session]:
        """Return the live sessions, oldest first, as `ListSessions` shows them."""

    def session(self, session_id: str) -> Session | None:
        """Return a session that is live or ended lately; None when no known session has this id."""

    def subscribers(self, session_id: str) -> ListSubscribersResponse | None:
        """Return the subscribers of a live session, with their counts; None when no live session has this id."""

    def commands(self, session_id: str) -> Sequence[CommandInFlight]:
        """Return the unanswered commands of a live session, oldest first. The sequence is empty when no live session
        has this id.
        """

    async def session_state(
        self, session_id: str, *, include_values: bool, page_size: int, page_token: str = ""
    ) -> GetSessionStateResponse:
        """Return the MXAccess state of a session.

        This sends a command to the worker, so call it seldom and with a small `page_size`.

        Raises:
            GatewayError: the session is not live or not ready, or its worker does not answer.
        """

    def watch(
        self, session_id: str, interval_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamEventsResponse]]:
        """Follow the events of a session: the context yields an iterator over the events and gaps from now on.

        This reader does not count as a subscriber of the session, and does not start the lease again. It is never
        disconnected because it is slow. It gets at most one data change per item in `interval_s` seconds; CONFLATED
        gaps replace the others.

        Raises:
            GatewayError: when the context is entered, the session is not live. The iterator raises this error too: when
                the session has ended, after the last event.
        """

    def audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first; None when no plugin keeps one.

        The caller must make sure that only administrators see the entries.

        Raises:
            GatewayError: the audit log cannot be read.
        """

    def plugins(self) -> Sequence[PluginStatus]:
        """Return the enabled plugins in the order of the settings, then the installed plugins that are not enabled."""

    def metrics(self) -> Sequence[Metric]:
        """Return the present metrics: first the gateway's metrics, then the metrics of plugins (hook `mxgw_metrics`).

        This takes some milliseconds when many sessions are open.
        """

    def settings(self) -> Sequence[ShownSetting]:
        """Return all settings, in the order of the sections. Secrets are masked."""
