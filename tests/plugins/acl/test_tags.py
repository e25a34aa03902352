"""Which tags a key may give its sessions: the tag decides which viewers see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.clients import refused
from support.keys import client_with, guarded_gateway, opened_store

from mxgw_acl.authorization import may_see
from mxgw_acl.cli.keys import keys_group
from mxgw_acl.doctor import findings
from mxgw_acl.keys import Constraints, Scope
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyWishes
from mxgw_core.api import Operator


@pytest.mark.asyncio
async def test_a_session_opens_with_a_tag_that_the_key_may_set_and_with_no_other(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, limited = guarded.issue("limited", tags=("line4", "hall?.*"))
        _, untagged = guarded.issue("untagged", tags=("line4", ""))
        _, free = guarded.issue("free")

        async def opens(key: str, tag: str) -> str:
            async with client_with(guarded.target, key) as client:
                call = client.open(tag=tag)
                if tag in allowed[key]:
                    return (await call).tag
                return (await refused(call)).text

        allowed = {limited: {"line4", "hall1.west", "LINE4"}, untagged: {"line4", ""}, free: {"line5", ""}}

        assert [await opens(limited, tag) for tag in ("line4", "hall1.west", "LINE4")] == [
            "line4",
            "hall1.west",
            "LINE4",
        ]
        for tag in ("line5", "line44", "hall12.x", "xline4"):
            assert await opens(limited, tag) == (
                "this key may not open a session with this tag: set a tag that its --tag allows ('line4', 'hall?.*')"
            )
        assert "without a tag" in await opens(limited, "")
        assert [await opens(untagged, tag) for tag in ("line4", "")] == ["line4", ""]
        assert "with this tag" in await opens(untagged, "line5")
        assert [await opens(free, tag) for tag in ("line5", "")] == ["line5", ""]
        assert [line["tag"] for line in guarded.audit() if line["decision"] == "denied"][:2] == ["line5", "line44"]


def test_another_spelling_hides_a_session_from_no_viewer() -> None:
    viewer = Operator("vera", ("viewer",), ("Line4",))

    assert may_see(viewer, "line4")
    assert may_see(viewer, " LINE4 ")
    assert not may_see(viewer, "line44")
    assert not may_see(viewer, " ")


def test_keys_of_before_may_set_any_tag() -> None:
    older = json.loads(Constraints(maximum_sessions=2).to_json())
    del older["tags"]
    stored = Constraints.from_json(json.dumps(older))

    assert stored == Constraints(maximum_sessions=2)
    assert stored.may_set("anything")
    assert stored.may_set("")
    assert not stored.limits_tags
    assert Constraints.from_json(Constraints(tags=("a", "")).to_json()).tags == ("a", "")


def test_the_command_line_gives_and_shows_them(tmp_path: Path) -> None:
    group = keys_group(lambda: AclSettings(directory=tmp_path / "acl"))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(group, arguments)

        assert result.exit_code == 0, result.output
        return result.output

    limited = json.loads(run("create", "limited", "--tag", "line4", "--tag", "", "--json"))
    free = json.loads(run("create", "free", "--json"))

    assert (limited["tags"], free["tags"]) == (["line4", ""], ["*"])
    assert "line4,''" in run("list")
    assert [line.split() for line in run("show", limited["id"]).splitlines() if line.startswith("tags")] == [
        ["tags", "line4,", "''"]
    ]
    assert "tags                *\n" in run("show", free["id"])


def test_the_doctor_names_keys_that_may_set_any_tag_where_tags_decide_what_is_seen(tmp_path: Path) -> None:
    private = tmp_path / "acl"
    mapped = AclSettings(directory=private, group_to_session_tag={"line4": ("line4",)})

    assert findings(mapped) == ()
    assert not private.exists()

    with opened_store(private) as store:
        opening = frozenset({Scope.OPEN})
        free, _ = store.create(KeyWishes("free", opening), "test")
        store.create(KeyWishes("limited", opening, Constraints(tags=("line4",))), "test")
        store.create(KeyWishes("reads", frozenset({Scope.READ})), "test")
        dead, _ = store.create(KeyWishes("dead", opening, Constraints(tags=("**",))), "test")
        store.revoke(dead.id)

        (finding,) = findings(mapped)

        assert f"any tag: {free.id} (free)" in finding.detail
        assert "limited" not in finding.detail
        assert "dead" not in finding.detail
        assert findings(AclSettings(directory=private)) == ()

        store.revoke(free.id)

        assert findings(mapped) == ()
