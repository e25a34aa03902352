"""The groups of a person: those of the entry, those that contain other groups, and Active Directory's two ways.

Source: MS-ADTS 3.1.1.3.4.4.3 (the rule LDAP_MATCHING_RULE_IN_CHAIN) and 3.1.1.4.5.19 (tokenGroups: the SIDs of all
security groups of an entry, nested ones included; only returned by a search for that entry alone).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from ldap3.utils.conv import escape_filter_chars

from mxgw_acl.ldap.connections import Connected, ServerFailed
from mxgw_acl.settings import LdapSettings

log = logging.getLogger(__name__)

# supportedCapabilities of Active Directory, and its matching rule that follows memberships up.
_ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
_IN_CHAIN = "1.2.840.113556.1.4.1941"
_SIDS = "tokenGroups"
# More groups than anybody is in: the directory is broken.
_MOST_GROUPS = 5000
_DNS_PER_SEARCH = 20

# Opens another connection for the same account; the argument is the time limit for one answer, in seconds.
Reconnect = Callable[[float], AbstractContextManager[Connected]]


def groups_of(
    connected: Connected, reconnect: Reconnect, dn: str, named: Iterable[str], settings: LdapSettings
) -> Sequence[str]:
    """Return the DNs of all groups of `dn`; `named` are the groups that its own entry names.

    Raises:
        ServerFailed: the server could not answer.
    """
    if settings.groups == "memberof":
        return tuple(named)
    if settings.groups in _SHORT_WAYS and _is_active_directory(connected):
        try:
            groups = _SHORT_WAYS[settings.groups](reconnect, dn, settings)
        except ServerFailed as error:
            # Too slow or not supported; following the groups one by one works everywhere.
            log.info("groups = %s does not work, so nested takes its place: %s", settings.groups, error)
        else:
            if groups is not None:
                return groups
            log.info("groups = %s tells nothing of somebody, so nested takes its place", settings.groups)
    return _nested(connected, dn, named, settings)


def _is_active_directory(connected: Connected) -> bool:
    entries = connected.search("", "(objectClass=*)", ["supportedCapabilities"], whole_tree=False)
    return any(_ACTIVE_DIRECTORY in entry.texts("supportedcapabilities") for entry in entries)


def _in_chain(reconnect: Reconnect, dn: str, settings: LdapSettings) -> Sequence[str] | None:
    """Return the groups; None when there are none, which is also the answer of a server without this rule."""
    with reconnect(settings.chain_timeout_s) as connected:
        wanted = f"(member:{_IN_CHAIN}:={escape_filter_chars(dn)})"
        return tuple(entry.dn for entry in connected.search(settings.group_base, wanted, ["cn"])) or None


def _token_groups(reconnect: Reconnect, dn: str, settings: LdapSettings) -> Sequence[str] | None:
    """Return the groups below the base by the SIDs of the entry; None when it has no SIDs, which every user should
    have.
    """
    with reconnect(settings.chain_timeout_s) as connected:
        entries = connected.search(dn, "(objectClass=*)", [_SIDS], whole_tree=False)
        sids = [sid for entry in entries for sid in entry.attributes.get(_SIDS.lower(), ())][:_MOST_GROUPS]
        if not sids:
            return None
        found: list[str] = []
        for start in range(0, len(sids), _DNS_PER_SEARCH):
            parts = "".join(f"(objectSid={_escaped(sid)})" for sid in sids[start : start + _DNS_PER_SEARCH])
            found += [entry.dn for entry in connected.search(settings.group_base, f"(|{parts})", ["cn"])]
        return tuple(found)


def _escaped(value: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in value)


# Active Directory's two ways, each within its own time. On None and ServerFailed, groups are followed one by one.
_SHORT_WAYS: Mapping[str, Callable[[Reconnect, str, LdapSettings], Sequence[str] | None]] = {
    "ad_chain": _in_chain,
    "ad_token_groups": _token_groups,
}


def _nested(connected: Connected, dn: str, named: Iterable[str], settings: LdapSettings) -> Sequence[str]:
    found = {group.casefold(): group for group in named}
    frontier = [dn, *found.values()]
    # Groups may contain each other in a circle, so each is visited once.
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
