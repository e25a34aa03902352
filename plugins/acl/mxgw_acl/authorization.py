"""Decides whether a caller may make a call.

For a key this depends on its scopes and networks, the owner and the tag of the session, and the numbers of the key's
sessions and streams. For an operator it depends on the role, and on the tag of the session.
"""

from __future__ import annotations

from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.session_service_pb2 import OpenSessionRequest
from mxgw_acl.authentication import NOBODY
from mxgw_acl.keyring import Keyring
from mxgw_acl.keys import Key, Scope
from mxgw_acl.rules import (
    ADMINISTRATION,
    COMMANDS,
    INVOKE,
    OPEN_SESSION,
    STREAM_EVENTS,
    Names,
    Role,
    Rule,
    rule_of,
)
from mxgw_acl.tokens import Tokens
from mxgw_core.api import AccessRequest, Gateway, Moment, Operator
from mxgw_core.api.errors import AccessDenied, AccessRevoked, GatewayError, SessionLimitReached, SubscriberLimitReached

# The error text is the same for a session of another owner and for a session that does not exist, so that a caller
# cannot find out which sessions exist.
_NO_SUCH_SESSION = "no session of this id is open to this caller: name one that you opened yourself"


class Authorization:
    """Decides whether calls may be made. A refusal is raised as the error that the caller gets."""

    def __init__(self, keyring: Keyring, tokens: Tokens, gateway: Gateway) -> None:
        self._keyring = keyring
        self._tokens = tokens
        self._gateway = gateway

    def check(self, request: AccessRequest) -> None:
        """Make sure that the caller may make the call.

        Raises:
            GatewayError: the call is refused.
        """
        rule = rule_of(request.method, request.scope)
        if rule is None:
            raise AccessDenied("nobody may make this call: its service does not say what it needs")
        claims = request.identity.claims
        if isinstance(claims, Key):
            self.check_key(request, claims, rule)
        elif isinstance(claims, Operator):
            current = self._tokens.current(claims)
            if current is None:
                raise AccessDenied("the login is over: log in again")
            self.check_operator(request, current, rule)
        # A plugin gets a copy of the identity, with the same claims.
        elif claims is not NOBODY.claims or not rule.public:
            raise AccessDenied("the call needs an API key")

    # calls of clients with a key

    def check_key(self, request: AccessRequest, key: Key, rule: Rule) -> None:
        """Make sure that a caller with this key may make the call.

        Raises:
            GatewayError: the call is refused.
        """
        if why := self._keyring.why_dead(key.id):
            raise revoked(key.id, why)
        if not key.constraints.may_come_from(request.peer):
            raise AccessDenied("this key is not accepted from this network (its --network)")
        self._check_scopes(request, key, rule)
        if rule.names is not Names.NO_SESSION and (request.session_id or rule.names is Names.A_SESSION):
            self._check_owner(request, key, rule)
        if request.method == OPEN_SESSION:
            _check_tag(request, key)
        if request.moment is Moment.CALL:
            self._check_numbers(request, key)

    def _check_scopes(self, request: AccessRequest, key: Key, rule: Rule) -> None:
        needed = rule.scopes
        if request.method == INVOKE and isinstance(request.request, InvokeRequest):
            kind = request.request.command.WhichOneof("command")
            if kind is None:
                # The service refuses a request without a command, and its error says more than a missing scope.
                return
            needed = COMMANDS.get(kind, frozenset())
        if needed is None or needed & key.scopes:
            return
        if not needed:
            raise AccessDenied("no key may make this call")
        words = " or ".join(sorted(scope.value for scope in needed))
        raise AccessDenied(
            f"this call needs the scope {words}, which this key does not have", metadata={"scope": words}
        )

    def _check_owner(self, request: AccessRequest, key: Key, rule: Rule) -> None:
        if Scope.ALL_SESSIONS in key.scopes or rule.scopes == ADMINISTRATION:
            # The owner of the session does not matter for this key. The service later refuses the call if the session
            # does not exist.
            return
        if request.session is None or request.session.owner != key.id:
            raise AccessDenied(_NO_SUCH_SESSION)

    def _check_numbers(self, request: AccessRequest, key: Key) -> None:
        gateway, limits = self._gateway, key.constraints
        if request.method == OPEN_SESSION and request.session is None:
            own = [session for session in gateway.sessions() if session.owner == key.id]
            if limits.maximum_sessions is not None and len(own) >= limits.maximum_sessions:
                raise SessionLimitReached(
                    f"this key has {len(own)} sessions open, as many as it may (its --max-sessions): close one",
                    metadata={"limit": str(limits.maximum_sessions)},
                )
            waiting = sum(session.detached_s is not None for session in own)
            if limits.maximum_detached is not None and waiting and waiting >= limits.maximum_detached:
                raise SessionLimitReached(
                    f"{waiting} sessions of this key wait for a subscriber, as many as may (its --max-detached): go "
                    "back to one, or close it",
                    metadata={"limit": str(limits.maximum_detached)},
                )
        if request.method == STREAM_EVENTS and limits.maximum_subscribers is not None:
            streams = sum(
                stream.identity.id == key.id and stream.method == STREAM_EVENTS for stream in gateway.streams()
            )
            if streams >= limits.maximum_subscribers:
                raise SubscriberLimitReached(
                    f"this key follows {streams} streams, as many as it may (its --max-subscribers): end one",
                    metadata={"limit": str(limits.maximum_subscribers)},
                )

    # calls of operators

    def check_operator(self, request: AccessRequest, operator: Operator, rule: Rule) -> None:
        """Make sure that an operator may make the call.

        Raises:
            AccessDenied: the call is refused.
        """
        if rule.role is None:
            raise AccessDenied("operators may not make this call: it needs an API key")
        if rule.role is Role.ADMINISTRATOR and Role.ADMINISTRATOR.value not in operator.roles:
            raise AccessDenied("only administrators may make this call")
        if rule.names is Names.NO_SESSION or not (request.session_id or rule.names is Names.A_SESSION):
            return
        if Role.ADMINISTRATOR.value in operator.roles:
            # The tag of the session does not matter for an administrator. The service later refuses the call if the
            # session does not exist.
            return
        if request.session is None or not may_see(operator, request.session.tag):
            raise AccessDenied(_NO_SUCH_SESSION)


def _check_tag(request: AccessRequest, key: Key) -> None:
    """Make sure that the key may open a session with the tag in the request.

    Raises:
        AccessDenied: the key may not set this tag.
    """
    tag = request.request.tag if isinstance(request.request, OpenSessionRequest) else ""
    if key.constraints.may_set(tag):
        return
    tags = ", ".join(repr(glob) for glob in key.constraints.tags)
    what = "a session with this tag" if tag else "a session without a tag"
    raise AccessDenied(f"this key may not open {what}: set a tag that its --tag allows ({tags})")


def may_see(operator: Operator, tag: str) -> bool:
    """Return whether an operator may see the sessions with this tag.

    Administrators see all sessions. Other operators see the sessions with one of their own tags, so they never see a
    session without a tag. Upper and lower case are the same, as in the tags that a key may set.
    """
    folded = tag.strip().casefold()
    return Role.ADMINISTRATOR.value in operator.roles or bool(
        folded and folded in {seen.strip().casefold() for seen in operator.tags}
    )


def revoked(key_id: str, why: str) -> GatewayError:
    """Return the error for a caller whose key was revoked or has expired."""
    return AccessRevoked(f"API key {key_id} is {why}: ask for a new one", metadata={"key_id": key_id, "cause": why})
