"""Makes the records of the audit log about calls, items and sessions. No record contains the value of an item."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace

from mxgw.v1.alarm_service_pb2 import AcknowledgeAlarmRequest
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.commands_pb2 import MxCommand
from mxgw.v1.session_service_pb2 import OpenSessionRequest
from mxgw_acl.audit_log import LONGEST_DETAIL, AuditLog, AuditRecord
from mxgw_acl.key_limits import KeyLimits
from mxgw_acl.rules import AUDITED_COMMANDS, INVOKE, rule_of
from mxgw_core.api import (
    AccessRequest,
    CloseReason,
    Gateway,
    Identity,
    ItemRecord,
    SessionInfo,
    full_reference,
    named_items,
    used_handles,
)
from mxgw_core.api.errors import AccessDenied, GatewayError

log = logging.getLogger(__name__)

# The longest list of items in `detail`. 32 characters of `detail` remain for the number of items that were left out.
_LONGEST_LIST = LONGEST_DETAIL - 32
# The address of the caller of the current call. A service that decides about single items reports its decision later in
# the call (`ItemAccess.decided`), without the address, so the address is remembered here.
_peer_of_call: ContextVar[str] = ContextVar("address of the caller whose items are decided one by one", default="")


class AuditRecords:
    """Writes decisions to the audit log. Used in the event loop, except for `write`, which any thread can call."""

    def __init__(self, audit: AuditLog, gateway: Gateway, limits: KeyLimits, *, denies_unrecorded: bool) -> None:
        self._audit = audit
        self._gateway = gateway
        self._limits = limits
        self._denies_unrecorded = denies_unrecorded
        # Whether the last record could not be written. Only the first of several failures is logged.
        self._has_failed = False
        self._started_at = time.time()

    def write(self, record: AuditRecord) -> None:
        """Append a record to the audit log.

        Raises:
            AccessDenied: the record could not be written, and the settings refuse a call whose record is missing.
        """
        try:
            self._audit.write(record)
        except OSError as error:
            if not self._has_failed:
                log.error("the audit log cannot be written: %s", error)  # noqa: TRY400  no traceback: the text says it all
            self._has_failed = True
            if self._denies_unrecorded:
                raise AccessDenied("the decision could not be recorded in the audit log, so it is no") from None
        else:
            self._has_failed = False

    def call(self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        """Record the decision about a call.

        When only some inputs of a bulk command were denied, there is one record for the denied inputs and one for the
        allowed inputs. Allowed calls and inputs are recorded only when the rule of the method (`is_audited`) or
        `AUDITED_COMMANDS` demands it.

        Raises:
            AccessDenied: a record could not be written (see `write`).
        """
        if refusal is not None:
            count, reference = self._inputs(request)
            self.write(_of_call(request, "denied", refusal.message, _listed(range(count), reference)))
            return
        rule = rule_of(request.method, request.scope)
        is_audited = rule is not None and (rule.is_audited or _is_audited_command(request))
        has_item_limits = self._limits.item_rights(request.identity) is not None
        if isinstance(request.request, AcknowledgeAlarmRequest) and has_item_limits:
            # The alarm service decides about each alarm later, and reports its decisions to `items`.
            _peer_of_call.set(request.peer.address)
            return
        if not denied and not is_audited:
            return
        count, reference = self._inputs(request)
        if denied:
            why = f"{len(denied)} items: {next(iter(denied.values()))}"
            self.write(_of_call(request, "denied", why, _listed(sorted(denied), reference)))
            is_audited = is_audited and len(denied) < count
        if is_audited:
            allowed = [index for index in range(count) if index not in denied]
            self.write(_of_call(request, "allowed", "", _listed(allowed, reference)))

    def items(self, identity: Identity, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Record which references a service has allowed and denied.

        Raises:
            AccessDenied: a record could not be written (see `write`).
        """
        reason = f"{len(denied)} items: this key may not write the item"
        for decision, why, references in (("denied", reason, denied), ("allowed", "", allowed)):
            if references:
                detail = _listed(range(len(references)), references.__getitem__)
                self.write(AuditRecord(actor(identity), action, decision, why, _peer_of_call.get(), detail=detail))

    def session_opened(self, session: SessionInfo) -> None:
        """Record that a session was opened, or taken over from an earlier run of the gateway.

        Raises:
            AccessDenied: the record could not be written (see `write`).
        """
        action = "session opened" if session.opened_at >= self._started_at else "session taken over"
        self.write(_of_session(session, action, f"backend {session.backend}"))

    def session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        """Record the end of a session. The record has no correlation id, because a session can outlive its last call.

        Raises:
            AccessDenied: the record could not be written (see `write`).
        """
        self.write(replace(_of_session(session, "session closed", reason.name), correlation=""))

    def _inputs(self, request: AccessRequest) -> tuple[int, Callable[[int], str]]:
        """Return the number of inputs of a call, and a function that returns the reference of the input at an index."""
        if isinstance(request.request, AcknowledgeAlarmRequest):
            references = request.request.references
            return len(references), references.__getitem__
        command = request.request.command if isinstance(request.request, InvokeRequest) else MxCommand()
        if request.items is not None:
            return references_of(command, request.items, are_checked=True)
        return references_of(command, self._gateway.items_used(request.session_id, command), are_checked=False)


def references_of(
    command: MxCommand, items: Sequence[ItemRecord | None], *, are_checked: bool
) -> tuple[int, Callable[[int], str]]:
    """Return the number of inputs of a command, and a function that returns the reference of the input at an index.

    When `are_checked` is True, rights were checked for these `items`, so the worker uses exactly these items or refuses
    the command. When `are_checked` is False, each of the `items` is the latest that the gateway knows for a handle in
    the command. The handle perhaps belongs to another item when the worker runs the command, so the function returns
    the handle, followed by "last known as" and the reference.

    References are made one at a time, when the function is called: a record has room for hundreds of references, and a
    command can have thousands of inputs.
    """
    if named := named_items(command):
        return len(named), lambda index: full_reference(named[index]) or "?"
    handles = used_handles(command)

    def used(index: int) -> str:
        item = items[index]
        reference = (full_reference(item) or "?") if item is not None else ""
        if are_checked and reference:
            return reference
        handle = f"handle {handles[index][1]}"
        return f"{handle} (last known as {reference})" if reference else handle

    return len(items), used


def actor(identity: Identity) -> str:
    """Return how the audit log names a caller: `key:<id>` or `operator:<name>`."""
    return f"{identity.kind}:{identity.id.removeprefix('operator:')}"


def _listed(indexes: Sequence[int], reference: Callable[[int], str]) -> str:
    """Return a text with the references of these inputs, for the `detail` of a record.

    A list that would be too long ends with the number of references that were left out.
    """
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


def _of_call(request: AccessRequest, decision: str, reason: str, detail: str) -> AuditRecord:
    session, message = request.session, request.request
    action = request.method.rpartition("/")[2]
    if isinstance(message, InvokeRequest):
        action = f"{action} {message.command.WhichOneof('command')}"
    tag = session.tag if session is not None else message.tag if isinstance(message, OpenSessionRequest) else ""
    return AuditRecord(
        actor=actor(request.identity),
        action=action,
        decision=decision,
        reason=reason,
        peer=request.peer.address,
        session=request.session_id,
        tag=tag,
        detail=detail,
    )


def _of_session(session: SessionInfo, action: str, reason: str) -> AuditRecord:
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
