"""The login of operators against a directory (a part of the plugin acl), without a gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mxgw_acl.audit_log import AuditRecord
from mxgw_acl.ldap import LdapDirectory
from mxgw_acl.operators import Operators
from mxgw_acl.settings import AclSettings
from mxgw_acl.tokens import Tokens
from mxgw_core.api import Operator, OperatorCredentials, Peer

HERE = Peer("10.1.1.1:5000", is_local=False)


class Desk:
    """Logs operators in and shows what the plugin recorded about them. It knows the password of each operator."""

    def __init__(self, settings: AclSettings, passwords: Mapping[str, str]) -> None:
        self._passwords = passwords
        assert settings.ldap is not None
        self.audit: list[AuditRecord] = []
        self.directory = LdapDirectory(settings.ldap)
        self.tokens = Tokens(b"t" * 32, 900)
        self.operators = Operators(settings, self.directory, self.tokens, self.audit.append)

    def log_in(self, user: str, password: str | None = None) -> Operator | None:
        password = self._passwords.get(user, "") if password is None else password
        return self.operators.log_in(OperatorCredentials(user, password, HERE))

    @property
    def why(self) -> str:
        return self.audit[-1].reason


@contextmanager
def running_desk(settings: dict[str, Any], passwords: Mapping[str, str]) -> Iterator[Desk]:
    """Yield a Desk that uses these settings of the plugin acl."""
    desk = Desk(AclSettings.model_validate(settings), passwords)
    try:
        yield desk
    finally:
        desk.operators.close()
