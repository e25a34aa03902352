"""The tables of what each RPC and each command requires of its caller; every decision about a call uses them.

A method that is neither in the table `RULES` nor declared by its service is refused. A test compares the table with the
service descriptors, so that no new RPC is forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mxgw_acl.keys import Scope
from mxgw_core.api import ADMINISTRATOR


class Names(enum.Enum):
    """Whether the request of a method contains a session id."""

    NO_SESSION = 0
    A_SESSION = 1
    PERHAPS_A_SESSION = 2


class Role(enum.Enum):
    """The roles of operators. An administrator may also do what a viewer may do."""

    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one method requires of its caller.

    A key needs one of the `scopes`; None allows every key, and an empty set allows no key. `names` says whether the
    request contains a session id. An operator needs at least the `role`; None allows no operator. When `public` is
    True, no credentials are needed. When `is_audited` is True, allowed calls are recorded in the audit log; refused
    calls are always recorded.
    """

    scopes: frozenset[Scope] | None
    names: Names = Names.A_SESSION
    role: Role | None = None
    public: bool = False
    is_audited: bool = False


def _any_of(*scopes: Scope) -> frozenset[Scope]:
    return frozenset(scopes)


_ANY_KEY = None

SESSIONS, COMMANDS_SERVICE = "/mxgw.v1.SessionService", "/mxgw.v1.CommandService"
EVENTS, GATEWAY = "/mxgw.v1.EventService", "/mxgw.v1.GatewayService"
OPEN_SESSION, INVOKE, STREAM_EVENTS = f"{SESSIONS}/OpenSession", f"{COMMANDS_SERVICE}/Invoke", f"{EVENTS}/StreamEvents"

# The method of gRPC's reflection service, which describes the services of the gateway (setting `gateway.reflection`).
REFLECTION = frozenset(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)

RULES: Mapping[str, Rule] = {
    OPEN_SESSION: Rule(_any_of(Scope.OPEN), Names.NO_SESSION, is_audited=True),
    f"{SESSIONS}/CloseSession": Rule(_any_of(Scope.OPEN), role=Role.ADMINISTRATOR, is_audited=True),
    f"{SESSIONS}/GetSession": Rule(_ANY_KEY, role=Role.VIEWER),
    f"{SESSIONS}/ListSessions": Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER),
    f"{SESSIONS}/GetSessionState": Rule(_any_of(Scope.READ), role=Role.VIEWER),
    f"{SESSIONS}/ListSubscribers": Rule(_ANY_KEY, role=Role.VIEWER),
    f"{SESSIONS}/GetWorkerInfo": Rule(_ANY_KEY, role=Role.VIEWER),
    # `COMMANDS` says which scopes a key needs for each command.
    INVOKE: Rule(_ANY_KEY),
    f"{COMMANDS_SERVICE}/Browse": Rule(_any_of(Scope.READ)),
    STREAM_EVENTS: Rule(_any_of(Scope.EVENTS), role=Role.VIEWER, is_audited=True),
    f"{GATEWAY}/GetGatewayInfo": Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER),
    f"{GATEWAY}/Ping": Rule(_ANY_KEY, Names.PERHAPS_A_SESSION, role=Role.VIEWER),
    **dict.fromkeys(REFLECTION, Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER)),
}

_TO_USE_ITEMS = _any_of(Scope.READ, Scope.WRITE, Scope.SECURED_WRITE, Scope.EVENTS)
_TO_WRITE = _any_of(Scope.WRITE)
_TO_WRITE_SECURED = _any_of(Scope.SECURED_WRITE)
_TO_LOG_IN = _any_of(Scope.WRITE, Scope.SECURED_WRITE)

# Key: the field of MxCommand that has the command. Value: the scopes, of which a key needs one.
COMMANDS: Mapping[str, frozenset[Scope]] = {
    "register": _TO_USE_ITEMS,
    "unregister": _TO_USE_ITEMS,
    "add_item": _TO_USE_ITEMS,
    "add_item2": _TO_USE_ITEMS,
    "remove_item": _TO_USE_ITEMS,
    "advise": _TO_USE_ITEMS,
    "advise_supervisory": _TO_USE_ITEMS,
    "un_advise": _TO_USE_ITEMS,
    "write": _TO_WRITE,
    "write2": _TO_WRITE,
    "write_secured": _TO_WRITE_SECURED,
    "write_secured2": _TO_WRITE_SECURED,
    "authenticate_user": _TO_LOG_IN,
    "archestra_user_to_id": _TO_LOG_IN,
    "suspend": _TO_USE_ITEMS,
    "activate": _TO_USE_ITEMS,
    "add_buffered_item": _TO_USE_ITEMS,
    "set_buffered_update_interval": _TO_USE_ITEMS,
    "subscribe_bulk": _TO_USE_ITEMS,
    "unsubscribe_bulk": _TO_USE_ITEMS,
    "write_bulk": _TO_WRITE,
    "read_bulk": _any_of(Scope.READ),
    "get_item_metadata": _any_of(Scope.READ),
}

# Commands that can change the plant, and the command that logs a user in for such commands. Calls of these commands are
# recorded even when they are allowed.
AUDITED_COMMANDS = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk", "authenticate_user"})

# Two of the words that services of other plugins can declare for a method (`GrpcService.scopes`); `DECLARED` has all of
# them. When the request of such a method contains a session id, this plugin checks the right to use the session; the
# service itself must check everything else.
PUBLIC, VIEWER = "public", "viewer"
# A key with this scope may make the calls of administrators, for all sessions.
ADMINISTRATION = _any_of(Scope.ADMIN)
# A method that declares one of these scopes can change something, so its allowed calls are recorded as well.
_CHANGING = frozenset({Scope.WRITE, Scope.SECURED_WRITE, Scope.ADMIN})
DECLARED: Mapping[str, Rule] = {
    PUBLIC: Rule(_ANY_KEY, Names.PERHAPS_A_SESSION, role=Role.VIEWER, public=True),
    VIEWER: Rule(ADMINISTRATION, Names.PERHAPS_A_SESSION, role=Role.VIEWER),
    ADMINISTRATOR: Rule(ADMINISTRATION, Names.PERHAPS_A_SESSION, role=Role.ADMINISTRATOR, is_audited=True),
    **{scope.value: Rule(_any_of(scope), Names.PERHAPS_A_SESSION, is_audited=scope in _CHANGING) for scope in Scope},
}


def rule_of(method: str, declared: str) -> Rule | None:
    """Return what a method requires; None when neither `RULES` nor the word `declared` by its service says it.

    A service can also declare scopes together with one role, for example "write|administrator": a key then needs one of
    the scopes, and an operator needs the role.
    """
    if (rule := RULES.get(method)) is not None or "|" not in declared:
        return rule or DECLARED.get(declared)
    words = declared.split("|")
    scopes = [Scope(word) for word in words if word in {scope.value for scope in Scope}]
    roles = [Role(word) for word in words if word in {role.value for role in Role}]
    if len(scopes) + len(roles) != len(words) or len(roles) != 1 or not scopes:
        return None
    changes = Role.ADMINISTRATOR in roles or bool(_CHANGING & set(scopes))
    return Rule(_any_of(*scopes), Names.PERHAPS_A_SESSION, role=roles[0], is_audited=changes)
