"""Finds out who makes a call, from an API key, an operator's token or a client certificate.

A public method can also be called without credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mxgw_acl.audit_log import AuditRecord
from mxgw_acl.keyformat import parse_key
from mxgw_acl.keyring import Keyring, Verified
from mxgw_acl.keys import Key
from mxgw_acl.rules import rule_of
from mxgw_acl.tokens import PREFIX, Tokens
from mxgw_core.api import Attempts, AuthenticationRequest, Identity
from mxgw_core.api.errors import TooManyAttempts, Unauthenticated

# The error text is the same for every failure, so that it does not help an attacker. The reason is in the audit log.
_REFUSED = (
    "no accepted credentials: send `authorization: Bearer <API key>`; a key may be mistyped, replaced, expired or "
    "revoked, and who issued it can say"
)
NOBODY = Identity(id="anonymous", kind="anonymous", display_name="nobody yet", claims=object())
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Authentication:
    """Finds out from the credentials of a call who makes the call. Used in the event loop."""

    keyring: Keyring
    tokens: Tokens
    attempts: Attempts
    audit: Callable[[AuditRecord], None]

    def identify(self, request: AuthenticationRequest) -> Identity:
        """Return the identity of the caller; `NOBODY` for a call of a public method without credentials.

        Raises:
            TooManyAttempts: the credentials are not accepted, and there were too many failures before.
            Unauthenticated: the credentials are not accepted.
            DependencyUnavailable: the keys cannot be read.
        """
        self.keyring.refresh()
        rule = rule_of(request.method, request.scope)
        credentials = request.metadata.get("authorization", "")
        if not credentials and rule is not None and rule.public:
            return NOBODY
        claimed, verified = self._verified(credentials, request)
        identity = verified.identity
        if identity is None:
            raise self._refusal(request, claimed, verified.reason)
        if isinstance(identity.claims, Key):
            self.keyring.used(identity.id, request.peer)
        return identity

    def _verified(self, credentials: str, request: AuthenticationRequest) -> tuple[str, Verified]:
        """Check the credentials; return the key id or operator name in them ("" without one), and the result."""
        if not credentials:
            if request.certificate_names:
                return "", self.keyring.by_certificate(tuple(request.certificate_names))
            return "", Verified(None, "no credentials")
        if credentials[: len(_SCHEME)].lower() != _SCHEME:
            return "", Verified(None, "not a bearer token")
        word = credentials[len(_SCHEME) :].strip()
        if word.startswith(PREFIX):
            login = self.tokens.login(word)
            if login is None:
                return "", Verified(None, "operator token not valid")
            name = login.operator.name
            return name, Verified(Identity(f"operator:{name}", "operator", name, login.operator))
        text = parse_key(word)
        if text is None:
            return "", Verified(None, "malformed key")
        return text.key_id, self.keyring.verify(text)

    def _refusal(self, request: AuthenticationRequest, claimed: str, reason: str) -> Unauthenticated:
        try:
            self.attempts.begin(request.peer, f"key {claimed}" if claimed else "")
        except TooManyAttempts as refusal:
            # Attempts beyond the limit are not recorded, so that nobody can flood the audit log.
            return refusal
        self.audit(
            AuditRecord(
                actor=f"claimed:{claimed}" if claimed else "unknown",
                action=request.method.rpartition("/")[2],
                decision="denied",
                reason=reason,
                peer=request.peer.address,
            )
        )
        return Unauthenticated(_REFUSED)
