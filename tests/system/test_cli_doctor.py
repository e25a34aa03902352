"""`mxgw doctor` as a process: workers really start, and what does not work is told with its cure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

MXGW = [sys.executable, "-m", "mxgw_cli"]


def doctor(directory: Path) -> tuple[int, dict[str, dict[str, str]]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
    done = subprocess.run(
        [
            *MXGW,
            "doctor",
            "--json",
            "--set",
            "gateway.data_dir=/tmp/mxgw-doctor",
            "--set",
            "gateway.listen=127.0.0.1:0",
        ],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    document = json.loads(done.stdout)

    assert done.stderr == ""
    assert document["healthy"] == (done.returncode == 0)
    assert all(check["cure"] for check in document["checks"] if check["outcome"] in ("failed", "warning"))
    return done.returncode, {check["title"]: check for check in document["checks"]}


def test_on_a_sound_machine_the_default_backend_starts_and_answers(tmp_path: Path) -> None:
    code, checks = doctor(tmp_path)

    assert code == 0
    assert "worker ready in" in checks["sim (default)"]["detail"]


def test_each_backend_is_tried_and_one_whose_source_is_away_fails_with_its_cure(tmp_path: Path) -> None:
    with socket.socket() as unserved:
        unserved.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = unserved.getsockname()[1]
        (tmp_path / "settings.toml").write_text(
            f'[backends]\ndefault = "sim"\n[backends.sim]\n[backends.line1]\nkind = "opcua"\n'
            f'url = "opc.tcp://127.0.0.1:{port}"\n[backends.typo]\nkind = "simm"\n'
        )
        code, checks = doctor(tmp_path)

    assert code == 1
    assert checks["sim (default)"]["outcome"] == "ok"
    assert checks["line1"]["outcome"] == "failed"
    assert "OPC UA server" in checks["line1"]["cure"]
    assert checks["typo"]["outcome"] == "failed"
    assert "simm" in checks["typo"]["detail"]


def test_settings_that_cannot_be_loaded_are_told_and_the_machine_is_still_checked(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[limits]\nsesions = 3\n")
    code, checks = doctor(tmp_path)

    assert code == 1
    assert "sesions" in checks["problem"]["detail"]
    assert "Python" in checks["versions"]["detail"]


def test_a_person_sees_marks_cures_and_a_verdict(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MXGW, "doctor", "--no-backends", "--set", "gateway.listen=127.0.0.1:1,unix:/nonexistent/g.sock"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert "→ Make it: mkdir" in done.stdout
    assert "✗" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("Not healthy:")
    assert done.returncode == 1
