"""The objects of the plugin while the gateway runs, and the task that applies changes of the key store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from mxgw_acl.audit_log import AUDIT_FILE, GATEWAY_LOCK_WAIT_S, AuditLog, AuditRecord
from mxgw_acl.audit_records import AuditRecords
from mxgw_acl.audit_tail import AuditTail
from mxgw_acl.authentication import Authentication
from mxgw_acl.authorization import Authorization, may_see, revoked
from mxgw_acl.files import private_directory, secret_file
from mxgw_acl.item_rights import ItemFilter, ItemGuard, KeyItems
from mxgw_acl.key_limits import KeyLimits
from mxgw_acl.keyring import Keyring
from mxgw_acl.keys import Scope
from mxgw_acl.operators import Operators, directory_of
from mxgw_acl.revocation import Revocation
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyStore
from mxgw_acl.tokens import Tokens
from mxgw_core.api import CloseReason, Gateway, Identity, Operator, Orphan, SessionInfo, SessionPredicate
from mxgw_core.api.errors import DependencyUnavailable, GatewayError

log = logging.getLogger(__name__)

_WRITE_USES_S = 5.0


class Running:
    """The objects of the plugin in a running gateway; `running` makes them.

    All of them are used in the event loop, except for `operators`, which is used in worker threads.
    """

    def __init__(self, settings: AclSettings, gateway: Gateway, store: KeyStore, audit: AuditLog) -> None:
        self._check_interval_s = settings.check_interval_s
        self.audit_tail = AuditTail(settings.directory / AUDIT_FILE)
        self.keyring = Keyring(store)
        self.keyring.refresh()
        self.limits = KeyLimits(self.keyring, gateway)
        self.records = AuditRecords(audit, gateway, self.limits, denies_unrecorded=settings.audit.on_failure == "deny")
        self.tokens = Tokens(
            secret_file(settings.directory / "token-secret"),
            settings.operators.token_minutes * 60,
            ended_before=self.keyring.logins_ended_before,
            is_ended=self.keyring.is_login_ended,
        )
        write = self.records.write
        self.authentication = Authentication(self.keyring, self.tokens, gateway.attempts, write)
        self.authorization = Authorization(self.keyring, self.tokens, gateway)
        self.operators = Operators(settings, directory_of(settings), self.tokens, write)
        self._revocation = Revocation(
            gateway, self.keyring, self.tokens.current, settings.close_revoked_sessions, write
        )

    # the rights of callers to items

    def command_guard(self, identity: Identity) -> ItemGuard | None:
        """Return the guard that checks a caller's commands; None when the caller may use every item."""
        rights = self.limits.item_rights(identity)
        return ItemGuard(rights) if rights is not None else None

    def event_filter(self, identity: Identity) -> ItemFilter | None:
        """Return the filter for a caller's events; None when the caller may see all events of a session."""
        rights = self.limits.item_rights(identity)
        return ItemFilter(rights) if rights is not None else None

    def item_access(self, identity: Identity) -> KeyItems | None:
        """Return the object that says what a caller may do with items by reference; None when all items are allowed."""
        rights = self.limits.item_rights(identity)
        return KeyItems(rights, partial(self.records.items, identity)) if rights is not None else None

    # adopting and closing sessions

    def check_orphan(self, orphan: Orphan) -> None:
        """Make sure that the key which owns an orphan's session is still valid.

        Raises:
            AccessDenied: the key was revoked or has expired meanwhile.
        """
        owner = orphan.spawn.owner
        if owner and (why := self.keyring.why_dead(owner)):
            self.records.write(
                AuditRecord(f"key:{owner}", "session taken over", "denied", f"key {why}", session=orphan.session_id)
            )
            raise revoked(owner, why)

    def session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """Record the end of a session. After the last session of a key, also forget what is remembered for the key."""
        self.limits.session_closed(session)
        self.records.session_closed(session, reason)

    # logged-in operators

    def operator_sessions(self, operator: Operator) -> SessionPredicate:
        """Return a function that says for a session whether the operator may see it now."""
        if not operator.token:
            return self._sessions_of_key(operator.name)
        current = self.tokens.current(operator)
        return lambda session: current is not None and may_see(current, session.tag)

    def _sessions_of_key(self, name: str) -> SessionPredicate:
        """Return a function that says for a session whether a key with the role of an administrator may see it.

        Such a key (see `as_operator` in `mxgw_core.api`) sees all sessions while it is valid, and otherwise none.
        """
        kind, _, key_id = name.partition(":")
        key = self.keyring.key(key_id) if kind == "key" else None
        sees = key is not None and Scope.ADMIN in key.scopes and not self.keyring.why_dead(key_id)
        return lambda _: sees

    def operator_left(self, operator: Operator) -> None:
        """End the login of an operator who logs out, and the streams of this login."""
        login = self.tokens.login(operator.token)
        if login is None:
            return
        self.keyring.end_login(login.login_id, login.operator.expires_at)
        self.records.write(AuditRecord(actor=f"operator:{operator.name}", action="logout", decision="done"))
        self._revocation.apply()

    # the background task

    async def watch(self) -> None:
        """Apply changes that other processes make in the key store, until the task is cancelled."""
        written_at = time.perf_counter()
        while True:
            await asyncio.sleep(self._check_interval_s)
            try:
                self.keyring.refresh()
                self._revocation.apply()
                self.limits.forget_dead_keys()
            except DependencyUnavailable:
                # The keyring has logged this. It refuses new calls until the database can be read again.
                pass
            except GatewayError as error:
                log.error("what was revoked could not be recorded: %s", error)  # noqa: TRY400  no traceback: the text says it all
            if time.perf_counter() - written_at >= _WRITE_USES_S:
                self.keyring.write_uses()
                written_at = time.perf_counter()


@asynccontextmanager
async def running(settings: AclSettings, gateway: Gateway) -> AsyncIterator[Running]:
    """Yield the objects of the plugin, and close them at the end of the block.

    Raises:
        SettingsError: the directory, the database, the audit log or a secret cannot be used.
        DependencyUnavailable: the keys cannot be read.
    """
    async with AsyncExitStack() as stack:
        store = KeyStore(private_directory(settings.directory))
        stack.callback(store.close)
        audit = AuditLog(settings.directory / AUDIT_FILE, lock_wait_s=GATEWAY_LOCK_WAIT_S)
        stack.callback(audit.close)
        async with asyncio.TaskGroup() as tasks:
            state = Running(settings, gateway, store, audit)
            stack.callback(state.operators.close)
            stack.callback(state.keyring.write_uses)
            watching = tasks.create_task(state.watch(), name="acl:watch")
            try:
                yield state
            finally:
                watching.cancel()
