"""Groups as Active Directory tells them: its rule and its tokenGroups on a real domain controller, and without them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.active_directory import (
    GROUPS,
    PASSWORDS,
    PEOPLE,
    READER_DN,
    READER_PASSWORD,
    ActiveDirectory,
    hindered,
    running_active_directory,
)
from support.desks import Desk, running_desk
from support.slapd import PASSWORDS as SLAPD_PASSWORDS
from support.slapd import running_slapd

from mxgw_acl.ldap.groups import _IN_CHAIN, _SIDS

WAYS = {"ad_chain": _IN_CHAIN.encode(), "ad_token_groups": _SIDS.encode()}


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveDirectory]:
    with running_active_directory(tmp_path_factory.mktemp("domain")) as directory:
        yield directory


@contextmanager
def desk_of(domain: ActiveDirectory, **ldap: Any) -> Iterator[Desk]:
    settings = {
        "ldap": {
            "servers": [domain.url],
            "ca_file": domain.authority.root,
            "service_dn": READER_DN,
            "service_password": READER_PASSWORD,
            "user_base": PEOPLE,
            "user_filter": "(sAMAccountName={user})",
            "group_base": GROUPS,
            "chain_timeout_s": 1,
            **ldap,
        },
        "operators": {"administrators": ["gateway-admins"], "viewers": ["gateway-viewers", "line4", "newsletter"]},
        "group_to_session_tag": {
            "line4": "own",
            "crew": "two up",
            "operations": "three up",
            "gateway-viewers": "four up",
            "round": "circle",
            "newsletter": "news",
        },
    }
    with running_desk(settings, PASSWORDS) as desk:
        yield desk


def tags(desk: Desk) -> set[str]:
    vera = desk.log_in("vera")

    assert vera is not None

    return set(vera.tags)


NEAR = {"own", "two up", "news"}
ALL = NEAR | {"three up", "four up", "circle"}


@pytest.mark.parametrize(
    ("groups", "found"),
    [("memberof", {"own", "news"}), ("nested", NEAR), ("ad_chain", ALL), ("ad_token_groups", ALL - {"news"})],
)
def test_each_way_of_groups_finds_what_it_says(domain: ActiveDirectory, groups: str, found: set[str]) -> None:
    # One step only, so that what is farther away can come from Active Directory's own ways alone; groups that are
    # there for mail are not among the tokens.
    with desk_of(domain, groups=groups, group_depth=1) as desk:
        assert tags(desk) == found
        assert desk.log_in("vera", "wrong") is None

        anna = desk.log_in("anna")

        assert anna is not None
        assert anna.roles == ("administrator",)


@pytest.mark.parametrize("groups", WAYS)
def test_who_is_in_no_group_of_the_site_gets_in_nowhere(domain: ActiveDirectory, groups: str) -> None:
    with desk_of(domain, groups=groups) as desk:
        assert desk.log_in("nora") is None
        assert desk.why == "in no group that has a role"


@pytest.mark.parametrize("groups", WAYS)
@pytest.mark.parametrize("cuts", [False, True])
def test_a_controller_that_does_not_answer_the_short_way_is_asked_the_long_way(
    domain: ActiveDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture, groups: str, cuts: bool
) -> None:
    caplog.set_level(logging.INFO)
    with hindered(domain, tmp_path, WAYS[groups], cuts=cuts) as (url, ca_file):
        ldap = {"servers": [url], "ca_file": ca_file, "groups": groups, "group_depth": 1}
        with desk_of(domain, **ldap) as desk:
            assert tags(desk) == NEAR
    assert f"groups = {groups} does not work, so nested takes its place" in caplog.text


@pytest.mark.parametrize("groups", WAYS)
def test_a_server_that_only_calls_itself_active_directory_is_asked_the_long_way(tmp_path: Path, groups: str) -> None:
    with running_slapd(tmp_path, capabilities=["1.2.840.113556.1.4.800"]) as slapd:
        settings = {
            "ldap": {
                "servers": [slapd.tls],
                "ca_file": slapd.authority.root,
                "service_dn": "cn=reader,dc=plant",
                "service_password": "reader-password",
                "user_base": "ou=people,dc=plant",
                "group_base": "ou=groups,dc=plant",
                "groups": groups,
            },
            "operators": {"viewers": ["operations"]},
        }
        with running_desk(settings, SLAPD_PASSWORDS) as desk:
            assert desk.log_in("vera") is not None
