"""The groups of a person: those the entry names, those that groups are in, and Active Directory's own rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from ldap3.utils.conv import escape_filter_chars

from mxgw_acl.ldap.connections import Connected, ServerFailed
from mxgw_acl.settings import LdapSettings

# supportedCapabilities of Active Directory, and its matching rule that follows memberships up.
_ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
_IN_CHAIN = "1.2.840.113556.1.4.1941"
# Nobody is in more; a directory that says so is broken.
_MOST_GROUPS = 5000
_DNS_PER_SEARCH = 20

# Opens another connection as the same account; the argument is its time for one answer.
Reconnect = Callable[[float], AbstractContextManager[Connected]]


def groups_of(
    connected: Connected, reconnect: Reconnect, dn: str, named: Iterable[str], settings: LdapSettings
) -> Sequence[str]:
    """Return the DNs of all groups of `dn`; `named` are those that its own entry names.

    Raises:
        ServerFailed: the server could not say.
    """
    if settings.groups == "memberof":
        return tuple(named)
    if settings.groups == "ad_chain" and _is_active_directory(connected):
        try:
            return _in_chain(reconnect, dn, settings)
        except ServerFailed:
            pass  # too slow or not supported; the long way works everywhere
    return _nested(connected, dn, named, settings)


def _is_active_directory(connected: Connected) -> bool:
    entries = connected.search("", "(objectClass=*)", ["supportedCapabilities"], whole_tree=False)
    return any(_ACTIVE_DIRECTORY in entry.attributes.get("supportedcapabilities", ()) for entry in entries)


def _in_chain(reconnect: Reconnect, dn: str, settings: LdapSettings) -> Sequence[str]:
    with reconnect(settings.chain_timeout_s) as connected:
        wanted = f"(member:{_IN_CHAIN}:={escape_filter_chars(dn)})"
        return tuple(entry.dn for entry in connected.search(settings.group_base, wanted, ["cn"]))


def _nested(connected: Connected, dn: str, named: Iterable[str], settings: LdapSettings) -> Sequence[str]:
    found = {group.casefold(): group for group in named}
    frontier = [dn, *found.values()]
    # A group may be in itself, by whatever detour: each is looked at once.
    for _ in range(settings.group_depth):
        above: dict[str, str] = {}
        for start in range(0, len(frontier), _DNS_PER_SEARCH):
            parts = "".join(
                f"(member={escape_filter_chars(member)})(uniqueMember={escape_filter_chars(member)})"
                for member in frontier[start : start + _DNS_PER_SEARCH]
            )
            for entry in connected.search(settings.group_base, f"(|{parts})", ["cn"]):
                above.setdefault(entry.dn.casefold(), entry.dn)
        fresh = {folded: group for folded, group in above.items() if folded not in found}
        found |= fresh
        frontier = list(fresh.values())
        if not frontier or len(found) > _MOST_GROUPS:
            break
    return tuple(found.values())
