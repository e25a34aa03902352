"""docs/securing.md does what it says: its settings are settings, its commands are commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from support.certificates import Authority
from support.command_line import run_mxgw
from support.repository import ROOT

from mxgw_core.api.files import make_private

PAGE = (ROOT / "docs" / "securing.md").read_text(encoding="utf-8")
# What the page writes for the id of the key made first.
_ID = "7Fq2k9XbLw3R"


def run(folder: Path, *arguments: str) -> str:
    done = run_mxgw(*arguments, folder=folder)

    assert done.exit_code == 0, f"mxgw {' '.join(arguments)}: {done.stdout}{done.stderr}"

    return done.stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    settings = "\n".join(blocks("toml"))
    authority = Authority(tmp_path, "plant-ca")
    pair = authority.issue("gateway")
    there = {"plant-ca.pem": authority.root, "tls/server.pem": pair.certificate, "tls/server.key": pair.key}
    for named, file in there.items():
        settings = settings.replace(f"/etc/mxgw/{named}", file.as_posix())
    (tmp_path / "settings.toml").write_text(settings, encoding="utf-8")
    secrets = tmp_path / ".secrets.toml"
    secrets.write_text('[plugins.acl.ldap]\nservice_password = "secret"\n')
    make_private(secrets)
    return tmp_path


def test_its_settings_are_accepted_as_they_stand(site: Path) -> None:
    assert len(blocks("toml")) >= 3

    run(site, "config", "check")
    shown = {row["key"]: row for row in json.loads(run(site, "config", "show", "--json"))}

    assert shown["plugins.acl.group_to_session_tag.shift-leads"]["value"] == ["line4", "line5"]
    assert shown["plugins.acl.ldap.service_password"]["value"] == "***"


def test_its_commands_that_need_no_gateway_run_in_their_order(site: Path) -> None:
    commands = [
        shlex.split(line.removeprefix("$ mxgw "), comments=True)
        for block in blocks("console")
        for line in block.splitlines()
        if re.match(r"\$ mxgw (keys|tls|operators)\b", line)
    ]

    assert len(commands) >= 8

    made = ""
    for command in commands:
        if "revoke" in command:
            command.append("--yes")
        run(site, *[made if word == _ID else word for word in command])
        made = made or json.loads(run(site, "keys", "list", "--json"))[0]["id"]
    files = {path.name for path in site.rglob("*")}

    assert {"historian.key", "historian-2.key", "server.pem", "client-hmi4.pem", "audit.jsonl"} <= files
    assert set(re.findall(r"tls/([\w.-]+\.(?:pem|key))", "".join(blocks("console")))) <= files
