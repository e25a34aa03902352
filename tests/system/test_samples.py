"""What sites have on their disks: each sample of an earlier state opens with the code as it is, or is refused in words.

`scripts/make_samples.py` makes the samples; docs/development.md says when.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.clients import client_of, refused
from support.keys import client_with
from support.repository import ROOT
from support.restarts import Restarts, restarts

from mxgw.v1 import commands_pb2 as c
from mxgw_acl.audit_tail import AuditTail
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.loader import load_settings
from mxgw_core.plugins import PluginHost

SAMPLES = sorted((ROOT / "tests" / "samples").iterdir())

# A problem of a setting that has gone: who reads it must learn what to do, so a plain "unknown key" is not enough.
_PROBLEM = re.compile(r"settings\.toml(:\d+)?: (?P<key>[\w.]+): (?P<text>.{30,})")


@dataclass(frozen=True)
class Site:
    """A copy of a sample as a gateway has it, and what must be in it."""

    directory: Path
    expected: Mapping[str, Any]

    def key(self, name: str) -> str:
        return str(self.expected["keys"][name])


def laid_out(sample: Path, directory: Path) -> Site:
    """Copy a sample, with the modes that no repository keeps."""
    shutil.copytree(sample, directory, dirs_exist_ok=True)
    for path in directory.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return Site(directory, json.loads((directory / "expected.json").read_text()))


@pytest.fixture(params=SAMPLES, ids=lambda path: path.name)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return laid_out(request.param, tmp_path)


SETTINGS = """
[plugins]
enabled = ["acl", "reattach"]
[plugins.acl]
directory = "acl"
environment = "test"
"""


def problems_of(site: Site) -> list[str]:
    """Return what is wrong with the settings of a site, its plugins' included."""
    try:
        loaded = load_settings(site.directory / "settings.toml", environ={})
        PluginHost.load(loaded.settings, origins=loaded.origins)
    except SettingsError as error:
        return str(error).splitlines()
    return []


def test_there_is_a_sample() -> None:
    assert SAMPLES


def test_settings_load_or_each_one_that_does_not_is_told_with_what_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.directory)
    before: list[str] = []
    while problems := problems_of(site):
        assert problems != before, "whoever does as told is rid of it"

        for problem in problems:
            told = _PROBLEM.search(problem)

            assert told, problem
            assert "unknown key" not in told["text"], problem

            _leave_out(site.directory / "settings.toml", told["key"])
        before = problems


def _leave_out(settings: Path, key: str) -> None:
    """Take a value out, or a whole table."""
    table, _, name = key.rpartition(".")
    kept, here = [], ""
    for line in settings.read_text().splitlines():
        if header := re.fullmatch(r"\[([\w.]+)\]", line):
            here = header[1]
        if here != key and not (here == table and line.startswith(f"{name} = ")):
            kept.append(line)
    settings.write_text("\n".join(kept))


def test_the_audit_log_is_listed_and_goes_on(site: Site) -> None:
    entries = AuditTail(site.directory / "var/acl/audit.jsonl").last(1000)

    assert len(entries) == site.expected["audit_lines"]
    assert {"allowed", "denied", "done"} <= {entry.decision for entry in entries}


@pytest.mark.asyncio
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
async def test_a_gateway_starts_on_the_files_and_its_keys_are_what_they_were(sample: Path) -> None:
    async with restarts(SETTINGS) as gateway:
        site = _moved_in(sample, gateway)
        before = (gateway.data / "acl" / "audit.jsonl").read_bytes()
        await gateway.start()
        async with client_with(gateway.target, site.key("limited")) as client:
            session = (await client.open()).session_id
            server = await client.register(session)
            allowed = c.AddItemCommand(server_handle=server, item_definition="Tank_001.Level")
            forbidden = c.AddItemCommand(server_handle=server, item_definition="Pump_001.Speed")

            assert (await client.invoke(session, add_item=allowed)).hresult == 0
            assert (await refused(client.invoke(session, add_item=forbidden))).reason == "ACCESS_DENIED"

            await client.close(session)
        for name in ("everything", "rotated", "rotated, before"):
            async with client_with(gateway.target, site.key(name)) as client:
                await client.close((await client.open()).session_id)
        for text in (site.key("revoked"), site.key("limited")[:-1] + "x", ""):
            async with client_with(gateway.target, text) if text else client_of(gateway.target) as client:
                assert (await refused(client.open())).reason == "UNAUTHENTICATED"
        # The manifest names a worker that is no more; its session has an end, and is not forgotten.
        async with client_with(gateway.target, site.key("everything")) as client:
            assert (await refused(client.register(site.expected["session"]))).reason == "SESSION_GONE"
        await gateway.terminate()

        assert (gateway.data / "acl" / "audit.jsonl").read_bytes().startswith(before)
        assert gateway.rows() == []


def _moved_in(sample: Path, gateway: Restarts) -> Site:
    site = laid_out(sample, gateway.directory / "sample")
    shutil.move(site.directory / "var", gateway.data)
    return site
