"""`mxgw keys`, `mxgw operators` and `mxgw tls`, and what they make on a running gateway."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from support.clients import refused
from support.command_line import run_mxgw
from support.keys import client_with, guarded_gateway
from support.privacy import is_private
from support.waiting import until

from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest
from mxgw_acl.audit_log import AuditLog
from mxgw_acl.cli.keys import keys_group
from mxgw_acl.keyformat import parse_key
from mxgw_acl.keys import Scope
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyStore, KeyWishes
from mxgw_core.testing import running_gateway


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "settings.toml").write_text('[plugins]\nenabled = ["acl"]\n[plugins.acl]\nenvironment = "test"\n')

    def run(self, *arguments: str, code: int = 0) -> Result:
        done = run_mxgw(*arguments, folder=self.folder)

        assert done.exit_code == code, done.stdout + done.stderr

        return done

    def process(self, *arguments: str) -> str:
        """Run `mxgw` as a process of its own, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "mxgw_cli", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        )

        assert done.returncode == 0, done.stdout + done.stderr

        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_key_lives_its_life_on_the_command_line(shell: Shell) -> None:
    created = shell.run("keys", "create", "historian", "--read", "Tank_*", "--expires", "90d")
    text = created.stdout.strip()
    key = parse_key(text)

    assert key is not None
    assert key.environment == "test"
    assert "only time" in created.stderr

    # As a process, which has nothing but the files.
    listed = json.loads(shell.process("keys", "list", "--json"))

    assert [(row["id"], row["name"], row["state"], row["read"]) for row in listed] == [
        (key.key_id, "historian", "active", ["Tank_*"])
    ]
    assert text not in json.dumps(listed)

    shown = shell.run("keys", "show", key.key_id).stdout

    assert "historian" in shown
    assert key.secret not in shown

    rotated = json.loads(shell.run("keys", "rotate", key.key_id, "--json").stdout)

    assert parse_key(rotated["key"]) is not None
    assert rotated["key"] != text
    assert len(rotated["secrets"]) == 2

    assert "say --yes" in shell.run("keys", "revoke", key.key_id, code=2).stderr

    shell.run("keys", "revoke", key.key_id, "--yes")

    assert "revoked" in shell.run("keys", "list").stdout
    assert "is revoked" in shell.run("keys", "rotate", key.key_id, code=1).stderr

    audit = [
        json.loads(line) for line in (shell.folder / "var/acl/audit.jsonl").read_text(encoding="utf-8").splitlines()
    ]

    assert [line["action"] for line in audit] == ["keys create", "keys rotate", "keys revoke"]
    assert text not in (shell.folder / "var/acl/audit.jsonl").read_text(encoding="utf-8")


def test_a_key_goes_into_a_private_file_and_never_over_another(shell: Shell) -> None:
    done = shell.run("keys", "create", "hmi", "--out", "hmi.key")
    file = shell.folder / "hmi.key"

    assert is_private(file)
    assert parse_key(file.read_text(encoding="utf-8").strip()) is not None
    assert file.read_text(encoding="utf-8").strip() not in done.stdout + done.stderr
    assert "such a file already" in shell.run("keys", "create", "hmi", "--out", "hmi.key", code=2).stderr
    assert len(json.loads(shell.run("keys", "list", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "x", "--scopes", "reed"], "'reed' is no scope: use open, read"),
        (["create", "x", "--network", "10.0.0.0/99"], "write 10.1.0.0/16"),
        (["create", "x", "--expires", "soon"], "write 90d"),
        (["create", "x", "--expires", "99999999999d"], "more than 100 years"),
        (["create", "x", "--expires", "9" * 400 + "d"], "more than 100 years"),
        (["create", "x", "--write", "*"], "need the scope write"),
        (["create", "x" * 65], "1 to 64 printable"),
        (["show", "nothing"], "mxgw keys list"),
    ],
)
def test_what_cannot_be_is_told_with_what_can(shell: Shell, arguments: list[str], says: str) -> None:
    code = 1 if arguments[0] == "show" else 2

    assert says in " ".join(shell.run("keys", *arguments, code=code).stderr.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--expires", "999999999999d"], "more than 100 years"),
        (["--max-rate", "nan"], "no finite number"),
        (["--max-rate", "inf"], "no finite number"),
        (["--max-buffer", "nan"], "no finite number"),
        (["--max-buffer", "1e300"], "not in the range"),
        (["--read", ""], "it is empty"),
        (["--read-below", " "], "it is empty"),
        (["--scopes", "write", "--write", ""], "it is empty"),
        (["--scopes", "write", "--write-below", ""], "it is empty"),
        (["--certificate", ""], "it is empty"),
        (["--certificate", "a\nb"], "cannot be printed"),
        (["--scopes", ","], "may do nothing"),
        (["--tag", "line4\x07"], "cannot be printed"),
        (["--out", "nowhere/x.key"], "there is no directory nowhere"),
    ],
)
def test_limits_that_limit_nothing_and_names_that_name_nothing_are_refused_and_no_key_is_made(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    refusal = keys_command(tmp_path, "create", "x", *arguments)

    assert refusal.exit_code == 2, refusal.output
    assert says in " ".join(refusal.output.split())
    assert json.loads(keys_command(tmp_path, "list", "--json").output) == []


def test_a_key_for_a_session_without_a_tag_can_still_be_made(tmp_path: Path) -> None:
    made = keys_command(tmp_path, "create", "x", "--tag", "", "--expires", "36525d", "--json")

    assert json.loads(made.stdout)["tags"] == [""]


@pytest.mark.parametrize("broken", ["file", "audit"])
def test_a_key_that_nobody_got_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.key")

    if broken == "file":
        monkeypatch.setattr("mxgw_acl.cli.keys.write_private", full)
    else:
        monkeypatch.setattr(AuditLog, "write", full)
    failed = keys_command(tmp_path, "create", "x", "--out", str(tmp_path / "x.key"))
    monkeypatch.undo()
    (key,) = json.loads(keys_command(tmp_path, "list", "--json").output)

    assert failed.exit_code == 1
    assert "No space left on device" in failed.output
    assert f"Key {key['id']} was made, and is revoked again" in " ".join(failed.output.split())
    assert key["state"] == "revoked"
    assert not (tmp_path / "x.key").exists()


@pytest.mark.parametrize("seconds", [1e16, 1e300, -1e300, math.inf])
def test_a_stored_time_beyond_any_calendar_does_not_hide_the_keys(tmp_path: Path, seconds: float) -> None:
    store = KeyStore(tmp_path / "acl")
    store.create(KeyWishes("x", frozenset({Scope.OPEN}), expires_at=seconds), "test")
    store.close()
    (key,) = json.loads(keys_command(tmp_path, "list", "--json").output)

    assert key["expires_at"] == f"{seconds:g} s after 1970"
    for shown in (keys_command(tmp_path, "list"), keys_command(tmp_path, "show", key["id"])):
        assert (shown.exit_code, "after 1970" in shown.output) == (0, True)


def test_the_list_shows_the_limits_of_each_key(tmp_path: Path) -> None:
    keys_command(tmp_path, "create", "free")
    keys_command(tmp_path, "create", "small", "--read", "Tank_*", "--max-sessions", "2", "--max-rate", "50")
    keys_command(tmp_path, "create", "near", "--network", "10.0.0.0/8", "--max-subscribers", "1", "--max-buffer", "8")
    lines = keys_command(tmp_path, "list").output.splitlines()

    assert "LIMITS" in lines[0]
    assert [
        next((limits for limits in ("items, 2 sessions, 50/s", "networks, 1 stream, 8 MiB") if limits in line), "")
        for line in lines[1:]
    ] == ["", "items, 2 sessions, 50/s", "networks, 1 stream, 8 MiB"]


def keys_command(folder: Path, *arguments: str) -> Result:
    group = keys_group(lambda: AclSettings(directory=folder / "acl"))
    return CliRunner().invoke(group, arguments, prog_name="mxgw keys", env={"COLUMNS": "100"})


def test_help_leads_from_the_group_to_each_command(shell: Shell) -> None:
    group = shell.run("keys", "--help").stdout

    for command in ("create", "list", "show", "rotate", "revoke"):
        assert command in group

        page = shell.run("keys", command, "--help").stdout

        assert len(page.splitlines()) > 5
    page = " ".join(shell.run("keys", "create", "--help").stdout.split()).replace("- ", "-")
    for word in ("open", "secured-write", "all-sessions"):
        assert word in page


def test_ending_the_logins_of_a_person_is_recorded(shell: Shell) -> None:
    assert "anna" in shell.run("operators", "logout", "anna").stdout
    assert '"operators logout"' in (shell.folder / "var/acl/audit.jsonl").read_text(encoding="utf-8")


# TLS


def _tls(shell: Shell, *arguments: str) -> dict[str, str]:
    made: dict[str, str] = json.loads(shell.run("tls", "init", "--json", *arguments).stdout)
    return made


def _credentials(folder: Path, client: str = "") -> grpc.ChannelCredentials:
    tls = folder / "tls"
    pair = ((tls / f"client-{client}.key").read_bytes(), (tls / f"client-{client}.pem").read_bytes()) if client else ()
    return grpc.ssl_channel_credentials((tls / "ca.pem").read_bytes(), *pair)


def test_certificates_are_private_and_a_ca_is_used_again(shell: Shell) -> None:
    made = _tls(shell, "--host", "gateway.plant")
    ca = (shell.folder / made["ca"]).read_bytes()

    for file in (shell.folder / "tls").iterdir():
        assert is_private(file)

    again = _tls(shell, "--client", "hmi4")

    assert (shell.folder / again["ca"]).read_bytes() == ca
    assert (shell.folder / "tls/client-hmi4.pem").exists()
    assert "[tls]" in shell.run("tls", "init").stdout
    assert "cannot be the name" in shell.run("tls", "init", "--client", "../x", code=1).stderr


@pytest.mark.asyncio
async def test_made_certificates_serve_and_new_ones_are_taken_without_a_restart(shell: Shell) -> None:
    made = _tls(shell)
    overrides = {
        "gateway.listen": ["127.0.0.1:0"],
        "tls.certificate": str(shell.folder / made["certificate"]),
        "tls.private_key": str(shell.folder / made["private_key"]),
    }

    async def served_by(target: str) -> str:
        async with client_with(target, channel_credentials=_credentials(shell.folder)) as client:
            await client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60)
        import ssl

        host, _, port = target.rpartition(":")
        return ssl.get_server_certificate((host, int(port)))

    async with running_gateway(overrides) as gateway:
        import asyncio

        first = await served_by(gateway.target)
        await asyncio.to_thread(_tls, shell)
        second = await served_by(gateway.target)

        assert first != second

        # A key that belongs to nothing: what is there stays.
        (shell.folder / made["private_key"]).write_text("nothing")

        assert await served_by(gateway.target) == second


@pytest.mark.asyncio
async def test_a_client_certificate_stands_for_its_key(shell: Shell, tmp_path: Path) -> None:
    made = _tls(shell, "--client", "hmi4", "--client", "other")
    overrides = {
        "gateway.listen": ["127.0.0.1:0"],
        "tls.certificate": str(shell.folder / made["certificate"]),
        "tls.private_key": str(shell.folder / made["private_key"]),
        "tls.client_ca": str(shell.folder / made["ca"]),
    }
    async with guarded_gateway(tmp_path, overrides) as guarded:
        key, _ = guarded.issue(certificate_names=("hmi4",))
        async with client_with(guarded.target, channel_credentials=_credentials(shell.folder, "hmi4")) as client:
            assert (await client.open()).owner == key.id
        async with client_with(guarded.target, channel_credentials=_credentials(shell.folder, "other")) as client:
            assert (await refused(client.open())).reason == "UNAUTHENTICATED"
        guarded.store.revoke(key.id)
        await until(lambda: not guarded.gateway.api.sessions())
        async with client_with(guarded.target, channel_credentials=_credentials(shell.folder, "hmi4")) as client:
            assert (await refused(client.open())).reason == "UNAUTHENTICATED"


def test_a_pattern_that_would_make_each_look_long_and_too_many_of_them_are_refused_in_words(shell: Shell) -> None:
    long = shell.run("keys", "create", "hmi", "--read", "*" + "a" * 127 + "*", code=2)
    longest = shell.run("keys", "create", "hmi", "--read-below", "a" * 1025, code=2)
    many = shell.run("keys", "create", "hmi", *(f"--write=Tank_{number}*" for number in range(101)), code=2)

    assert "128 are allowed" in " ".join(long.stderr.split())
    assert "1024 characters" in " ".join(longest.stderr.split())
    assert "101 are given, 100 are allowed" in " ".join(many.stderr.split())

    shell.run("keys", "create", "hmi", "--read", "*" + "a" * 126 + "*", "--read", "Obj.Arr[]")


def test_keys_at_their_former_place_are_never_replaced_by_an_empty_database(shell: Shell) -> None:
    shell.run("keys", "create", "historian")
    settings = shell.folder / "settings.toml"
    settings.write_text(
        settings.read_text(encoding="utf-8") + f"[gateway]\ndata_dir = '{shell.folder / 'elsewhere'}'\n"
    )

    done = shell.run("keys", "list", code=2)

    before, now = shell.folder / "var" / "acl", shell.folder / "elsewhere" / "acl"

    assert f"{before} exists and {now} does not" in done.stderr
    assert not (shell.folder / "elsewhere").exists()

    (shell.folder / "elsewhere").mkdir()
    (shell.folder / "var" / "acl").rename(shell.folder / "elsewhere" / "acl")

    assert "historian" in shell.run("keys", "list").stdout
