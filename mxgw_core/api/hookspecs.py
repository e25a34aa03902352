"""The hooks that a plugin can implement. docs/plugins/hooks.md contains the same texts; a test compares them.

Hooks are plain functions that run in the thread of the event loop, so they must not block. They are called at the
start, or for a session, a subscriber or a call, but never for a single event: for events, hooks return objects that the
gateway uses later. Unless the text of a hook says otherwise, the plugins are called in the reverse of the order in
which the settings enable them (this is the order of pluggy), None means "no opinion", and an exception is logged with
the name of the plugin and counts as None.

A hook fails when it raises any exception, also `SystemExit` and `CancelledError`, and when it returns something else
than its annotation says: then it means what an exception means. A `GatewayError` is no failure. The same holds for the
methods of the objects that hooks return. Arguments are copies, so a change of them changes nothing. A call that takes
longer than `plugins.slow_call_ms` by its own fault is counted and logged.

All hooks stand in this one module, though it has more than 400 lines, because they are read together.
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
# The decorator for a method of a plugin that implements the hook of the same name.
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
        """Return one sentence for each mistake in the settings that the models of the sections cannot find.

        When: after all plugins have their settings and before a gateway starts, and in `mxgw config check` and `mxgw
        doctor`; the gateway can be running at the same time. Do not create or change anything. `limits` are the limits
        of subscribers that result from plugins and settings. Any problem stops the start, and so does a
        `SettingsError`. Any other exception, or a wrong answer, is a problem too, because nobody knows what the check
        would have found.
        """

    @hookspec
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None] | None:
        """Return an async context manager that is held open while the gateway serves.

        When: once at start. The contexts are entered in the order in which the settings enable the plugins, before the
        first call is served, and are closed in the reverse order after the last session has ended. Each context is
        entered, held and left in a task of its own. An exception on entering is a start-up failure of the plugin, and
        so is entering that takes longer than `plugins.start_timeout_s`. When the context ends while the gateway serves,
        for example because a task in its task group raises, the plugin has failed: its hooks are not called any more,
        its services answer `PLUGIN_FAILED`, and its feeds, followers and internal sessions end. A context that is not
        left within `plugins.stop_timeout_s` is cancelled.
        """

    @hookspec
    def mxgw_grpc_services(self, gateway: Gateway) -> Sequence[GrpcService] | None:
        """Return gRPC services to add to the gateway's server.

        When: once at start. Two plugins must not add the same service.
        """

    @hookspec
    def mxgw_cli(self) -> Sequence[click.Command] | None:
        """Return commands that are added to the command `mxgw`.

        When: each time the command line starts. There is no gateway in this process. When a command raises an
        exception, the user sees the plugin, the exception and its place, and the exit code is 1. A
        `click.ClickException` is shown with its own text, and `sys.exit` ends the command with its code.
        """

    @hookspec
    def mxgw_backup(self, data_dir: Path) -> Sequence[BackupEntry] | None:
        """Return the files of the plugin that belong into a backup. Do not return files that do not exist.

        When: `mxgw backup` runs, in the process of this command; a gateway can be running at the same time. `data_dir`
        is the data directory of the gateway. None: the plugin keeps no files. After an exception no backup is made.
        """

    @hookspec
    def mxgw_metrics(self) -> Sequence[Metric] | None:
        """Return the present values of the plugin's own metrics.

        When: each time the metrics are read, every few seconds. This must be quick, so count things when they happen,
        and only copy the counts here. The name of a metric begins with `mxgw_`, the plugin's name and `_`. After an
        exception only the metrics of this plugin are missing.
        """

    @hookspec
    def mxgw_doctor(self) -> Sequence[Finding] | None:
        """Return warnings that somebody should read before the gateway runs with these settings.

        When: `mxgw doctor` runs, after the plugins have got their settings; the gateway can be running at the same
        time. Do not change anything. An exception is shown as a finding.
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
        """The last subscriber of a session left, and the session stays open.

        Not called while the gateway is shutting down, because then it ends all streams itself.
        """

    @hookspec
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """A session ended, and its worker process has exited."""

    @hookspec(firstresult=True)
    def mxgw_detach_grace(self, session: SessionInfo) -> float | None:
        """Return the detach grace: how many seconds the session lives without a subscriber.

        When: the last subscriber of the session leaves, or the session is adopted after a restart of the gateway and
        had a subscriber before. With 0 the session ends at once. With None or `float("inf")` there is no detach grace,
        and only the lease ends the session. After a restart the detach grace is at least 12 s, so that clients have
        the time to come back.
        """

    # identity and access

    @hookspec(firstresult=True)
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity | None:
        """Return who the caller is.

        When: at every call. If every plugin answers None, the call is refused; but if no plugin implements this hook,
        a local caller is the anonymous identity. Any exception refuses the call. Raise `Unauthenticated` when the
        credentials are wrong: then no other plugin is asked.
        """

    @hookspec
    def mxgw_authorize(self, request: AccessRequest) -> Decision | None:
        """Return whether the call is allowed.

        When: at every call, after authentication; again at the moment when a stream attaches; and again before the
        answer of a unary call that took longer than half a second, because the caller can have been revoked meanwhile
        (`AccessRequest.moment`). All answers count: a single `Deny` refuses the call, and an exception is a `Deny`. If
        every plugin answers None, the call is allowed.
        """

    @hookspec
    def mxgw_decided(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        """Record what was decided about a call.

        When: once for each call for which `mxgw_authorize` was called, but not for the entries of a list. It is called
        before the call runs, when everything is decided: for a command, after its guards have answered; for a stream,
        at the moment when the stream attaches. It is called a second time, with the moment ANSWER, only when the answer
        of a call that took long is withheld. `refusal` is the error that refuses the call, None when the call will
        run. `denied` has the inputs that were removed from a bulk command. Key: the index of the input. Value: the
        reason. An exception refuses a call that would have run.
        """

    @hookspec
    def mxgw_command_guard(self, session: SessionInfo, identity: Identity) -> CommandGuard | None:
        """Return a guard that decides about this identity's commands on this session.

        When: at the first command on the session, and again when a command has another identity than the one before, or
        when `identity.claims` has changed. A command must be allowed by all guards. An exception refuses the command.
        """

    @hookspec
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> EventFilter | None:
        """Return a filter that decides which events a subscriber of this identity gets.

        When: a subscriber attaches. The subscriber gets an event only when all filters keep it. An exception refuses
        the stream.
        """

    @hookspec
    def mxgw_stream_pace(self, session: SessionInfo, identity: Identity) -> StreamPace | None:
        """Return an object that limits how many events per second this identity's stream gets.

        When: a subscriber attaches. When several plugins answer, each limit is kept. An exception refuses the stream.
        """

    @hookspec
    def mxgw_item_access(self, identity: Identity) -> ItemAccess | None:
        """Return what this identity is allowed to do with items, for services that need no session.

        When: at each call of such a service that names items. All plugins that answer must allow the use of an item. An
        exception refuses the call.
        """

    @hookspec(firstresult=True)
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Return the operator who logs in at the dashboard.

        When: at a login. It is called in a thread of its own, so it is allowed to block. Raise a `GatewayError` to
        refuse the login and report the reason.
        """

    @hookspec(firstresult=True)
    def mxgw_renew_operator(self, operator: Operator) -> Operator | None:
        """Return the operator with its present rights and a new token; None when this person is no operator any more.

        When: before a token expires. It is called in a thread of its own, so it is allowed to block.
        """

    @hookspec
    def mxgw_operator_left(self, operator: Operator) -> None:
        """An operator logged out. The plugin must refuse the operator's token from now on."""

    @hookspec
    def mxgw_operator_sessions(self, operator: Operator) -> SessionPredicate | None:
        """Return a function that decides which sessions an operator is allowed to see.

        The operator sees a session when the functions of all plugins that answer return true for it. If every plugin
        answers None, the operator sees no session.
        """

    @hookspec(firstresult=True)
    def mxgw_audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        """Return the newest entries of the audit log, at most `limit`, oldest first.

        Return fewer entries when it would be slow to read all of them.

        When: an administrator looks at the audit log, up to once a second. None: this plugin keeps no audit log. Raise
        a `GatewayError` to report why the audit log cannot be read.
        """

    # events

    @hookspec(firstresult=True)
    def mxgw_subscriber_limits(self, session: SessionInfo | None) -> SubscriberLimits | None:
        """Return how many subscribers a session can have, and the limits of their lag.

        When: a session opens. At start it is also called with `session` None, for the limits that hold for any session.
        If every plugin answers None, a session can have one subscriber, and the limits are those of `events.queue_*`.
        """

    @hookspec(firstresult=True)
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        """Return the overflow policy of one subscriber; None when this plugin has no policy of the requested name.

        When: a subscriber attaches. If every plugin answers None, the policy is `disconnect`, unless the client asked
        for another policy: then the stream is refused. An exception, or an answer that is no policy, is a failure of
        the plugin: the next plugin is asked. All code of a policy is contained: when it fails, the policy `disconnect`
        takes its place for this subscriber, and the client is told that the policy failed.

        A policy answers with one of ten actions: `Disconnect`, `FailSession`, `DropOldest`, `DropNewest`, `Conflate`,
        `Select`, `SelectEvents`, `Resync`, `Tolerate`, `Block`.
        """

    @hookspec
    def mxgw_buffer_limit(self, session: SessionInfo) -> BufferLimit | None:
        """Return how many bytes of events can be kept for a session.

        When: a session opens. The limit is valid always: before the first subscriber, for slow subscribers, and for
        events that are kept after delivery. It lowers larger limits of `mxgw_subscriber_limits`, `mxgw_retention` and
        the settings. The smallest answer counts.
        """

    @hookspec
    def mxgw_retention(self, session: SessionInfo) -> Retention | None:
        """Return how many events the log keeps after all subscribers have read them.

        When: a session opens. When several plugins answer, the log keeps enough for all answers.
        """

    @hookspec(firstresult=True)
    def mxgw_history(self, session: SessionInfo) -> History | None:
        """Return a store of older events.

        When: a subscriber resumes after a position that is older than the oldest event of the log.
        """

    # workers

    @hookspec
    def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
        """A worker is about to be started. An exception prevents the start.

        Usually the worker's process does not exist yet. But if `workers.warm_pool` is set, the process was perhaps
        started earlier, before a session needed it. It then has the environment variables that the gateway had at that
        time, and knows nothing of the session yet. Only a plugin that keeps workers over a restart of the gateway needs
        this hook, as reattach does.
        """

    @hookspec(firstresult=True)
    def mxgw_orphan_lifetime(self, spawn: WorkerSpawn) -> float | None:
        """Return how many seconds a worker lives on after its gateway has ended, in order or by a crash.

        When: before the worker is started. The answer is valid for the worker's whole life. With 0, or without an
        answer, the worker exits when its gateway ends. Only a plugin that keeps workers over a restart of the gateway
        needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_started(self, worker: WorkerIdentity) -> None:
        """A worker process exists, or was taken from the warm pool.

        Nothing was sent to the process yet, not even its secret. An exception ends the process. Only a plugin that
        keeps workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        """A worker proved that it knows its secret. Store the worker's next secret, which is in `proof`.

        When: a new worker connects for the first time, or an orphan connects to be adopted, before the gateway confirms
        the proof to the worker. An exception refuses a new worker. An orphan is adopted also after an exception, and
        uses the next secret from then on, so the plugin must store this secret later. Only a plugin that keeps workers
        over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        """A worker is ready: it has proved that it knows its secret, and its backend is ready. Also called for an
        adopted worker.
        """

    @hookspec
    def mxgw_worker_stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """A worker is about to be asked to exit, because its session ends.

        Only a plugin that keeps workers over a restart of the gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_worker_exited(self, worker_exit: WorkerExit) -> None:
        """A worker process has exited and its socket was removed.

        Also called when `mxgw_worker_spawning` was called for a worker, but its process was not started.
        """

    @hookspec
    def mxgw_worker_refused(self, refusal: WorkerRefusal) -> None:
        """A connection to a worker's socket was refused. The gateway logs this itself."""

    @hookspec
    def mxgw_orphans(self) -> Sequence[Orphan] | None:
        """Return the workers of earlier runs of the gateway that perhaps still live.

        When: once at start, before the first call is served. Only a plugin that keeps workers over a restart of the
        gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_ended_sessions(self) -> Sequence[EndedSession] | None:
        """Return the sessions that ended in earlier runs of the gateway, in the order in which they ended.

        When: once at start, before `mxgw_orphans`. The gateway remembers the last `limits.remembered_sessions` of them,
        so that their owners can still ask why a session ended. Only a plugin that keeps workers over a restart of the
        gateway needs this hook, as reattach does.
        """

    @hookspec
    def mxgw_orphan_verdict(self, orphan: Orphan) -> OrphanVerdict | None:
        """Return the verdict about an orphan: a worker of an earlier run of the gateway.

        When: once at start, for each orphan from `mxgw_orphans` that can be adopted. All answers count: when a plugin
        answers TERMINATE, or raises an exception, the orphan is ended; otherwise, when a plugin answers IGNORE, the
        orphan is left alone; otherwise, when a plugin answers ADOPT, the orphan is adopted. If every plugin answers
        None, the orphan is ended. Raise `AccessDenied` when the owner is not allowed to have the session any more: the
        session then ends with OWNER_REVOKED, and the text of the error is logged.
        """
