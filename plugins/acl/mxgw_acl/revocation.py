"""Ends the streams of callers who have lost their rights, and closes the sessions of revoked and expired keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mxgw_acl.audit_log import AuditRecord
from mxgw_acl.audit_records import actor
from mxgw_acl.authorization import may_see, revoked
from mxgw_acl.keyring import Keyring
from mxgw_core.api import CloseReason, Gateway, OpenStream, Operator
from mxgw_core.api.errors import AccessRevoked, GatewayError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Revocation:
    """Checks all open streams and sessions. Call `apply` at an interval, and after each change of keys or logins."""

    gateway: Gateway
    keyring: Keyring
    # Returns the operator with the present roles and tags; None when the login has ended.
    current: Callable[[Operator], Operator | None]
    closes_by_default: bool
    audit: Callable[[AuditRecord], None]

    def apply(self) -> None:
        """End the streams of callers who have lost their rights, and record this in the audit log.

        The sessions of a revoked or expired key are closed too, unless the key or the settings say that they stay open.
        """
        for stream in self.gateway.streams():
            error = self._why_not(stream)
            if error is not None and self.gateway.end_stream(stream, error):
                log.info("stream of %s on session %s ended: %s", stream.identity.id, stream.session_id, error.reason)
                self.audit(
                    AuditRecord(
                        actor=actor(stream.identity),
                        action=f"{stream.method.rpartition('/')[2]} ended",
                        decision="denied",
                        reason=error.message,
                        peer=stream.peer.address,
                        session=stream.session_id,
                    )
                )
        for session in self.gateway.sessions():
            key = self.keyring.key(session.owner)
            why = self.keyring.why_dead(session.owner) if key is not None else ""
            if key is None or not why:
                continue
            closes = self.closes_by_default if key.closes_sessions is None else key.closes_sessions
            if closes and self.gateway.close_session(
                session.session_id, CloseReason.OWNER_REVOKED, f"API key {key.id} is {why}"
            ):
                self.audit(
                    AuditRecord(
                        actor=f"key:{key.id}",
                        action="session closed",
                        decision="denied",
                        reason=f"key {why}",
                        session=session.session_id,
                        tag=session.tag,
                    )
                )

    def _why_not(self, stream: OpenStream) -> GatewayError | None:
        identity = stream.identity
        if identity.kind == "key":
            why = self.keyring.why_dead(identity.id)
            return revoked(identity.id, why) if why else None
        if not isinstance(identity.claims, Operator):
            return None
        operator = self.current(identity.claims)
        if operator is None:
            return AccessRevoked("the login is over: log in again", metadata={"cause": "login over"})
        if stream.session_id:
            session = self.gateway.session(stream.session_id)
            if session is not None and not may_see(operator, session.tag):
                return AccessRevoked(
                    "this operator may no longer see the session", metadata={"cause": "groups changed"}
                )
        return None
