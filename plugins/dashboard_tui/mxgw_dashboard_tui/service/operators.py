"""Who an operator is, and what the role allows. Fails closed: what is not known to be allowed is refused."""

from __future__ import annotations

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import (
    Call,
    Gateway,
    Operator,
    OperatorCredentials,
    Peer,
    SessionInfo,
    SessionPredicate,
    as_operator,
)
from mxgw_core.api.errors import AccessDenied, AccessRevoked, SessionNotFound, Unauthenticated
from mxgw_dashboard_tui.service.journal import Journal
from mxgw_dashboard_tui.settings import DashboardSettings

_ROLES = {"administrator": pb.ROLE_ADMINISTRATOR, "viewer": pb.ROLE_VIEWER}


class Operators:
    """The operators of one gateway.

    If a plugin knows operators, that plugin alone decides, and callers with its tokens have identities of kind
    "operator". Otherwise callers of this machine are the local operator, with the role of the settings.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: DashboardSettings,
        journal: Journal,
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._journal = journal
        self._local = Operator("local user", (settings.local_role,))

    @property
    def login_required(self) -> bool:
        return self._gateway.authenticates_operators

    def of(self, call: Call) -> Operator:
        """Return the operator who calls.

        Raises:
            Unauthenticated: a login is needed first.
            AccessDenied: the caller is not an operator, or has no role here.
        """
        operator = as_operator(call.identity)
        if operator is not None:
            pass
        elif self.login_required:
            raise Unauthenticated("log in first: the dashboard is for operators")
        elif not call.peer.is_local:
            raise AccessDenied("no plugin of this gateway knows operators, so its dashboard serves this machine only")
        else:
            operator = self._local
        if role_of(operator) == pb.ROLE_UNSPECIFIED:
            raise AccessDenied(
                "the dashboard is closed to you: an operator needs the role viewer or administrator"
                if self.login_required
                else "the dashboard is closed: plugins.dashboard_tui.local_role is none, and no plugin knows operators"
            )
        return operator

    def sight_of(self, operator: Operator) -> SessionPredicate:
        """Return which sessions the operator may see now; ask again each time."""
        if operator is self._local:
            return lambda _: True
        return self._gateway.sight_of(operator)

    def session(self, operator: Operator, session_id: str) -> SessionInfo:
        """Return a session, live or ended lately, that the operator may see.

        Raises:
            SessionNotFound: there is none, or the operator may not see it; the two look alike.
        """
        info = self._gateway.session(session_id) or self._journal.ended_session(session_id)
        if info is None or not self.sight_of(operator)(info):
            raise SessionNotFound("no session has this id: it may have ended long ago")
        return info

    def administrator(self, call: Call, session_id: str, doing: str) -> tuple[Operator, SessionInfo]:
        """Return the administrator who is about to act on a session; a refused attempt is added to the journal.

        Raises:
            SessionNotFound: as `session`.
            AccessDenied: the operator is not an administrator.
        """
        operator = self.of(call)
        info = self.session(operator, session_id)
        if role_of(operator) != pb.ROLE_ADMINISTRATOR:
            self._journal.add(pb.JOURNAL_KIND_OPERATOR_ACTION, info, f"refused: {doing}", operator.name)
            raise AccessDenied(self._read_only(doing))
        return operator, info

    def require_administrator(self, call: Call, doing: str) -> Operator:
        """Return the administrator who calls.

        Raises:
            AccessDenied: the operator is not an administrator.
        """
        operator = self.of(call)
        if role_of(operator) != pb.ROLE_ADMINISTRATOR:
            raise AccessDenied(self._read_only(doing))
        return operator

    def _read_only(self, doing: str) -> str:
        if self.login_required:
            return f"you may look, not {doing}: that needs the role administrator"
        return f"you may look, not {doing}: that needs plugins.dashboard_tui.local_role = administrator"

    # logging in

    async def login(self, user: str, password: str, peer: Peer) -> Operator:
        """Return the operator, with a token.

        Raises:
            Unauthenticated: name or password is wrong.
            TooManyAttempts: by this peer, or for this name.
            AccessDenied: the operator has no role, or the plugin gave no token.
        """
        if not self.login_required:
            raise AccessDenied("no plugin of this gateway knows operators: there is nothing to log in to")
        operator = await self._gateway.authenticate_operator(OperatorCredentials(user, password, peer))
        if operator is None:
            self._journal.add(pb.JOURNAL_KIND_LOGIN, None, f"refused, from {peer.address}", _short(user))
            raise Unauthenticated("name or password is wrong")
        if role_of(operator) == pb.ROLE_UNSPECIFIED or not operator.token:
            self._journal.add(pb.JOURNAL_KIND_LOGIN, None, f"has no role here, from {peer.address}", operator.name)
            raise AccessDenied("you are known, and have no role at this gateway: ask for viewer or administrator")
        self._journal.add(pb.JOURNAL_KIND_LOGIN, None, f"from {peer.address}", operator.name)
        return operator

    async def renew(self, call: Call) -> Operator:
        """Return the calling operator as of now, with a new token.

        Raises:
            Unauthenticated: the login is over; its streams are ended now, rather than when the token expires.
            GatewayError: the plugin could not decide; the present token stays valid.
        """
        operator = self._logged_in(call)
        renewed = await self._gateway.renew_operator(operator)
        if renewed is None or role_of(renewed) == pb.ROLE_UNSPECIFIED or not renewed.token:
            self._gateway.forget_operator(operator)
            self._journal.add(pb.JOURNAL_KIND_LOGIN, None, "is over: not renewed", operator.name)
            raise Unauthenticated("your login is over: log in again")
        if set(renewed.roles) != set(operator.roles):
            self._end_streams_of(call, renewed)
        return renewed

    def _end_streams_of(self, call: Call, renewed: Operator) -> None:
        """End the streams that the operator opened with another role, because a stream keeps the role of its begin."""
        for stream in self._gateway.streams():
            claims = stream.identity.claims
            if (
                stream.identity.id == call.identity.id
                and isinstance(claims, Operator)
                and claims.roles != renewed.roles
            ):
                self._gateway.end_stream(stream, AccessRevoked("your role is another one now: attach again"))

    def logout(self, call: Call) -> None:
        """End the login of the operator who calls.

        Raises:
            AccessDenied: there is no login.
        """
        operator = self._logged_in(call)
        self._gateway.forget_operator(operator)
        self._journal.add(pb.JOURNAL_KIND_LOGIN, None, f"logged out, from {call.peer.address}", operator.name)

    def _logged_in(self, call: Call) -> Operator:
        operator = self.of(call)
        if operator is self._local:
            raise AccessDenied("no plugin of this gateway knows operators: there is no login")
        return operator


def role_of(operator: Operator) -> pb.Role.ValueType:
    """Return the highest role of an operator."""
    return max((_ROLES.get(role, pb.ROLE_UNSPECIFIED) for role in operator.roles), default=pb.ROLE_UNSPECIFIED)


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:64])
    return shown if len(text) <= 64 else shown + "…"
