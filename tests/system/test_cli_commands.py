"""read, write, stream, browse and sessions against a gateway in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support.command_line import run_mxgw

MXGW = [sys.executable, "-m", "mxgw_cli"]


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A gateway with the simulated plant, for all tests here."""
    with (
        tempfile.TemporaryDirectory(prefix="mxgw-cli-", dir="/tmp") as name,
        subprocess.Popen(
            [*MXGW, "serve", "--json", "--listen", f"unix:{name}/g.sock", "--set", f"gateway.data_dir={name}/data"],
            cwd=name,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["addresses"][0]
        finally:
            process.terminate()


def mxgw(target: str, *arguments: str) -> Result:
    return run_mxgw(*arguments, MXGWCLI_GATEWAY=target, COLUMNS="200")


def streaming(target: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MXGW, "stream", *arguments],
        env={**os.environ, "MXGWCLI_GATEWAY": target, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_read_shows_values_and_why_one_has_none(target: str) -> None:
    done = mxgw(target, "read", "Tank_001.Capacity", "Tank_001.Nowhere")

    assert done.exit_code == 1
    assert "good" in done.stdout
    assert "invalid attribute id" in done.stdout
    assert done.stderr == ""


def test_read_as_json_is_one_document_in_the_order_asked_for(target: str) -> None:
    done = mxgw(target, "read", "--json", "Bench_001.Counts[]", "Bench_001.Flag")
    readings = json.loads(done.stdout)

    assert done.exit_code == 0
    assert [reading["tag"] for reading in readings] == ["Bench_001.Counts[]", "Bench_001.Flag"]
    assert isinstance(readings[0]["value"], list)
    assert isinstance(readings[1]["value"], bool)
    assert all(reading["quality"] == "good" and reading["raw_quality"] == 192 for reading in readings)


def test_a_write_arrives_and_each_failure_is_told_in_words(target: str) -> None:
    done = mxgw(
        target,
        "write",
        "Bench_001.Text=0042",
        "Bench_001.SecuredWrite=1",
        "Bench_001.Percent=200",
        "Bench_001.Count=abc",
    )
    read = mxgw(target, "read", "--json", "Bench_001.Text")
    lines = done.stdout.splitlines()

    assert done.exit_code == 1
    assert lines[0].endswith("written")
    assert "one authenticated user" in lines[1]
    assert "outside the attribute's range" in lines[2]
    assert "'abc' is no integer" in lines[3]
    # Each session of the simulator is a plant of its own, so what was written is gone with the session.
    assert read.exit_code == 0


def test_a_write_in_a_session_is_there_for_the_next_command(target: str) -> None:
    with streaming(target, "Bench_001.Count", "--json") as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["type"] == "opened"
            session_id = json.loads(mxgw(target, "sessions", "--json").stdout)[-1]["session_id"]
            written = mxgw(target, "write", "--json", "--session", session_id[:10], "Bench_001.Count=0x2A")
            read = mxgw(target, "read", "--json", "--session", session_id, "Bench_001.Count")
            assert json.loads(written.stdout)[0]["outcome"] == "written"
            value = next(v for line in process.stdout if (v := json.loads(line).get("value")) == 42)
        finally:
            process.send_signal(signal.SIGINT)

    assert (json.loads(read.stdout)[0]["value"], value) == (42, 42)


def test_a_stream_ends_after_the_events_asked_for_and_goes_on_after_its_position(target: str) -> None:
    done = mxgw(target, "stream", "Tank_001.Level", "Boiler_001.Fuel", "--count", "5", "--json")
    lines = documents(done.stdout)

    assert done.exit_code == 0
    assert [line["type"] for line in lines] == ["opened", *["event"] * 5, "end"]
    assert [line["sequence"] for line in lines[1:-1]] == [1, 2, 3, 4, 5]
    assert lines[-1]["reason"] == "count"
    assert lines[-1]["position"] == lines[-2]["position"]


def test_a_stream_asks_for_a_policy_with_parameters(target: str) -> None:
    tag = "Tank_001.Level"
    done = mxgw(target, "stream", tag, "--count", "1", "--json", "--policy", "disconnect", "--policy-parameter", "a=b")
    refused = mxgw(target, "stream", tag, "--policy", "acme")

    assert documents(done.stdout)[0]["policy"] == "disconnect"
    assert refused.exit_code == 1
    assert "no plugin of this gateway brings the overflow policy 'acme'" in refused.stderr


def test_a_stream_ends_after_the_time_asked_for_and_another_goes_on_after_its_position(target: str) -> None:
    with streaming(target, "Tank_001.Level", "--json", "--duration", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        session_id = json.loads(mxgw(target, "sessions", "--json").stdout)[-1]["session_id"]
        first = documents(process.stdout.read())
        code = process.wait(timeout=60)
    gone = mxgw(target, "stream", "--session", session_id, "--start", f"after:{first[-1]['position']}")

    assert (code, first[-1]["reason"]) == (0, "duration")
    assert gone.exit_code == 1  # the session ended with the command that opened it, and that is said
    assert "ended" in gone.stderr


def test_a_line_per_event_is_aligned_and_the_end_is_on_stderr(target: str) -> None:
    done = mxgw(target, "stream", "Tank_001.Level", "Boiler_001.Pressure", "--count", "4")
    lines = done.stdout.splitlines()

    assert len(lines) == 4
    assert len({line.index("good") if "good" in line else line.index("bad") for line in lines}) == 1
    assert "4 events were asked for" in done.stderr
    assert "Position: mxgw1." in done.stderr


def test_ctrl_c_ends_a_stream_with_130_and_its_session_with_it(target: str) -> None:
    with streaming(target, "Tank_001.Level") as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = len(json.loads(mxgw(target, "sessions", "--json").stdout))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait(timeout=60)
    after = len(json.loads(mxgw(target, "sessions", "--json").stdout))

    assert code == 130
    assert "Traceback" not in errors
    assert (before, after) == (1, 0)


def test_head_has_enough_without_a_complaint(target: str) -> None:
    with streaming(target, "Tank_001.Level", "Boiler_001.Fuel") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait(timeout=60)

    assert (code, errors) == (0, "")


def test_closing_a_session_asks_ends_its_streams_and_tells_why(target: str) -> None:
    with streaming(target, "Tank_001.Level", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        session_id = json.loads(mxgw(target, "sessions", "--json").stdout)[-1]["session_id"]
        unasked = mxgw(target, "sessions", "close", session_id)
        closed = mxgw(target, "sessions", "close", session_id[:12], "--yes")
        rest = process.stdout.read()
        code = process.wait(timeout=60)
    shown = mxgw(target, "sessions", session_id, "--json")
    listed = mxgw(target, "sessions", "--all")

    assert (unasked.exit_code, closed.exit_code, code) == (2, 0, 1)
    assert "--yes" in unasked.stderr
    assert documents(rest)[-1]["type"] == "end"
    assert documents(rest)[-1]["reason"] in ("session_closed", "client")
    assert json.loads(shown.stdout)["state"] == "closed"
    assert session_id in listed.stdout


def test_a_session_is_shown_with_its_worker_and_items(target: str) -> None:
    with streaming(target, "Tank_001.Level") as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            listed = json.loads(mxgw(target, "sessions", "--json").stdout)[-1]
            shown = mxgw(target, "sessions", listed["session_id"], "--json")
            text = mxgw(target, "sessions", listed["session_id"])
        finally:
            process.send_signal(signal.SIGINT)
    document = json.loads(shown.stdout)

    assert listed["rss_bytes"] > 1_000_000
    assert document["worker"]["pid"] == listed["worker_pid"]
    assert document["items"][0]["tag"] == "Tank_001.Level"
    assert "Tank_001.Level  (advised)" in text.stdout


def test_browse_draws_a_tree_and_its_json_has_every_reference(target: str) -> None:
    tree = mxgw(target, "browse", "--depth", "2")
    filtered = mxgw(target, "browse", "--depth", "9", "--filter", "LEVEL", "--json")
    nothing = mxgw(target, "browse", "--filter", "no such thing")

    assert "└── " in tree.stdout
    assert "TankFarm" in tree.stdout
    assert "Tank_001.Level" in [node["reference"] for node in documents(filtered.stdout)]
    assert all("level" in node["name"].lower() for node in documents(filtered.stdout))
    assert nothing.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["read", "X", "--gateway", "unix:/nonexistent/g.sock"], 3, "mxgw serve"),
        (["read", "X", "--gateway", "127.0.0.1:1", "--timeout", "2"], 3, "no gateway answered"),
        (["read", "X", "--gateway", "http://x"], 2, "URL"),
        (["read", "X", "--backend", "nowhere"], 1, "nowhere"),
        (["stream"], 2, "TAG"),
        (["stream", "X", "--start", "yesterday"], 2, "after:POSITION"),
        (["stream", "X", "--session", "zzzz"], 1, "no session zzzz"),
        (["write", "X"], 2, "TAG=VALUE"),
        (["read", "X", "--api-key-file", "/nonexistent/key"], 2, "No such file"),
        (["read", "X", "--cert", "a.pem"], 2, "--key"),
        (["sessions", "show", "zzzz"], 1, "no session zzzz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_a_sentence_with_its_exit_code(
    target: str, arguments: list[str], code: int, says: str
) -> None:
    done = mxgw(target, *arguments)

    assert done.exit_code == code
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_api_key_never_shows(target: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("mxgw_k1_supersecret\n")
    key.chmod(0o600)
    done = mxgw(target, "read", "Bench_001.Flag", "--api-key-file", str(key))
    refused = mxgw("10.255.255.1:50051", "read", "X", "--api-key-file", str(key))

    assert done.exit_code == 0
    assert refused.exit_code == 2
    assert "supersecret" not in done.stdout + done.stderr + refused.stdout + refused.stderr


@pytest.mark.parametrize("option", ["--api-key-file", "--key"])
def test_a_secret_that_other_users_may_read_is_refused_before_it_is_used(
    target: str, option: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("mxgw_k1_supersecret\n")
    key.chmod(0o644)
    certificate = ["--ca", str(key), "--cert", str(key)] if option == "--key" else []
    done = mxgw(target, "read", "Bench_001.Flag", *certificate, option, str(key))

    assert done.exit_code == 2
    assert "other users may read it (mode 0644); run: chmod 600" in done.stderr
    assert "supersecret" not in done.stdout + done.stderr
