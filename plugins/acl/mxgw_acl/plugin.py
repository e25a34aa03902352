"""The hooks of the plugin. Each has a few lines that call the objects of `running.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import click

from mxgw_acl.running import Running, running
from mxgw_acl.settings import AclSettings
from mxgw_core.api import (
    AccessRequest,
    Allow,
    AuditEntry,
    AuthenticationRequest,
    BackupEntry,
    BufferLimit,
    CloseReason,
    CommandGuard,
    Decision,
    Deny,
    EventFilter,
    Finding,
    Gateway,
    Identity,
    ItemAccess,
    Operator,
    OperatorCredentials,
    Orphan,
    OrphanVerdict,
    SessionInfo,
    SessionPredicate,
    SettingsSection,
    StreamPace,
    hookimpl,
    left_behind,
)
from mxgw_core.api.errors import GatewayError, SettingsError, Unauthenticated

_FORMER_DIRECTORY = Path("var/acl")
# Shown to a site that still has the setting failed_attempts.
_ATTEMPTS = (
    "limits.failed_attempts_per_minute and limits.failed_attempts_burst took its place, one limit for keys and logins"
)
_NOT_RUNNING = "access control is not running"


class AclPlugin:
    """The hooks of the plugin. While the gateway is not running, the hooks that decide about calls refuse them."""

    def __init__(self) -> None:
        self._settings = AclSettings()
        self._running: Running | None = None

    # life cycle

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[AclSettings]:
        return SettingsSection("acl", AclSettings, self._configure, {"failed_attempts": _ATTEMPTS})

    def _configure(self, settings: AclSettings) -> None:
        if "directory" not in settings.model_fields_set:
            now = settings.directory
            # Earlier releases kept the keys in another directory. The gateway must not start with a new, empty key
            # database while these keys exist.
            if text := left_behind(_FORMER_DIRECTORY.absolute(), now, now.parent):
                raise SettingsError(f"plugins.acl.directory: {text}")
        self._settings = settings

    @hookimpl
    def mxgw_check_settings(self) -> Sequence[str]:
        from mxgw_acl.files import check_directory
        from mxgw_acl.operators import directory_of

        problems: list[str] = []
        try:
            check_directory(self._settings.directory)
        except SettingsError as error:
            problems.append(str(error))
        try:
            if (operators := directory_of(self._settings)) is not None:
                operators.close()
        except SettingsError as error:
            problems.append(str(error))
        return problems

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._context(gateway)

    @asynccontextmanager
    async def _context(self, gateway: Gateway) -> AsyncIterator[None]:
        async with running(self._settings, gateway) as state:
            self._running = state
            try:
                yield
            finally:
                self._running = None

    @hookimpl
    def mxgw_cli(self) -> Sequence[click.Command]:
        from mxgw_acl.cli import commands

        return commands(lambda: self._settings)

    @hookimpl
    def mxgw_doctor(self) -> Sequence[Finding]:
        from mxgw_acl.doctor import findings

        return findings(self._settings)

    @hookimpl
    def mxgw_backup(self) -> Sequence[BackupEntry]:
        from mxgw_acl.store import files_to_back_up

        return files_to_back_up(self._settings.directory)

    # opening, adopting and closing sessions

    @hookimpl
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        if self._running is not None:
            self._running.records.session_opened(session)

    @hookimpl
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        if self._running is not None:
            self._running.session_closed(session, reason)

    @hookimpl
    def mxgw_orphan_verdict(self, orphan: Orphan) -> OrphanVerdict | None:
        self._required().check_orphan(orphan)
        return None

    # identity and access

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
        if self._running is None:
            raise Unauthenticated(_NOT_RUNNING)
        return self._running.authentication.identify(request)

    @hookimpl
    def mxgw_authorize(self, request: AccessRequest) -> Decision:
        if self._running is None:
            return Deny(_NOT_RUNNING)
        self._running.authorization.check(request)
        return Allow()

    @hookimpl
    def mxgw_decided(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        self._required().records.call(request, refusal, denied)

    @hookimpl
    def mxgw_command_guard(self, identity: Identity) -> CommandGuard | None:
        return self._required().command_guard(identity)

    @hookimpl
    def mxgw_event_filter(self, identity: Identity) -> EventFilter | None:
        return self._required().event_filter(identity)

    @hookimpl
    def mxgw_stream_pace(self, identity: Identity) -> StreamPace | None:
        return self._required().limits.pace(identity)

    @hookimpl
    def mxgw_buffer_limit(self, session: SessionInfo) -> BufferLimit | None:
        return self._required().limits.buffer(session)

    @hookimpl
    def mxgw_item_access(self, identity: Identity) -> ItemAccess | None:
        return self._required().item_access(identity)

    @hookimpl
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        return self._required().operators.log_in(credentials)

    @hookimpl
    def mxgw_renew_operator(self, operator: Operator) -> Operator | None:
        return self._required().operators.renew(operator)

    @hookimpl
    def mxgw_operator_left(self, operator: Operator) -> None:
        self._required().operator_left(operator)

    @hookimpl
    def mxgw_operator_sessions(self, operator: Operator) -> SessionPredicate:
        return self._required().operator_sessions(operator)

    @hookimpl
    def mxgw_audit_tail(self, limit: int) -> Sequence[AuditEntry]:
        return self._required().audit_tail.last(limit)

    def _required(self) -> Running:
        """Return the objects of the running plugin.

        Raises:
            RuntimeError: the plugin is not running; the exception makes the gateway refuse the call.
        """
        if self._running is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._running
