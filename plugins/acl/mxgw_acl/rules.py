"""What each RPC and each command requires of its caller: the table behind every decision.

A method that is neither in this table nor declared by its service is refused. A test compares the table with the
service descriptors, so that no new RPC is forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mxgw_acl.keys import Scope
from mxgw_core.api import ADMINISTRATOR


class Names(enum.Enum):
    """Whether the request names a session."""

    NO_SESSION = 0
    A_SESSION = 1
    PERHAPS_A_SESSION = 2


class Role(enum.Enum):
    """The roles of operators."""

    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one method requires.

    `scopes`: a key needs one of them; None allows every key, and an empty set none. `role`: the least role that an
    operator needs; None refuses operators. `public`: no credentials are needed. `is_audited`: allowed calls are
    recorded too; refused calls always are.
    """

    scopes: frozenset[Scope] | None
    names: Names = Names.A_SESSION
    role: Role | None = None
    public: bool = False
    is_audited: bool = False


def _any_of(*scopes: Scope) -> frozenset[Scope]:
    return frozenset(scopes)


_ANY_KEY = None
_NO_KEY: frozenset[Scope] = frozenset()

SESSIONS, COMMANDS_SERVICE = "/mxgw.v1.SessionService", "/mxgw.v1.CommandService"
EVENTS, GATEWAY = "/mxgw.v1.EventService", "/mxgw.v1.GatewayService"
OPEN_SESSION, INVOKE, STREAM_EVENTS = f"{SESSIONS}/OpenSession", f"{COMMANDS_SERVICE}/Invoke", f"{EVENTS}/StreamEvents"

# The reflection service of grpc (`gateway.reflection`), which describes the services; every key may use it.
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

RULES: Mapping[str, Rule] = {
    OPEN_SESSION: Rule(_any_of(Scope.OPEN), Names.NO_SESSION, is_audited=True),
    f"{SESSIONS}/CloseSession": Rule(_any_of(Scope.OPEN), role=Role.ADMINISTRATOR, is_audited=True),
    f"{SESSIONS}/GetSession": Rule(_ANY_KEY, role=Role.VIEWER),
    f"{SESSIONS}/ListSessions": Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER),
    f"{SESSIONS}/GetSessionState": Rule(_any_of(Scope.READ), role=Role.VIEWER),
    f"{SESSIONS}/ListSubscribers": Rule(_ANY_KEY, role=Role.VIEWER),
    f"{SESSIONS}/GetWorkerInfo": Rule(_ANY_KEY, role=Role.VIEWER),
    # The scopes depend on the command: see COMMANDS.
    INVOKE: Rule(_ANY_KEY),
    f"{COMMANDS_SERVICE}/Browse": Rule(_any_of(Scope.READ)),
    STREAM_EVENTS: Rule(_any_of(Scope.EVENTS), role=Role.VIEWER, is_audited=True),
    f"{GATEWAY}/GetGatewayInfo": Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER),
    f"{GATEWAY}/Ping": Rule(_ANY_KEY, Names.PERHAPS_A_SESSION, role=Role.VIEWER),
    REFLECTION: Rule(_ANY_KEY, Names.NO_SESSION, role=Role.VIEWER),
}

_TO_USE_ITEMS = _any_of(Scope.READ, Scope.WRITE, Scope.SECURED_WRITE, Scope.EVENTS)
_TO_WRITE = _any_of(Scope.WRITE)
_TO_WRITE_SECURED = _any_of(Scope.SECURED_WRITE)
_TO_LOG_IN = _any_of(Scope.WRITE, Scope.SECURED_WRITE)

# The scopes of a command, by its field in MxCommand; a key needs one of them.
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
}

# Commands that change the plant: each is in the audit log.
AUDITED_COMMANDS = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk", "authenticate_user"})

# Words that services of other plugins may declare for a method (`GrpcService.scopes`), besides those of `Scope`. If
# such a method names a session, that is checked here as for every method; the service must check anything else.
PUBLIC, VIEWER = "public", "viewer"
# Keys with this scope may make administrators' calls, which are about all sessions.
ADMINISTRATION = _any_of(Scope.ADMIN)
DECLARED: Mapping[str, Rule] = {
    PUBLIC: Rule(_ANY_KEY, Names.PERHAPS_A_SESSION, role=Role.VIEWER, public=True),
    VIEWER: Rule(ADMINISTRATION, Names.PERHAPS_A_SESSION, role=Role.VIEWER),
    ADMINISTRATOR: Rule(ADMINISTRATION, Names.PERHAPS_A_SESSION, role=Role.ADMINISTRATOR, is_audited=True),
    **{scope.value: Rule(_any_of(scope), Names.PERHAPS_A_SESSION) for scope in Scope},
}

# Methods that need one of these scopes can change something, so allowed calls are audited too.
_CHANGING = frozenset({Scope.WRITE, Scope.SECURED_WRITE, Scope.ADMIN})


def rule_of(method: str, declared: str) -> Rule | None:
    """Return what a method requires; None when neither the table nor its service says so.

    A service may declare several words, as in "write|administrator": a key needs one of the scopes among them, an
    operator the role among them.
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
