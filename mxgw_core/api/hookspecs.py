"""The hooks a plugin may implement. Exact signatures also stand in docs/plugins/hooks.md, kept true by a test.

Hooks run at start-up or per session, subscriber or call, in the event-loop thread; they are synchronous and must not
block. What they return is used on the hot path, so no hook runs per event. Unless a hook says otherwise, plugins are
asked in the reverse of the order in which settings.toml enables them (pluggy's own order), None means "no opinion",
and an exception is logged with the plugin's name and counts as None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click
import pluggy

from mxgw_core.api.access import (
    AccessRequest,
    AuditEntry,
    AuthenticationRequest,
    CommandGuard,
    Decision,
    ItemAccess,
    Operator,
    OperatorCredentials,
    SessionPredicate,
)
from mxgw_core.api.calls import GrpcService
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import (
    BufferLimit,
    EventFilter,
    History,
    OverflowPolicy,
    PolicyRequest,
    Retention,
    StreamPace,
    SubscriberLimits,
)
from mxgw_core.api.gateway import Gateway
from mxgw_core.api.maintenance import BackupEntry, Finding
from mxgw_core.api.metrics import Metric
from mxgw_core.api.settings import SettingsSection
from mxgw_core.api.types import CloseReason, EndedSession, Identity, SessionInfo
from mxgw_core.api.workers import (
    Orphan,
    OrphanVerdict,
    WorkerExit,
    WorkerIdentity,
    WorkerProof,
    WorkerRefusal,
    WorkerSpawn,
)

PROJECT = "mxgw"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Every hook, grouped by what it is about."""

    # life cycle

    @hookspec
    def mxgw_settings(self) -> SettingsSection[Any] | None:
        """Declare the plugin's settings section.

        When: once at start, first of all hooks. None: the plugin has no settings, and any key in its section is an
        error. An exception is a start-up failure of the plugin.
        """

    @hookspec
    def mxgw_check_settings(self, limits: SubscriberLimits) -> Sequence[str] | None:
        """Return what is wrong with the settings though each section fits its model; a sentence for each problem.

        When: once all plugins have their settings, before a gateway starts, and in `mxgw config check` and
        `mxgw doctor`; the gateway may be running at the same time. Make and change nothing. `limits` are those of
        subscribers as plugins and settings have them. Any problem stops the start; a `SettingsError` is one, too.
        """

    @hookspec
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None] | None:
        """Return an async context manager held open while the gateway serves.

        When: entered at start in the order of settings.toml, before the first call is served; left in reverse after
        the last session ended. An exception on entering is a start-up failure of the plugin.
        """

    @hookspec
    def mxgw_grpc_services(self, gateway: Gateway) -> Sequence[GrpcService] | None:
        """Return gRPC services to add to the gateway's server. When: once at start. Names must not clash."""

    @hookspec
    def mxgw_cli(self) -> Sequence[click.Command] | None:
        """Return commands to add below `mxgw`. When: each time the command line starts; no gateway is running."""

    @hookspec
    def mxgw_backup(self, data_dir: Path) -> Sequence[BackupEntry] | None:
        """Return the plugin's files that belong into a backup; only those that exist.

        When: as `mxgw backup` runs, in its process, beside a running gateway or without one; `data_dir` is that
        gateway's. None: the plugin keeps nothing. An exception refuses the backup.
        """

    @hookspec
    def mxgw_metrics(self) -> Sequence[Metric] | None:
        """Return the plugin's own metrics as of now.

        When: each time the metrics are read, every few seconds; so count as things happen, and only copy here. Names
        begin with `mxgw_`, the plugin's name and `_`. What an exception costs is the metrics of its plugin.
        """

    @hookspec
    def mxgw_doctor(self) -> Sequence[Finding] | None:
        """Return what somebody should look at before the gateway runs with these settings.

        When: `mxgw doctor` runs, after the settings were applied; the gateway may be running at the same time. Change
        nothing. An exception is shown as a finding.
        """

    # sessions

    @hookspec
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        """A session became READY."""

    @hookspec
    def mxgw_session_attached(self, session: SessionInfo) -> None:
        """A session that had no subscriber got one."""

    @hookspec
    def mxgw_session_detached(self, session: SessionInfo) -> None:
        """A session lost its last subscriber and goes on. Not told while the gateway drains, which ends all streams."""

    @hookspec
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """A session ended; its worker is gone."""

    @hookspec(firstresult=True)
    def mxgw_detach_grace(self, session: SessionInfo) -> float | None:
        """Return how many seconds the session may live without a subscriber.

        When: as it loses its last one, and after a restart as it is taken back, if it ever had one. 0 ends it at once;
        `float("inf")` and None leave it to its lease. After a restart it lives for at least 12 s, so that its clients
        can come back.
        """

    # identity and access

    @hookspec(firstresult=True)
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity | None:
        """Return who the caller is.

        When: at every call. None from all: the call is refused (with no implementing plugin at all, a local caller is
        the anonymous identity). Raise `Unauthenticated` to refuse at once; any exception refuses.
        """

    @hookspec
    def mxgw_authorize(self, request: AccessRequest) -> Decision | None:
        """Return whether the call may run.

        When: at every call, after authentication, and again in the step in which a stream attaches. All answers
        count: any `Deny` wins, an exception is a `Deny`; with no answer the call may run.
        """

    @hookspec
    def mxgw_decided(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        """What became of a request for access, for those who keep a record of it.

        When: once for each call that `mxgw_authorize` was asked about, but for lists: when all plugins have answered,
        for a command when its guards have, too, and for a stream in the step in which it attaches; always before the
        call runs. `refusal` is why it will not run, None when it will; `denied` are the inputs of a bulk command that
        were taken out of it, by index, with the reason. An exception refuses a call that would have run.
        """

    @hookspec
    def mxgw_command_guard(self, session: SessionInfo, identity: Identity) -> CommandGuard | None:
        """Return a judge for this identity's commands on this session.

        When: at its first command. All guards must agree. An exception refuses the command.
        """

    @hookspec
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> EventFilter | None:
        """Return a filter for what this identity's subscriber may see.

        When: as a subscriber attaches. All filters must agree. An exception refuses the stream.
        """

    @hookspec
    def mxgw_stream_pace(self, session: SessionInfo, identity: Identity) -> StreamPace | None:
        """Return what holds this identity's stream back, so that it gets no more events in a time than it may.

        When: as a subscriber attaches. The slowest of all counts. An exception refuses the stream.
        """

    @hookspec
    def mxgw_item_access(self, identity: Identity) -> ItemAccess | None:
        """Return what this identity may do with items by reference, for services that need no session.

        When: at each call of such a service that is about items. All answers must agree. An exception refuses the call.
        """

    @hookspec(firstresult=True)
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Return who logs in at the dashboard.

        When: at a login; called in a worker thread, so it may block. Raise a `GatewayError` to refuse with its reason.
        """

    @hookspec(firstresult=True)
    def mxgw_renew_operator(self, operator: Operator) -> Operator | None:
        """Return the operator as of now, with a new token, or None when the person is none any more.

        When: before a token expires; called in a worker thread, so it may block.
        """

    @hookspec
    def mxgw_operator_left(self, operator: Operator) -> None:
        """An operator logged out: the token is worth nothing from now on."""

    @hookspec
    def mxgw_operator_sessions(self, operator: Operator) -> SessionPredicate | None:
        """Return which sessions an operator may see. All predicates must agree; with none, nothing is seen."""

    @hookspec(firstresult=True)
    def mxgw_audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first; fewer when it costs too much.

        When: as an administrator looks, as often as once a second. None: this plugin keeps no such log. Raise a
        `GatewayError` to say why it cannot be read.
        """

    # events

    @hookspec(firstresult=True)
    def mxgw_subscriber_limits(self, session: SessionInfo | None) -> SubscriberLimits | None:
        """Return how many subscribers a session may have and how far each may fall behind.

        When: as a session opens, and with `session` None at start, for what holds in general. None from all: one
        subscriber, with the queue limits of the core's settings.
        """

    @hookspec(firstresult=True)
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        """Return the policy for one subscriber, or None for names that are not this plugin's.

        When: as a subscriber attaches. None from all: `disconnect`, when that or nothing was asked for; else the
        stream is refused.
        """

    @hookspec
    def mxgw_buffer_limit(self, session: SessionInfo) -> BufferLimit | None:
        """Return how much of a session's events may be kept: before the first reader, for readers behind, and after.

        When: as a session opens; it bounds what `mxgw_subscriber_limits`, `mxgw_retention` and the settings say. The
        smallest of all answers counts.
        """

    @hookspec
    def mxgw_retention(self, session: SessionInfo) -> Retention | None:
        """Return what the log keeps after delivery. When: as a session opens. The largest of all answers counts."""

    @hookspec(firstresult=True)
    def mxgw_history(self, session: SessionInfo) -> History | None:
        """Return a store of older events. When: as a subscriber resumes from before what the log holds."""

    # workers

    @hookspec
    def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
        """A worker is about to be started. An exception prevents the start.

        Its process does not exist yet; with `workers.warm_pool` it may, and knows of no session. It has the
        environment that the gateway had when the process was started.
        """

    @hookspec(firstresult=True)
    def mxgw_orphan_lifetime(self, spawn: WorkerSpawn) -> float | None:
        """Return how many seconds a worker outlives a gateway that vanished, or that ends in order.

        When: before the worker is started; it keeps the answer for its life. 0, None from all, and an exception: it
        leaves with its gateway.
        """

    @hookspec
    def mxgw_worker_started(self, worker: WorkerIdentity) -> None:
        """A worker process exists, or was taken from the warm pool; it knows nothing yet, its secret included.

        An exception ends it.
        """

    @hookspec
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        """A worker proved itself and is about to be told so.

        When: at its first connection, and as it is adopted. An exception refuses a new worker; one that is adopted is
        kept, and has the next secret: a plugin that could not record it has to do so later.
        """

    @hookspec
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        """A worker proved itself and its backend is ready; also when it was adopted."""

    @hookspec
    def mxgw_worker_stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """A worker is about to be told to leave, because its session ends."""

    @hookspec
    def mxgw_worker_exited(self, worker_exit: WorkerExit) -> None:
        """A worker process is gone and its socket removed, or it was announced and never started."""

    @hookspec
    def mxgw_worker_refused(self, refusal: WorkerRefusal) -> None:
        """Something connected to a worker's endpoint and was turned away; core logs it as well."""

    @hookspec
    def mxgw_orphans(self) -> Sequence[Orphan] | None:
        """Return workers of earlier gateway runs. When: once at start, before the first call is served."""

    @hookspec
    def mxgw_ended_sessions(self) -> Sequence[EndedSession] | None:
        """Return sessions that ended in earlier gateway runs, the oldest end first.

        When: once at start, before `mxgw_orphans`. Their owners are told how they ended, for as long as they are among
        the `limits.remembered_sessions` newest.
        """

    @hookspec
    def mxgw_orphan_verdict(self, orphan: Orphan) -> OrphanVerdict | None:
        """Return what to do with an orphan.

        When: once at start. All answers count: any TERMINATE, or an exception, ends it; else any IGNORE leaves it
        alone; else ADOPT takes its session back. None from all: TERMINATE. Raise `AccessDenied` when the owner may not
        have it any more: the session ends with OWNER_REVOKED, and the error's text in the log.
        """
