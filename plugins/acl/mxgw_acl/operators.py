"""Logs operators in: checks the password with the LDAP directory, derives roles and session tags from the person's
groups, and issues tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mxgw_acl.audit_log import AuditRecord
from mxgw_acl.directory import Directory
from mxgw_acl.rules import Role
from mxgw_acl.settings import AclSettings
from mxgw_acl.tokens import Tokens
from mxgw_core.api import LONGEST_NAME, Operator, OperatorCredentials, folded_name
from mxgw_core.api.errors import AccessDenied, GatewayError, SettingsError

_LONGEST_PASSWORD = 1024


def directory_of(settings: AclSettings) -> Directory | None:
    """Return the directory of operators; None when the settings describe no directory.

    Raises:
        SettingsError: the library for LDAP is not installed, or the CA file of the settings cannot be used.
    """
    if settings.ldap is None:
        return None
    try:
        from mxgw_acl.ldap import LdapDirectory
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"plugins.acl.ldap needs the package {error.name}: install mxgw with its extra acl, as in pip install "
            "'mxgw[acl]'"
        ) from None
    return LdapDirectory(settings.ldap)


class Operators:
    """Logs operators in and renews their logins. `log_in` and `renew` block, so they are called in worker threads."""

    def __init__(
        self,
        settings: AclSettings,
        directory: Directory | None,
        tokens: Tokens,
        audit: Callable[[AuditRecord], None],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._tokens = tokens
        self._audit = audit
        self._now = now

    def close(self) -> None:
        """Cancel the logins and renewals in progress."""
        if self._directory is not None:
            self._directory.close()

    def log_in(self, credentials: OperatorCredentials) -> Operator | None:
        """Return the operator with a token; None when the name or the password is wrong, or the person has no role.

        Raises:
            DependencyUnavailable: no directory server answered.
            AccessDenied: no directory is configured, or the login cannot be recorded in the audit log.
        """
        user = credentials.user
        peer = credentials.peer
        if self._directory is None:
            raise AccessDenied("this gateway knows no operators: its settings have no [plugins.acl.ldap]")
        if why := _why_unusable(user, credentials.password):
            self._record_claim(user, why, peer.address)
            return None
        try:
            person = self._directory.authenticate(user, credentials.password)
        except GatewayError as error:
            self._record_claim(user, error.message, peer.address)
            raise
        if person is None:
            self._record_claim(user, "wrong user or password", peer.address)
            return None
        roles, tags = self._rights(person.groups)
        if not roles:
            self._record(person.name, "login", "denied", "in no group that has a role", peer.address)
            return None
        self._record(person.name, "login", "allowed", "", peer.address, ", ".join(roles))
        return self._tokens.issue(person.name, roles, tags)

    def renew(self, operator: Operator) -> Operator | None:
        """Return the operator with a new token, and with roles and tags from the present groups.

        Return None when the login has ended or is too old, or when the person has no role any more.

        Raises:
            DependencyUnavailable: no directory server answered; the present token stays valid until it expires.
            AccessDenied: the renewal cannot be recorded in the audit log.
        """
        login = self._tokens.login(operator.token)
        if login is None or self._directory is None:
            return None
        name = login.operator.name
        if self._now() - login.began_at >= self._settings.operators.login_hours * 3600:
            self._record(name, "renewal", "denied", "the login is too old")
            return None
        person = self._directory.resolve(name)
        roles, tags = self._rights(person.groups) if person is not None else ((), ())
        if not roles:
            self._record(name, "renewal", "denied", "gone from the directory, or in no group that has a role")
            return None
        self._record(name, "renewal", "allowed", detail=", ".join(roles))
        return self._tokens.issue(name, roles, tags, login)

    def _rights(self, groups: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the roles and the session tags that the settings give to a person in these groups."""
        member_of = {name for dn in groups for name in group_names(dn)}

        def is_in(listed: str) -> bool:
            return _folded(listed) in member_of

        wanted = self._settings.operators
        roles = [
            role.value
            for role, listed in ((Role.VIEWER, wanted.viewers), (Role.ADMINISTRATOR, wanted.administrators))
            if any(map(is_in, listed))
        ]
        mapped = self._settings.group_to_session_tag
        return roles, sorted({tag for group, tags in mapped.items() if is_in(group) for tag in tags})

    def _record_claim(self, user: str, reason: str, peer: str) -> None:
        """Record a failed login under the typed name, because the person's identity was not proved."""
        self._audit(
            AuditRecord(f"claimed:{folded_name(user)}", "login", "denied", reason, peer, detail=f"typed: {user}")
        )

    def _record(
        self, user: str, action: str, decision: str, reason: str = "", peer: str = "", detail: str = ""
    ) -> None:
        self._audit(AuditRecord(f"operator:{user}", action, decision, reason, peer, detail=detail))


def group_names(dn: str) -> tuple[str, str]:
    """Return the two names that the settings can use for a group: its DN, and the value of the first part of the DN."""
    folded = _folded(dn)
    first = folded.partition(",")[0]
    return folded, first.partition("=")[2].strip()


def _folded(text: str) -> str:
    return ",".join(part.strip() for part in text.casefold().split(","))


def _why_unusable(user: str, password: str) -> str:
    # A simple bind with an empty password succeeds anonymously (RFC 4513 5.1.2), so it must never be tried.
    if not user.strip() or len(user) > LONGEST_NAME or "\0" in user:
        return "no usable user name"
    if not password.strip() or len(password) > _LONGEST_PASSWORD or "\0" in password:
        return "no usable password"
    return ""
