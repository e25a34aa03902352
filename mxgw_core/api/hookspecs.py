"""The hooks that a plugin may implement. docs/plugins/hooks.md has them too; a test compares the two.

Hooks run at start-up or per session, subscriber or call, in the event-loop thread; they are synchronous and must not
block. The event path uses what they return, so no hook runs per event. Unless a hook says otherwise, plugins are asked
in the reverse of the order in which settings.toml enables them (pluggy's own order), None means "no opinion", and an
exception is logged with the plugin's name and counts as None.
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
    """Every hook, grouped by subject."""

    # life cycle

    @hookspec
    def mxgw_settings(self) -> SettingsSection[Any] | None:
        """Declare the plugin's settings section.

        When: once at start, before all other hooks. None: the plugin has no settings, and any key in its section is an
        error. An exception is a start-up failure of the plugin.
        """

    @hookspec
    def mxgw_check_settings(self, limits: SubscriberLimits) -> Sequence[str] | None:
        """Return what is wrong with the settings although each section fits its model: one sentence for each problem.

        When: after all plugins have their settings and before a gateway starts, and in `mxgw config check` and `mxgw
        doctor`; the gateway may be running at the same time. Create and change nothing. `limits` are the limits of
        subscribers that plugins and settings make together. Any problem stops the start; so does a `SettingsError`.
        """

    @hookspec
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None] | None:
        """Return an async context manager that is held open while the gateway serves.

        When: entered at start in the order of settings.toml, before the first call is served; left in reverse order
        after the last session ended. An exception on entering is a start-up failure of the plugin.
        """

    @hookspec
    def mxgw_grpc_services(self, gateway: Gateway) -> Sequence[GrpcService] | None:
        """Return gRPC services to add to the gateway's server.

        When: once at start. Two plugins must not add the same service.
        """

    @hookspec
    def mxgw_cli(self) -> Sequence[click.Command] | None:
        """Return commands to add below `mxgw`.

        When: each time the command line starts; no gateway runs in its process.
        """

    @hookspec
    def mxgw_backup(self, data_dir: Path) -> Sequence[BackupEntry] | None:
        """Return the plugin's files that belong into a backup; only files that exist.

        When: `mxgw backup` runs, in the process of that command; a gateway may be running. `data_dir` is the data
        directory of the gateway. None: the plugin keeps no files. An exception refuses the backup.
        """

    @hookspec
    def mxgw_metrics(self) -> Sequence[Metric] | None:
        """Return the plugin's own metrics as of now.

        When: each time the metrics are read, every few seconds. Count when things happen, and only copy the counts
        here. Names begin with `mxgw_`, the plugin's name and `_`. After an exception the metrics of this plugin are
        missing, and no others.
        """

    @hookspec
    def mxgw_doctor(self) -> Sequence[Finding] | None:
        """Return warnings that somebody should read before the gateway runs with these settings.

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
        """A session lost its last subscriber and stays open.

        Not called while the gateway drains, which ends all streams.
        """

    @hookspec
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """A session ended, and its worker process has exited."""

    @hookspec(firstresult=True)
    def mxgw_detach_grace(self, session: SessionInfo) -> float | None:
        """Return how many seconds the session may live without a subscriber.

        When: the session loses its last subscriber, or is taken back after a restart of the gateway and ever had one. 0
        ends it at once; with `float("inf")` and None only its lease ends it. After a restart it lives for at least 12
        s, so that its clients can come back.
        """

    # identity and access

    @hookspec(firstresult=True)
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity | None:
        """Return who the caller is.

        When: at every call. If every plugin answers None, the call is refused (if no plugin implements this hook, a
        local caller is the anonymous identity). Raise `Unauthenticated` to refuse at once; any exception refuses.
        """

    @hookspec
    def mxgw_authorize(self, request: AccessRequest) -> Decision | None:
        """Return whether the call may run.

        When: at every call, after authentication, and again in the step in which a stream attaches. All answers count:
        any `Deny` wins, and an exception is a `Deny`. Without any answer the call may run.
        """

    @hookspec
    def mxgw_decided(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        """Record what was decided about a call.

        When: once for each call about which `mxgw_authorize` was asked, except for entries of lists: after all plugins
        have answered; for a command after its guards have answered, too; for a stream in the step in which it attaches;
        always before the call runs. `refusal` is the error that refuses the call, None when it will run; `denied` has
        the inputs of a bulk command that were taken out of it, by index, each with the reason. An exception refuses a
        call that would have run.
        """

    @hookspec
    def mxgw_command_guard(self, session: SessionInfo, identity: Identity) -> CommandGuard | None:
        """Return a guard for this identity's commands on this session.

        When: at the first command. All guards must agree. An exception refuses the command.
        """

    @hookspec
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> EventFilter | None:
        """Return a filter for what this identity's subscriber may see.

        When: a subscriber attaches. All filters must agree. An exception refuses the stream.
        """

    @hookspec
    def mxgw_stream_pace(self, session: SessionInfo, identity: Identity) -> StreamPace | None:
        """Return an object that limits how many events per second this identity's stream gets.

        When: a subscriber attaches. The slowest answer counts. An exception refuses the stream.
        """

    @hookspec
    def mxgw_item_access(self, identity: Identity) -> ItemAccess | None:
        """Return what this identity may do with items by reference, for services that need no session.

        When: at each call of such a service that is about items. All answers must agree. An exception refuses the call.
        """

    @hookspec(firstresult=True)
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Return the operator who logs in at the dashboard.

        When: at a login; called in a worker thread, so it may block. Raise a `GatewayError` to refuse with its reason.
        """

    @hookspec(firstresult=True)
    def mxgw_renew_operator(self, operator: Operator) -> Operator | None:
        """Return the operator as of now, with a new token; None when this person is not an operator any more.

        When: before a token expires; called in a worker thread, so it may block.
        """

    @hookspec
    def mxgw_operator_left(self, operator: Operator) -> None:
        """An operator logged out: refuse the token from now on."""

    @hookspec
    def mxgw_operator_sessions(self, operator: Operator) -> SessionPredicate | None:
        """Return which sessions an operator may see.

        All predicates must agree. If no plugin answers, the operator sees no session.
        """

    @hookspec(firstresult=True)
    def mxgw_audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first.

        Return fewer when reading all of them would be slow.

        When: an administrator looks, up to once a second. None: this plugin keeps no such log. Raise a `GatewayError`
        to say why the log cannot be read.
        """

    # events

    @hookspec(firstresult=True)
    def mxgw_subscriber_limits(self, session: SessionInfo | None) -> SubscriberLimits | None:
        """Return how many subscribers a session may have and how far each may fall behind.

        When: a session opens, and at start with `session` None, for the general limits. If every plugin answers None:
        one subscriber, with the queue limits of the core's settings.
        """

    @hookspec(firstresult=True)
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        """Return the policy for one subscriber, or None when this plugin has no policy of the requested name.

        When: a subscriber attaches. If every plugin answers None: `disconnect`, if the client asked for that or for
        nothing; otherwise the stream is refused.
        """

    @hookspec
    def mxgw_buffer_limit(self, session: SessionInfo) -> BufferLimit | None:
        """Return how much of a session's events may be kept.

        When: a session opens. This holds before the first reader, for slow readers and after delivery; it bounds what
        `mxgw_subscriber_limits`, `mxgw_retention` and the settings allow. The smallest answer counts.
        """

    @hookspec
    def mxgw_retention(self, session: SessionInfo) -> Retention | None:
        """Return what the log keeps after delivery.

        When: a session opens. The largest answer counts.
        """

    @hookspec(firstresult=True)
    def mxgw_history(self, session: SessionInfo) -> History | None:
        """Return a store of older events.

        When: a subscriber resumes from a position before the oldest event of the log.
        """

    # workers

    @hookspec
    def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
        """A worker is about to be started. An exception prevents the start.

        Its process does not exist yet. With `workers.warm_pool` a process may exist already, but it knows of no
        session; it has the environment of the gateway at the time when that process was started. Only a plugin that
        keeps workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec(firstresult=True)
    def mxgw_orphan_lifetime(self, spawn: WorkerSpawn) -> float | None:
        """Return how many seconds a worker outlives its gateway, whether that vanished or ended in order.

        When: before the worker is started; the answer holds for the worker's whole life. With 0, None from all plugins,
        or an exception, the worker exits together with its gateway. Only a plugin that keeps workers over a restart of
        the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_started(self, worker: WorkerIdentity) -> None:
        """A worker process exists, or was taken from the warm pool.

        It has not been sent anything yet, not even its secret. An exception ends the process. Only a plugin that keeps
        workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        """A worker proved that it knows its secret; the gateway is about to confirm this to the worker.

        When: at its first connection, and when it is adopted. An exception refuses a new worker. A worker that is
        adopted is kept, and has the next secret: a plugin that could not record the secret must do so later. Only a
        plugin that keeps workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        """A worker proved itself and its backend is ready; also called when it was adopted."""

    @hookspec
    def mxgw_worker_stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """A worker is about to be asked to exit, because its session ends.

        Only a plugin that keeps workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_exited(self, worker_exit: WorkerExit) -> None:
        """A worker process has exited and its socket was removed, or its start was announced and never happened."""

    @hookspec
    def mxgw_worker_refused(self, refusal: WorkerRefusal) -> None:
        """Something connected to a worker's endpoint and was refused; core logs it as well."""

    @hookspec
    def mxgw_orphans(self) -> Sequence[Orphan] | None:
        """Return workers of earlier runs of the gateway.

        When: once at start, before the first call is served. Only a plugin that keeps workers over a restart of the
        gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_ended_sessions(self) -> Sequence[EndedSession] | None:
        """Return sessions that ended in earlier runs of the gateway, the session that ended first at the beginning.

        When: once at start, before `mxgw_orphans`. Their owners can ask how they ended, as long as the sessions are
        among the `limits.remembered_sessions` newest. Only a plugin that keeps workers over a restart of the gateway
        needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_orphan_verdict(self, orphan: Orphan) -> OrphanVerdict | None:
        """Return what to do with an orphan: a worker of an earlier run of the gateway.

        When: once at start, for each orphan that a plugin returned from `mxgw_orphans`. All answers count: any
        TERMINATE, or an exception, ends the orphan; otherwise any IGNORE leaves it alone; otherwise ADOPT takes its
        session back. None from all plugins: TERMINATE. Raise `AccessDenied` when the owner may not have the session any
        more: it ends with OWNER_REVOKED, and the error's text is logged.
        """
