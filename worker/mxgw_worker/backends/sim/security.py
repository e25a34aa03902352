"""Decides who is allowed to write what, from the users, the Galaxy's security mode and the attribute.

Source: docs/reference/mxaccess.md#write-outcomes, #operator-and-supervisory, #logins, #secured-writes, and the names of
details 1007, 1008, 1012, 1013, 1016 and 1017 (#status-details).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.sim.items import Attribute
from mxgw_worker.backends.sim.status import Detail
from mxgw_worker.backends.sim.status import Security as Classification


class SecurityMode(StrEnum):
    """The security mode of the Galaxy. It decides how AuthenticateUser behaves (docs/reference/mxaccess.md#logins)."""

    OPEN = "open"
    GALAXY = "galaxy"
    OS = "os"


class Permission(StrEnum):
    """What a user is allowed to do."""

    OPERATE = "operate"
    TUNE = "tune"
    CONFIGURE = "configure"
    VERIFY = "verify"
    ACKNOWLEDGE = "acknowledge"


@dataclass(frozen=True, slots=True)
class User:
    """A user of the simulated Galaxy."""

    name: str
    password: str = field(repr=False)
    guid: str = ""
    permissions: frozenset[Permission] = frozenset(Permission)


_NEEDED = {Classification.TUNE: Permission.TUNE, Classification.CONFIGURE: Permission.CONFIGURE}


class Security:
    """Logs users in and checks writes. User ids are positive, and stay valid while the backend runs."""

    def __init__(self, mode: SecurityMode, users: tuple[User, ...]) -> None:
        self._mode = mode
        self._users = {user.name.lower(): user for user in users}
        self._by_guid = {user.guid: user for user in users if user.guid}
        self._ids: dict[str, int] = {}
        self._known: dict[int, User] = {}

    def authenticate(self, name: str, password: str) -> int:
        """Return a user id; 0 when the login failed in mode `galaxy`.

        Raises:
            MxError: the login failed in mode `os` (E_INVALIDARG).
        """
        if self._mode is SecurityMode.OPEN:
            # An open Galaxy accepts any credentials (docs/reference/mxaccess.md#logins).
            return self._id(self._users.get(name.lower()) or User(name, ""))
        user = self._users.get(name.lower())
        if user is not None and _same(user.password, password):
            return self._id(user)
        if self._mode is SecurityMode.OS:
            raise MxError(E_INVALIDARG, "Value does not fall within the expected range.")
        return 0

    def id_of_guid(self, guid: str) -> int:
        """Return the user id of an ArchestrA user; 0 when no user has this GUID.

        Raises:
            MxError: the text is no GUID (E_INVALIDARG).
        """
        user = self._by_guid.get(normal_guid(guid))
        return 0 if user is None else self._id(user)

    def check_write(self, attribute: Attribute, user_id: int, *, supervisory: bool) -> Detail | None:
        """Return why a plain write is refused; None when it is allowed.

        Under AdviseSupervisory, a write counts as the client's own and needs no login. Under Advise, a write counts as
        an operator's (docs/reference/mxaccess.md#operator-and-supervisory). But most clients use Advise and pass user
        0, which means nobody, and MXAccess accepts their writes. So an operator's write needs a user only when the
        Galaxy has security switched on.

        A plain write to an attribute that requires secured or verified writes is refused in every mode and under both
        kinds of advise. The attribute decides this, and engines keep the security of their last deploy
        (docs/reference/mxaccess.md#secured-writes).
        """
        if not attribute.writeable:
            return Detail.NOT_WRITEABLE
        match attribute.security:
            case Classification.VIEW_ONLY:
                return Detail.WRITE_ACCESS_DENIED
            case Classification.SECURED_WRITE:
                return Detail.SECURED_WRITE
            case Classification.VERIFIED_WRITE:
                return Detail.VERIFIED_WRITE
            case Classification.FREE_ACCESS:
                return None
        if supervisory or self._mode is SecurityMode.OPEN:
            return None
        if attribute.acknowledges:
            acknowledges = Permission.ACKNOWLEDGE in self._permissions(user_id)
            return None if acknowledges else Detail.NO_ALARM_ACK_PRIVILEGE
        if user_id == 0:
            return Detail.WRITE_ACCESS_DENIED
        return None if self._may(user_id, attribute) else Detail.USER_NOT_HAVING_ACCESS_RIGHTS

    def check_secured(self, attribute: Attribute, current_user_id: int, verifier_user_id: int) -> Detail | None:
        """Return why a secured or verified write is refused; None when it is allowed.

        A secured write needs one user id from a login, a verified write needs two. The same user twice is accepted, as
        it was seen in MXAccess (docs/reference/mxaccess.md#secured-writes).
        """
        if not attribute.writeable:
            return Detail.NOT_WRITEABLE
        if attribute.security is Classification.VIEW_ONLY:
            return Detail.WRITE_ACCESS_DENIED
        verified = attribute.security is Classification.VERIFIED_WRITE
        if verified and 0 in (current_user_id, verifier_user_id):
            return Detail.VERIFIED_WRITE
        if attribute.security is Classification.SECURED_WRITE and current_user_id == 0:
            return Detail.SECURED_WRITE
        if attribute.security is not Classification.FREE_ACCESS and not self._may(current_user_id, attribute):
            return Detail.USER_NOT_HAVING_ACCESS_RIGHTS
        if verified and Permission.VERIFY not in self._permissions(verifier_user_id):
            return Detail.VERIFIER_NOT_HAVING_VERIFY_RIGHTS
        return None

    def _may(self, user_id: int, attribute: Attribute) -> bool:
        return _NEEDED.get(attribute.security, Permission.OPERATE) in self._permissions(user_id)

    def _permissions(self, user_id: int) -> frozenset[Permission]:
        user = self._known.get(user_id)
        return frozenset() if user is None else user.permissions

    def _id(self, user: User) -> int:
        user_id = self._ids.setdefault(user.name.lower(), len(self._ids) + 1)
        self._known[user_id] = user
        return user_id


def normal_guid(text: str) -> str:
    """Return a GUID as lower-case hex digits.

    Raises:
        MxError: the text is no GUID (E_INVALIDARG).
    """
    digits = text.strip().strip("{}").replace("-", "").lower()
    if len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        raise MxError(E_INVALIDARG, "a user GUID looks like {00000000-0000-0000-0000-000000000000}")
    return digits


def _same(expected: str, given: str) -> bool:
    import hmac

    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
