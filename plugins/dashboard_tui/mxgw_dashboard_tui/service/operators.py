"""Finds out which operator calls, and refuses every call that the operator's role does not allow."""

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

    If a plugin authenticates operators, that plugin alone decides who is an operator; a caller with a token of the
    plugin has an identity of kind "operator". Without such a plugin, every caller on the gateway's machine is the local
    operator, whose role is in the settings (`local_role`).
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
            Unauthenticated: the caller must log in first.
            AccessDenied: the caller is not an operator, or has no role at this gateway.
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
        """Return a function that says whether the operator is allowed to see a session.

        Rights can change, so call this method again before each use.
        """
        if operator is self._local:
            return lambda _: True
        return self._gateway.sight_of(operator)

    def session(self, operator: Operator, session_id: str) -> SessionInfo:
        """Return the session of this id, which is live or ended lately.

        Raises:
            SessionNotFound: there is no such session, or the operator is not allowed to see it. The text is the same
                in both cases, so that an operator does not learn which sessions exist.
        """
        info = self._gateway.session(session_id) or self._journal.ended_session(session_id)
        if info is None or not self.sight_of(operator)(info):
            raise SessionNotFound("no session has this id: it may have ended long ago")
        return info

    def administrator(self, call: Call, session_id: str, doing: str) -> tuple[Operator, SessionInfo]:
        """Check that the caller is allowed to act on a session; return the administrator and the session.

        The journal gets an entry when the operator is not an administrator.

        Raises:
            Unauthenticated: the caller must log in first.
            SessionNotFound: there is no such session, or the operator is not allowed to see it.
            AccessDenied: the caller is not an administrator.
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
            Unauthenticated: the caller must log in first.
            AccessDenied: the caller is not an administrator.
        """
        operator = self.of(call)
        if role_of(operator) != pb.ROLE_ADMINISTRATOR:
            raise AccessDenied(self._read_only(doing))
        return operator

    def _read_only(self, doing: str) -> str:
        if self.login_required:
            return f"you may look, not {doing}: that needs the role administrator"
        return f"you may look, not {doing}: that needs plugins.dashboard_tui.local_role = administrator"

    # The following methods log operators in and out.

    async def login(self, user: str, password: str, peer: Peer) -> Operator:
        """Log an operator in; return the operator with a new token.

        Raises:
            Unauthenticated: name or password is wrong.
            TooManyAttempts: there were too many failed attempts from this peer, or for this name.
            AccessDenied: the operator has no role at this gateway, or the plugin gave no token.
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
        """Return the operator who calls, with the present roles and a new token.

        The plugin that authenticates operators is asked for both.

        Raises:
            Unauthenticated: the plugin no longer accepts the operator. The login and the streams of the
                operator end at once.
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
        """End the streams that the operator opened before the roles changed. Open streams would keep the old roles."""
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
            AccessDenied: the caller is the local operator, who has no login.
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
    """Return the highest role of an operator; ROLE_UNSPECIFIED when the operator has no role of the dashboard."""
    return max((_ROLES.get(role, pb.ROLE_UNSPECIFIED) for role in operator.roles), default=pb.ROLE_UNSPECIFIED)


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:64])
    return shown if len(text) <= 64 else shown + "…"
