"""Make a sample of every file that a gateway writes, with the present code, in tests/samples/<version>-<n>.

Run this before a change of the format of a file is merged, on the code without the change. tests/system/test_samples.py
opens each sample with the code of that time. The files of a site must either open, or be refused with a sentence that
says why.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from mxgw_client import MxgwClientError
from mxgw_client import sync as mxgw_client
from mxgw_core.config import schema

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "samples"
MXGW = [sys.executable, "-m", "mxgw_cli"]
# Settings of the sample that differ from their defaults. All other settings are written with their defaults.
CHOSEN: dict[str, dict[str, Any]] = {
    "backends.sim": {"kind": "sim"},
    "backends.line4": {"kind": "opcua", "url": "opc.tcp://127.0.0.1:1", "user": "mxgw"},
    "plugins": {
        "enabled": ["backpressure", "replay", "acl", "reattach", "metrics", "alarms", "dashboard_tui"],
        "required": ["replay"],
    },
    "plugins.metrics": {"listen": "127.0.0.1:0"},
    "plugins.acl": {"environment": "test"},
    "plugins.acl.ldap": {
        "servers": ["ldaps://127.0.0.1:1"],
        "service_dn": "cn=mxgw,dc=plant",
        "user_base": "ou=people,dc=plant",
    },
    "plugins.acl.operators": {"administrators": ["automation"], "viewers": ["shift"]},
    "plugins.acl.group_to_session_tag": {"shift": ["line4"]},
}
SECRETS = '[backends.line4]\npassword = "of line 4"\n\n[plugins.acl.ldap]\nservice_password = "of the directory"\n'


def main() -> int:
    """Make the next sample, and print its directory."""
    number = 1
    while (place := SAMPLES / f"{version('mxgw')}-{number}").exists():
        number += 1
    with tempfile.TemporaryDirectory(prefix="mxgw-sample-", dir="/tmp") as name:
        site = Path(name)
        expected = _use(site)
        place.mkdir(parents=True)
        for path in sorted(site.rglob("*")):
            if path.name in ("settings.toml", ".secrets.toml", "pepper", "audit.jsonl"):
                target = place / path.relative_to(site)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
            elif path.suffix == ".sqlite3":
                _copy_database(path, place / path.relative_to(site))
    (place / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    sys.stdout.write(f"{place}\n")
    return 0


def _use(site: Path) -> dict[str, Any]:
    """Run a gateway in `site` and use it. Return what its files must contain afterwards."""
    (site / "settings.toml").write_text("\n".join(_settings()))
    (site / ".secrets.toml").write_text(SECRETS)
    (site / ".secrets.toml").chmod(0o600)
    create = ("keys", "create", "--json")
    everything = _json(site, *create, "everything", "--scopes", "open,read,write,secured-write,events,all-sessions")
    limits = ("--read", "Tank_*", "--write-below", "Tank_002", "--max-sessions", "2")
    limited = _json(site, *create, "limited", "--scopes", "open,read,write", *limits)
    revoked = _json(site, *create, "revoked")
    _json(site, "keys", "revoke", revoked["id"], "--yes", "--json")
    rotated = _json(site, *create, "rotated")
    rotated_again = _json(site, "keys", "rotate", rotated["id"], "--old-lives", "36500d", "--json")
    target = f"unix:{site}/g.sock"
    gateway = subprocess.Popen(
        [*MXGW, "serve", "--json", "--listen", target], cwd=site, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    workers: list[int] = []
    try:
        assert gateway.stdout is not None
        assert gateway.stdout.readline(), "the gateway did not start"
        with (
            mxgw_client.connect(target, api_key=limited["key"]) as client,
            client.open_session(client_name="limited") as session,
        ):
            session.read("Tank_001.Level")
            with suppress(MxgwClientError):  # the call is refused, which leaves an entry in the audit log
                session.read("Pump_001.Speed")
        with mxgw_client.connect(target, api_key=everything["key"]) as client:
            left = client.open_session(client_name="left behind", tag="line4", keep=True).open()
            left.write_once("Valve_001.PositionSP", 50.0)
            gateway.send_signal(signal.SIGKILL)  # so that the files are as a killed gateway leaves them
            gateway.wait()
    finally:
        gateway.kill()
        gateway.wait()
        database = sqlite3.connect(site / "var/manifest.sqlite3")
        workers = [pid for (pid,) in database.execute("SELECT pid FROM worker") if pid]
        database.close()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    return {
        "keys": {
            "everything": everything["key"],
            "limited": limited["key"],
            "revoked": revoked["key"],
            "rotated, before": rotated["key"],
            "rotated": rotated_again["key"],
        },
        "session": left.session_id,
        "audit_lines": len((site / "var/acl/audit.jsonl").read_text().splitlines()),
    }


def _json(site: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([*MXGW, *arguments], cwd=site, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _settings() -> list[str]:
    """Return the lines of a settings file that contains every setting."""
    lines: list[str] = []
    tables: dict[str, dict[str, Any]] = {".".join(name): values for name, values in _core()}
    for entry in distribution("mxgw").entry_points.select(group="mxgw.plugins"):
        declare = getattr(entry.load()(), "mxgw_settings", None)
        if declare is not None:
            tables.update(_tables(f"plugins.{entry.name}", declare().model))
    for name in (*tables, *(name for name in CHOSEN if name not in tables)):
        lines.append(f"[{name}]")
        for key, value in {**tables.get(name, {}), **CHOSEN.get(name, {})}.items():
            lines.append(f"{key} = {json.dumps(value, default=str)}")
        lines.append("")
    return lines


def _core() -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    found = []
    for section, values in schema.defaults().items():
        given = {key: value for key, value in values.items() if value is not None and not isinstance(value, dict)}
        found.append(((section,), {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()}))
    return found


def _tables(name: str, model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the default values of a settings model and of each model inside it.

    Key: the name of a table of the settings file. Value: the keys and default values of this table.
    """
    tables: dict[str, dict[str, Any]] = {name: {}}
    for key, field in model.model_fields.items():
        inner = schema.model_in(field.annotation)
        if inner is not None:
            tables.update(_tables(f"{name}.{key}", inner))
        elif not field.is_required():
            default = field.get_default(call_default_factory=True)
            if default is not None and not isinstance(default, dict | SecretStr):
                tables[name][key] = list(default) if isinstance(default, tuple) else default
    return tables


def _copy_database(path: Path, target: Path) -> None:
    """Copy a database into one file, together with the content of its write-ahead log."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source, copy = sqlite3.connect(path), sqlite3.connect(target)
    source.backup(copy)
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.close()
    source.close()


if __name__ == "__main__":
    sys.exit(main())
