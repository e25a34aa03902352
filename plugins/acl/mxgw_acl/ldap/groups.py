"""Finds the groups of a person. The setting `groups` chooses between four ways.

Without nested groups, the result is the groups that the person's entry names. With nested groups, it also has the
groups that contain those groups: they are looked up step by step, or by one of two fast searches that only Active
Directory has.

Source: MS-ADTS 3.1.1.3.4.4.3 (the rule LDAP_MATCHING_RULE_IN_CHAIN) and 3.1.1.4.5.19 (the attribute tokenGroups has the
SIDs of all security groups of an entry, nested groups included; only a search for that entry alone returns it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from ldap3.utils.conv import escape_filter_chars

from mxgw_acl.ldap.connections import Connected, ServerFailed
from mxgw_acl.settings import LdapSettings

log = logging.getLogger(__name__)

# Two object identifiers (OIDs). The first is a value of supportedCapabilities that only Active Directory has. The
# second is a matching rule of Active Directory that also finds the groups which contain a person's groups.
_ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
_IN_CHAIN = "1.2.840.113556.1.4.1941"
_SIDS = "tokenGroups"
# Nobody is in so many groups: when more are found, the directory has a fault and the search stops.
_MOST_GROUPS = 5000
_DNS_PER_SEARCH = 20

# A function that opens another connection for the same account. Its argument is the time limit for one answer, in
# seconds.
Reconnect = Callable[[float], AbstractContextManager[Connected]]


def groups_of(
    connected: Connected, reconnect: Reconnect, dn: str, named: Iterable[str], settings: LdapSettings
) -> Sequence[str]:
    """Return the DNs of all groups of the person `dn`, found in the way that `settings.groups` says.

    `named` are the DNs of the groups that the person's own entry names.

    Raises:
        ServerFailed: the server could not answer.
    """
    if settings.groups == "memberof":
        return tuple(named)
    if settings.groups in _SHORT_WAYS and _is_active_directory(connected):
        try:
            groups = _SHORT_WAYS[settings.groups](reconnect, dn, settings)
        except ServerFailed as error:
            # The search was too slow, or the server does not support it. `_nested` works with every server.
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
    """Return the groups that Active Directory's matching rule finds; None when it finds none.

    A server that does not have the matching rule also finds none.
    """
    with reconnect(settings.chain_timeout_s) as connected:
        wanted = f"(member:{_IN_CHAIN}:={escape_filter_chars(dn)})"
        return tuple(entry.dn for entry in connected.search(settings.group_base, wanted, ["cn"])) or None


def _token_groups(reconnect: Reconnect, dn: str, settings: LdapSettings) -> Sequence[str] | None:
    """Return the groups below `group_base` whose SIDs are in the tokenGroups of the entry.

    Return None when the entry has no SIDs: every user in Active Directory has some, so the server did not return them.
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


# The two fast searches of Active Directory, each with the time limit `chain_timeout_s` for one answer. Key: the value
# of the setting `groups`. Value: the function. When the function returns None or raises ServerFailed, `_nested` is
# used instead.
_SHORT_WAYS: Mapping[str, Callable[[Reconnect, str, LdapSettings], Sequence[str] | None]] = {
    "ad_chain": _in_chain,
    "ad_token_groups": _token_groups,
}


def _nested(connected: Connected, dn: str, named: Iterable[str], settings: LdapSettings) -> Sequence[str]:
    found = {group.casefold(): group for group in named}
    frontier = [dn, *found.values()]
    # Groups can contain each other in a circle, so each group is looked up only once.
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
