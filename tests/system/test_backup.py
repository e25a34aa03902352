"""Backup and restore beside gateways that run, and a service that starts as documented."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from click.testing import Result
from support.clients import refused
from support.command_line import run_mxgw
from support.keys import client_with
from support.plugins import InstallPlugin
from support.repository import ROOT
from support.restarts import Restarts, restarts
from support.waiting import until

from mxgw.v1 import session_service_pb2 as ss
from mxgw_cli.backup.run import make_backup
from mxgw_cli.options import SettingsChoice
from mxgw_cli.restore.run import restore_backup
from mxgw_cli.shell import CliFailure
from mxgw_core.api import BackupEntry, BackupKind, hookimpl

MXGW = [sys.executable, "-m", "mxgw_cli"]
SETTINGS = """
[gateway]
data_dir = "d"
[plugins]
enabled = ["acl", "reattach"]
[plugins.acl]
environment = "test"
"""


# Runs `mxgw` and signals it as the second file was written to the disk.
CUT = """
import os, sys
from mxgw_cli.main import main

number = int(sys.argv.pop(1))
fsync, left = os.fsync, [2]

def cut(descriptor):
    fsync(descriptor)
    left[0] -= 1
    if not left[0] or "backup" in sys.argv:
        print("cut here", flush=True)
        os.kill(os.getpid(), number)

os.fsync = cut
main()
"""


def mxgw(directory: Path, *arguments: str, code: int = 0) -> Result:
    done = run_mxgw(*arguments, folder=directory)

    assert done.exit_code == code, done.stdout + done.stderr

    return done


def process(directory: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `mxgw` as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
    done = subprocess.run(
        [*MXGW, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == code, done.stdout + done.stderr

    return done


def said(directory: Path, *arguments: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(mxgw(directory, *arguments, "--json").stdout)
    return document


def toml_of(page: str) -> str:
    """Return the first settings that a page shows."""
    found = re.search(r"^```toml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)

    assert found is not None

    return found[1]


def instance_of(data: Path) -> str:
    db = sqlite3.connect(data / "manifest.sqlite3")
    try:
        (instance,) = db.execute("SELECT instance FROM gateway").fetchone()
        return str(instance)
    finally:
        db.close()


def secrets_of(data: Path) -> list[bytes]:
    db = sqlite3.connect(data / "manifest.sqlite3")
    try:
        return [secret for (secret,) in db.execute("SELECT secret FROM worker")]
    finally:
        db.close()


async def refused_again_and_again(target: str, key: str, refusals: list[int]) -> None:
    """Let the audit log grow: each call is refused, and recorded."""
    async with client_with(target, key) as client:
        while True:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.sessions.OpenSession(ss.OpenSessionRequest(client_name="x"))
            refusals.append(1)


@pytest.mark.asyncio
async def test_what_is_backed_up_while_a_gateway_runs_is_another_gateway_when_it_is_restored() -> None:
    async with restarts(SETTINGS) as new, restarts(SETTINGS) as old:
        (old.directory / ".secrets.toml").write_text('[backends.other]\nkind = "opcua"\npassword = "canary"\n')
        (old.directory / ".secrets.toml").chmod(0o600)
        (old.directory / "settings.toml").write_text(SETTINGS + '[backends]\ndefault = "sim"\n[backends.sim]\n')
        good = said(old.directory, "keys", "create", "good")
        revoked = said(old.directory, "keys", "create", "revoked")
        mxgw(old.directory, "keys", "revoke", revoked["id"], "--yes")
        reader = said(old.directory, "keys", "create", "reader", "--scopes", "read")
        await old.start()
        async with client_with(old.target, good["key"]) as client:
            session = (await client.open()).session_id
            refusals: list[int] = []
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(refused_again_and_again(old.target, reader["key"], refusals))
                await until(lambda: bool(refusals))
                backup = await asyncio.to_thread(process, old.directory, "backup", "b.tar", "--json")
                made = json.loads(backup.stdout)
                writing.cancel()

            assert {member["name"]: member["kind"] for member in made["members"]} == {
                "data/acl/keys.sqlite3": "database",
                "data/acl/pepper": "file",
                "data/acl/audit.jsonl": "lines",
                "data/manifest.sqlite3": "database",
                "settings/settings.toml": "file",
                "settings/.secrets.toml": "file",
            }

            archive = old.directory / "b.tar"

            assert archive.stat().st_mode & 0o777 == 0o600
            assert [path.name for path in old.directory.iterdir() if path.name.startswith(".mxgw-backup")] == []
            assert secrets_of(old.data)
            assert not [secret for secret in secrets_of(old.data) if secret in archive.read_bytes()]

            for directory in (new.data, new.directory / "again"):
                mxgw(new.directory, "restore", str(archive), "--set", f"gateway.data_dir={directory}")
            modes = {path.name: path.stat().st_mode & 0o777 for path in new.data.rglob("*") if path.is_file()}

            assert set(modes.values()) == {0o600}
            assert {path.stat().st_mode & 0o777 for path in new.data.rglob("*") if path.is_dir()} == {0o700}
            assert "canary" in (new.data / "restored-settings" / ".secrets.toml").read_text()

            before = (new.data / "acl" / "audit.jsonl").read_text()

            assert before.endswith("\n")
            assert [json.loads(line)["decision"] for line in before.splitlines()].count("denied") >= 1
            assert (old.data / "acl" / "audit.jsonl").read_text().startswith(before)

            await new.start()
            try:
                async with client_with(new.target, good["key"]) as restored:
                    gone = await refused(restored.register(session))
                    await restored.close((await restored.open()).session_id)
                async with client_with(new.target, revoked["key"]) as restored:
                    dead = await refused(restored.open())
            finally:
                await new.terminate()

            assert (dead.reason, gone.reason) == ("UNAUTHENTICATED", "SESSION_GONE")

            assert (new.data / "acl" / "audit.jsonl").read_text().startswith(before)
            assert len(old.workers()) == 1, "no worker of the old gateway was touched"
            assert await client.register(session)

        again = Restarts(new.directory, SETTINGS)
        again.data = new.directory / "again"
        await again.start()
        await again.terminate()

        assert len({instance_of(old.data), instance_of(new.data), instance_of(again.data)}) == 3


def test_nothing_is_overwritten_unasked_and_no_fresh_directory_is_needed_to_find_out() -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        site = Path(name)
        (site / "settings.toml").write_text(SETTINGS)
        said(site, "keys", "create", "one")
        mxgw(site, "backup", "b.tar")
        first = (site / "b.tar").read_bytes()

        assert "exists" in mxgw(site, "backup", "b.tar", code=1).stderr
        assert (site / "b.tar").read_bytes() == first

        said(site, "keys", "create", "two")
        mxgw(site, "backup", "--force", "b.tar")

        assert (site / "b.tar").read_bytes() != first
        assert "is not empty" in mxgw(site, "restore", "b.tar", code=1).stderr
        assert len(json.loads(mxgw(site, "keys", "list", "--json").stdout)) == 2


def test_nothing_is_replaced_that_is_no_regular_file_or_that_the_gateway_uses() -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        site = Path(name)
        (site / "tls.pem").write_text("a certificate")
        (site / "settings.toml").write_text(SETTINGS)
        (site / ".secrets.toml").write_text("")
        (site / ".secrets.toml").chmod(0o600)
        said(site, "keys", "create", "one")
        (site / "kept.tar").write_text("kept")
        (site / "link.tar").symlink_to("kept.tar")
        (site / "here").symlink_to("d")
        os.mkfifo(site / "pipe.tar")
        before = {path: path.lstat() for path in site.rglob("*")}
        tls = [f"--set=tls.{key}={site / 'tls.pem'}" for key in ("certificate", "private_key")]
        for file, why in {
            "link.tar": "is not a regular file",
            "pipe.tar": "is not a regular file",
            "-": "not written to stdout",
            "d/acl/keys.sqlite3": "is inside gateway.data_dir",
            "d/lock": "is inside gateway.data_dir",
            "here/new.tar": "is inside gateway.data_dir",
            "settings.toml": "is a settings file",
            ".secrets.toml": "is a settings file",
            "tls.pem": "is the file of tls.certificate",
        }.items():
            assert why in mxgw(site, "backup", "--force", *tls, "--", file, code=1).stderr
        after = {path: path.lstat() for path in site.rglob("*")}

        assert {path: (s.st_ino, s.st_mtime_ns) for path, s in after.items()} == {
            path: (s.st_ino, s.st_mtime_ns) for path, s in before.items()
        }


def test_a_disk_that_has_no_room_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        site = Path(name)
        (site / "settings.toml").write_text(SETTINGS)
        said(site, "keys", "create", "one")
        # To SQLite the limit is what a full disk is: a write that fails.
        limited = ["prlimit", "--fsize=4096", "--", *MXGW, "backup", "b.tar"]
        done = subprocess.run(limited, cwd=site, capture_output=True, text=True, check=False)

        assert done.returncode == 1
        assert "a database cannot be copied" in done.stderr
        assert "Is there room?" in done.stderr
        assert sorted(path.name for path in site.iterdir()) == ["d", "settings.toml"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_what_is_cut_off_leaves_nothing_that_could_be_taken_for_the_whole(command: str, number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        site = Path(name)
        (site / "settings.toml").write_text(SETTINGS)
        said(site, "keys", "create", "one")
        mxgw(site, "backup", "b.tar")
        (site / "cut.py").write_text(CUT)
        there = ["--set", "gateway.data_dir=new"]
        arguments = ["backup", "c.tar"] if command == "backup" else ["restore", "b.tar", *there]
        done = subprocess.run(
            [sys.executable, "cut.py", str(int(number)), *arguments],
            cwd=site,
            capture_output=True,
            text=True,
            check=False,
        )

        assert "cut here" in done.stdout, done.stdout + done.stderr
        assert done.returncode == (143 if number is signal.SIGTERM else -number)
        assert not (site / "c.tar").exists()

        if number is signal.SIGTERM:
            assert sorted(path.name for path in site.iterdir() if path.name != "new") == [
                "b.tar",
                "cut.py",
                "d",
                "settings.toml",
            ]
            assert command == "backup" or list((site / "new").iterdir()) == []
        elif command == "restore":
            assert "was cut off" in process(site, "serve", "--listen", "127.0.0.1:0", *there, code=1).stderr
        if command == "restore":
            mxgw(site, "restore", "b.tar", *there)

            assert sorted(path.name for path in (site / "new").iterdir()) == [
                "acl",
                "lock",
                "logs",
                "restored-settings",
                "run",
            ]


@pytest.mark.asyncio
async def test_a_directory_that_a_gateway_uses_is_refused() -> None:
    async with restarts(SETTINGS) as gateway:
        await gateway.start()
        mxgw(gateway.directory, "backup", "b.tar")

        assert "a gateway (pid" in mxgw(gateway.directory, "restore", "b.tar", code=1).stderr


def test_a_torn_last_line_is_left_out_and_a_missing_pepper_stops_it() -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        site = Path(name)
        (site / "settings.toml").write_text(SETTINGS)
        said(site, "keys", "create", "one")
        audit = site / "d" / "acl" / "audit.jsonl"
        whole = audit.read_bytes()
        with audit.open("ab") as file:
            file.write(b'{"time": "' + b"x" * 3_000_000)
        mxgw(site, "backup", "b.tar")
        with tarfile.open(site / "b.tar") as archive:
            copied = archive.extractfile("data/acl/audit.jsonl")

            assert copied is not None
            assert copied.read() == whole

        (site / "d" / "acl" / "pepper").unlink()

        assert "is missing" in mxgw(site, "backup", "c.tar", code=1).stderr
        assert not (site / "c.tar").exists()


class Stranger:
    def __init__(self, *entries: BackupEntry) -> None:
        self.entries = entries
        self.data_dir: Path | None = None

    @hookimpl
    def mxgw_backup(self, data_dir: Path) -> Sequence[BackupEntry]:
        self.data_dir = data_dir
        return self.entries


def drops_what_is_not_there(copy: sqlite3.Connection) -> None:
    copy.execute("DROP TABLE secrets")


class Broken:
    @hookimpl
    def mxgw_backup(self) -> Sequence[BackupEntry]:
        raise RuntimeError("the disk is on fire")


def test_hook_mxgw_backup_brings_files_of_any_plugin_and_a_broken_one_stops_it(
    install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "outside").write_text("mine")
    (tmp_path / "d" / "run").mkdir(parents=True)
    (tmp_path / "d" / "run" / "socket").touch()
    stranger = Stranger(BackupEntry(tmp_path / "other" / "outside"))
    install_plugin("stranger", stranger)
    install_plugin("broken", Broken())
    sqlite3.connect(tmp_path / "other" / "database").close()
    entry = BackupEntry(tmp_path / "other" / "database", BackupKind.DATABASE, drops_what_is_not_there)
    install_plugin("careless", Stranger(entry))
    install_plugin("hasty", Stranger(replace(entry, prepare=lambda _: sys.exit(3))))
    install_plugin("hookless", object())
    install_plugin("reserved", Stranger(BackupEntry(tmp_path / "d" / "run" / "socket")))

    def choice(*enabled: str, data_dir: str = "d") -> SettingsChoice:
        return SettingsChoice(None, {"gateway.data_dir": data_dir, "plugins.enabled": ",".join(enabled)})

    make_backup(choice("stranger"), tmp_path / "b.tar", replace=False, as_json=False)

    assert stranger.data_dir == tmp_path / "d"

    restore_backup(choice(data_dir="new"), tmp_path / "b.tar", as_json=False)

    assert (tmp_path / "new" / "stranger" / "outside").read_text() == "mine"
    assert f"was at {tmp_path}/other/outside, outside gateway.data_dir" in capsys.readouterr().out

    with pytest.raises(CliFailure, match="where plugin stranger keeps files"):
        make_backup(choice("stranger"), tmp_path / "other" / "b.tar", replace=False, as_json=False)

    for enabled, why in {
        ("stranger", "broken"): "plugin broken cannot say .*: mxgw_backup raised RuntimeError: the disk is on fire",
        ("careless",): "plugin careless cannot prepare the copy of .*: prepare raised OperationalError: no such table",
        ("hasty",): "plugin hasty cannot prepare the copy of .*/database: prepare raised SystemExit: 3",
        ("not_installed",): "so their files would be missing:\n.*'not_installed' cannot be used",
        ("hookless",): "plugin hookless cannot be loaded, so its files would be missing",
        ("reserved",): "the gateway makes a file of this name itself",
    }.items():
        with pytest.raises(CliFailure, match=why):
            make_backup(choice(*enabled), tmp_path / "c.tar", replace=False, as_json=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "d", "new", "other"]


def test_the_documented_service_starts_with_the_documented_access_control() -> None:
    unit = (ROOT / "contrib/systemd/mxgw.service").read_text()
    program = "/opt/mxgw/.venv/bin/mxgw"
    commands = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart")]

    assert len(commands) == 2
    assert all(command.startswith(program) for command in commands)

    with tempfile.TemporaryDirectory(prefix="mxgw-b-", dir="/tmp") as name:
        work, state = Path(name, "etc"), Path(name, "state")
        work.mkdir()
        operations = toml_of("docs/operations.md").replace("/var/lib/mxgw", str(state))
        listen = f'listen = ["unix:{name}/g.sock"]\n'
        (work / "settings.toml").write_text(operations + listen + toml_of("docs/securing.md"))
        work.chmod(0o555)
        check, serve = ([*MXGW, *shlex.split(command)[1:]] for command in commands)
        subprocess.run(check, cwd=work, check=True, stdout=subprocess.DEVNULL)
        with subprocess.Popen([*serve, "--json"], cwd=work, stdout=subprocess.PIPE) as gateway:
            try:
                assert gateway.stdout is not None
                assert json.loads(gateway.stdout.readline())["ready"]
            finally:
                gateway.terminate()

        assert gateway.returncode == 0
        assert (state / "acl" / "keys.sqlite3").exists()
        # Of a user whom no mode stops, too: nothing was made there.
        assert [path.name for path in work.iterdir()] == ["settings.toml"]
