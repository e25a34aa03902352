"""What runs while the gateway runs: the keys in memory, the audit log, the watch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace

from mxgw.v1.alarm_service_pb2 import AcknowledgeAlarmRequest
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.commands_pb2 import MxCommand
from mxgw.v1.session_service_pb2 import OpenSessionRequest
from mxgw_acl.audit import AUDIT_FILE, GATEWAY_LOCK_WAIT_S, LONGEST_DETAIL, AuditLog, AuditRecord
from mxgw_acl.audit_tail import AuditTail
from mxgw_acl.callers import NOBODY, Callers
from mxgw_acl.files import private_directory, secret_file
from mxgw_acl.gate import Gate, may_see, revoked
from mxgw_acl.guard import ItemFilter, ItemGuard, ItemRights, KeyItems, references_of
from mxgw_acl.keyring import Keyring
from mxgw_acl.keys import Key, Scope
from mxgw_acl.operators import Operators, directory_of
from mxgw_acl.pace import KeyPace
from mxgw_acl.rights import AUDITED_COMMANDS, INVOKE, Rule, rule_of
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyStore
from mxgw_acl.tokens import Tokens
from mxgw_acl.watch import Watch
from mxgw_core.api import (
    AccessRequest,
    Allow,
    BufferLimit,
    CloseReason,
    Gateway,
    Identity,
    Operator,
    Orphan,
    SessionInfo,
    SessionPredicate,
)
from mxgw_core.api.errors import AccessDenied, DependencyUnavailable, GatewayError

log = logging.getLogger(__name__)

_WRITE_USES_S = 5.0
# Where the call comes from that a service decides input by input.
_from: ContextVar[str] = ContextVar("peer of the call", default="")
# Room for the count of what is left out.
_LONGEST_LIST = LONGEST_DETAIL - 32


class Running:
    """The plugin of a running gateway; made by `running`. Lives in the event loop, but for `operators`."""

    def __init__(self, settings: AclSettings, gateway: Gateway, store: KeyStore, audit: AuditLog) -> None:
        self._settings = settings
        self._gateway = gateway
        self._store = store
        self._audit = audit
        self._audit_failed = False
        self.audit_tail = AuditTail(settings.directory / AUDIT_FILE)
        self._started_at = time.time()
        self._rights: dict[str, tuple[Key, ItemRights]] = {}
        self._paces: dict[str, KeyPace] = {}
        self.keyring = Keyring(store)
        self.keyring.refresh()
        self.tokens = Tokens(
            secret_file(settings.directory / "token-secret"),
            settings.operators.token_minutes * 60,
            ended_before=self.keyring.logins_ended_before,
            is_ended=self.keyring.is_login_ended,
        )
        self.callers = Callers(self.keyring, self.tokens, gateway.attempts, self.record)
        self.operators = Operators(settings, directory_of(settings), self.tokens, self.record)
        self._gate = Gate(self.keyring, gateway)
        self._watch = Watch(gateway, self.keyring, self.tokens.current, settings.close_revoked_sessions, self.record)

    # the audit log

    def record(self, record: AuditRecord) -> None:
        """Append to the audit log.

        Raises:
            AccessDenied: it could not be, and the settings say that nothing may then go on.
        """
        try:
            self._audit.write(record)
        except OSError as error:
            if not self._audit_failed:
                log.error("the audit log cannot be written: %s", error)  # noqa: TRY400  no traceback: the text says it all
            self._audit_failed = True
            if self._settings.audit.on_failure == "deny":
                raise AccessDenied("the decision could not be recorded in the audit log, so it is no") from None
        else:
            self._audit_failed = False

    # calls

    def authorize(self, request: AccessRequest) -> Allow:
        """Judge a call.

        Raises:
            GatewayError: it may not be made.
        """
        self._check(request, rule_of(request.method, request.scope))
        return Allow()

    def decided(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        """Record what became of a call: one record for what was denied of it, one for what was allowed.

        Raises:
            AccessDenied: it could not be recorded, and the settings say that nothing may then go on.
        """
        if refusal is not None:
            count, reference = self._what(request)
            self.record(_record(request, "denied", refusal.message, _listed(range(count), reference)))
            return
        rule = rule_of(request.method, request.scope)
        is_audited = rule is not None and (rule.is_audited or _is_audited_command(request))
        if isinstance(request.request, AcknowledgeAlarmRequest) and self._item_rights(request.identity) is not None:
            # Decided alarm by alarm: see `KeyItems`.
            _from.set(request.peer.address)
            return
        if not denied and not is_audited:
            return
        count, reference = self._what(request)
        if denied:
            why = f"{len(denied)} items: {next(iter(denied.values()))}"
            self.record(_record(request, "denied", why, _listed(sorted(denied), reference)))
            is_audited = is_audited and len(denied) < count
        if is_audited:
            allowed = [index for index in range(count) if index not in denied]
            self.record(_record(request, "allowed", "", _listed(allowed, reference)))

    def _check(self, request: AccessRequest, rule: Rule | None) -> None:
        if rule is None:
            raise AccessDenied("nobody may make this call: its service does not say what it needs")
        claims = request.identity.claims
        if isinstance(claims, Key):
            self._gate.check_key(request, claims, rule)
        elif isinstance(claims, Operator):
            current = self.tokens.current(claims)
            if current is None:
                raise AccessDenied("the login is over: log in again")
            self._gate.check_operator(request, current, rule)
        elif request.identity is not NOBODY or not rule.public:
            raise AccessDenied("the call needs an API key")

    def _what(self, request: AccessRequest) -> tuple[int, Callable[[int], str]]:
        """Return how many inputs a command has, and what gives the reference of each; values are never named."""
        if isinstance(request.request, AcknowledgeAlarmRequest):
            references = request.request.references
            return len(references), references.__getitem__
        command = request.request.command if isinstance(request.request, InvokeRequest) else MxCommand()
        if request.items is not None:
            return references_of(command, request.items, are_judged=True)
        return references_of(command, self._gateway.items_used(request.session_id, command), are_judged=False)

    # items

    def command_guard(self, identity: Identity) -> ItemGuard | None:
        """Return the guard of a caller; None for whoever may use every item."""
        rights = self._item_rights(identity)
        if rights is None:
            return None
        return ItemGuard(rights)

    def event_filter(self, identity: Identity) -> ItemFilter | None:
        """Return the filter of a caller; None for whoever may see everything of the session."""
        rights = self._item_rights(identity)
        return ItemFilter(rights) if rights is not None else None

    # limits of streams

    def stream_pace(self, identity: Identity) -> KeyPace | None:
        """Return what all streams of a key share; None for whoever has no limit."""
        limit = identity.claims.constraints.maximum_events_per_s if isinstance(identity.claims, Key) else None
        if limit is None:
            return None
        known = self._paces.get(identity.id)
        if known is None or known.events_per_s != limit:
            known = self._paces[identity.id] = KeyPace(limit)
        return known

    def buffer_limit(self, session: SessionInfo) -> BufferLimit | None:
        """Return how much may be kept for a session of this owner."""
        key = self.keyring.key(session.owner)
        limit = key.constraints.maximum_buffer_bytes if key is not None else None
        return BufferLimit(limit, "the key's --max-buffer") if limit is not None else None

    def item_access(self, identity: Identity) -> KeyItems | None:
        """Return what a caller may do with items by reference; None for whoever may use all of them."""
        rights = self._item_rights(identity)
        if rights is None:
            return None

        def decided(action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
            if denied:
                why = f"{len(denied)} items: this key may not write the item"
                self.record(
                    AuditRecord(
                        _actor(identity),
                        action,
                        "denied",
                        why,
                        _from.get(),
                        detail=_listed(range(len(denied)), denied.__getitem__),
                    )
                )
            if allowed:
                self.record(
                    AuditRecord(
                        _actor(identity),
                        action,
                        "allowed",
                        "",
                        _from.get(),
                        detail=_listed(range(len(allowed)), allowed.__getitem__),
                    )
                )

        return KeyItems(rights, decided)

    def _item_rights(self, identity: Identity) -> ItemRights | None:
        key = identity.claims
        if not isinstance(key, Key) or not key.constraints.limits_items:
            return None
        known = self._rights.get(key.id)
        if known is None or known[0] != key:
            writes = bool(key.scopes & {Scope.WRITE, Scope.SECURED_WRITE})
            known = self._rights[key.id] = key, ItemRights(key.constraints, writes=writes)
        return known[1]

    # sessions

    def session_opened(self, session: SessionInfo) -> None:
        """Record it."""
        action = "session opened" if session.opened_at >= self._started_at else "session taken over"
        self.record(_session_record(session, action, f"backend {session.backend}"))

    def check_orphan(self, orphan: Orphan) -> None:
        """Make sure that the owner of a session from an earlier run may still have it.

        Raises:
            AccessDenied: its key was revoked or has expired meanwhile.
        """
        if orphan.spawn.owner and (why := self.keyring.why_dead(orphan.spawn.owner)):
            self.record(
                AuditRecord(
                    f"key:{orphan.spawn.owner}", "session taken over", "denied", f"key {why}", session=orphan.session_id
                )
            )
            raise revoked(orphan.spawn.owner, why)

    def session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """Record it."""
        # What its items were judged by goes with the last session of the key.
        if session.owner in self._rights and not any(
            other.owner == session.owner and other.session_id != session.session_id
            for other in self._gateway.sessions()
        ):
            del self._rights[session.owner]
        # It ends in its own time, whatever call began it.
        self.record(replace(_session_record(session, "session closed", reason.name), correlation=""))

    # operators

    def operator_sessions(self, operator: Operator) -> SessionPredicate:
        """Return which sessions the operator may see now."""
        if not operator.token:
            return self._is_administrating_key(operator.name)
        current = self.tokens.current(operator)
        return lambda session: current is not None and may_see(current, session.tag)

    def _is_administrating_key(self, name: str) -> SessionPredicate:
        """Return what a key sees that counts as an administrator (`api.as_operator`): all, or nothing."""
        kind, _, key_id = name.partition(":")
        key = self.keyring.key(key_id) if kind == "key" else None
        sees = key is not None and Scope.ADMIN in key.scopes and not self.keyring.why_dead(key_id)
        return lambda _: sees

    def operator_left(self, operator: Operator) -> None:
        """End a login."""
        login = self.tokens.login(operator.token)
        if login is None:
            return
        self.keyring.end_login(login.login_id, login.operator.expires_at)
        self.record(AuditRecord(actor=f"operator:{operator.name}", action="logout", decision="done"))
        self._watch.look()

    # in the background

    async def watch(self) -> None:
        """Notice what other processes changed, for ever."""
        written_at = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.check_interval_s)
            try:
                self.keyring.refresh()
                self._watch.look()
                for key_id in [key_id for key_id in self._rights if self.keyring.why_dead(key_id)]:
                    del self._rights[key_id]
            except DependencyUnavailable:
                pass  # logged by the keyring; new calls are refused until it can be read again
            except GatewayError as error:
                log.error("what was revoked could not be recorded: %s", error)  # noqa: TRY400  no traceback: the text says it all
            if time.monotonic() - written_at >= _WRITE_USES_S:
                self.keyring.write_uses()
                written_at = time.monotonic()


@asynccontextmanager
async def running(settings: AclSettings, gateway: Gateway) -> AsyncIterator[Running]:
    """Run the plugin while the block runs.

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


def _listed(indexes: Sequence[int], reference: Callable[[int], str]) -> str:
    """Return the references of these inputs as the detail of a record; of what finds no place, how many there are."""
    listed: list[str] = []
    left = _LONGEST_LIST
    for index in indexes:
        item = reference(index)
        left -= len(item) + 2
        if left < 0:
            listed.append(f"and {len(indexes) - len(listed)} more")
            break
        listed.append(item)
    return ", ".join(listed)


def _actor(identity: Identity) -> str:
    return f"{identity.kind}:{identity.id.removeprefix('operator:')}"


def _record(request: AccessRequest, decision: str, reason: str, detail: str = "") -> AuditRecord:
    session, message = request.session, request.request
    action = request.method.rpartition("/")[2]
    if isinstance(message, InvokeRequest):
        action = f"{action} {message.command.WhichOneof('command')}"
    tag = session.tag if session is not None else message.tag if isinstance(message, OpenSessionRequest) else ""
    return AuditRecord(
        actor=_actor(request.identity),
        action=action,
        decision=decision,
        reason=reason,
        peer=request.peer.address,
        session=request.session_id,
        tag=tag,
        detail=detail,
    )


def _session_record(session: SessionInfo, action: str, reason: str) -> AuditRecord:
    return AuditRecord(
        actor=f"key:{session.owner}" if session.owner else "gateway",
        action=action,
        decision="done",
        reason=reason,
        session=session.session_id,
        tag=session.tag,
    )


def _is_audited_command(request: AccessRequest) -> bool:
    if request.method != INVOKE or not isinstance(request.request, InvokeRequest):
        return False
    return request.request.command.WhichOneof("command") in AUDITED_COMMANDS
