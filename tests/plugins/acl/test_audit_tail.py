"""The end of the audit log as administrators see it: what was recorded, bounded, and safe for a terminal."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.keys import client_with, guarded_gateway

from mxgw_acl import audit_tail
from mxgw_acl.audit_log import AUDIT_FILE, AuditLog, AuditRecord
from mxgw_acl.audit_tail import AuditTail
from mxgw_acl.cli.keys import keys_group
from mxgw_acl.settings import AclSettings
from mxgw_core.api import AuditEntry
from mxgw_core.api.errors import DependencyUnavailable
from mxgw_core.api.files import lock_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / AUDIT_FILE


def write(path: Path, *records: AuditRecord) -> None:
    audit = AuditLog(path, now=lambda: 1.5)
    for record in records:
        audit.write(record)
    audit.close()


def actions(tail: AuditTail, limit: int = 100) -> list[str]:
    return [entry.action for entry in tail.last(limit)]


def test_a_record_comes_back_as_it_was_made(path: Path) -> None:
    write(path, AuditRecord("key:a", "Invoke write", "denied", "why", "10.0.0.1:5", "s1", "line4", "Pump.Speed"))

    assert AuditTail(path).last(10) == (
        AuditEntry(1_500_000_000, "key:a", "Invoke write", "denied", "why", "10.0.0.1:5", "s1", "line4", "Pump.Speed"),
    )


def test_the_newest_come_last_and_no_more_than_asked_for(path: Path) -> None:
    write(path, *(AuditRecord("a", f"action {number}", "done") for number in range(5)))
    tail = AuditTail(path)

    assert actions(tail, 2) == ["action 3", "action 4"]
    assert len(actions(tail, 5)) == 5
    assert actions(tail, 0) == []


def test_what_was_appended_meanwhile_is_there_at_the_next_look(path: Path) -> None:
    tail = AuditTail(path)

    assert tail.last(5) == ()

    write(path, AuditRecord("a", "first", "done"))

    assert actions(tail) == ["first"]
    assert tail.last(100) is tail.last(100)  # nothing new: nothing is read

    write(path, AuditRecord("a", "second", "done"))

    assert actions(tail) == ["first", "second"]


def test_while_the_log_grows_only_what_is_new_is_taken_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_apart: list[bytes] = []
    entry_of = audit_tail._entry

    def counted(line: bytes) -> AuditEntry:
        taken_apart.append(line)
        return entry_of(line)

    monkeypatch.setattr(audit_tail, "_entry", counted)
    tail = AuditTail(path)
    for number in range(50):
        write(path, AuditRecord("a", f"action {number}", "done"))
        tail.last(20)

    assert actions(tail, 20) == [f"action {number}" for number in range(30, 50)]
    assert len(taken_apart) == 50


def test_after_a_rotation_it_is_the_new_file(path: Path) -> None:
    tail = AuditTail(path)
    write(path, AuditRecord("a", "old", "done"))
    tail.last(5)
    path.rename(path.with_suffix(".1"))
    write(path, AuditRecord("a", "new", "done"))

    assert actions(tail) == ["new"]


def test_of_a_file_of_any_size_only_the_end_is_read_and_no_line_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxgw_acl.audit_tail._WINDOW_BYTES", 1000)
    write(path, *(AuditRecord("a", f"action {number}", "done") for number in range(100)))
    found = actions(AuditTail(path))

    assert found[-1] == "action 99"
    assert 3 < len(found) < 10
    assert found == [f"action {number}" for number in range(100 - len(found), 100)]


def test_a_line_that_is_still_being_written_is_left_for_the_next_look(path: Path) -> None:
    write(path, AuditRecord("a", "whole", "done"))
    with path.open("a") as file:
        file.write('{"time": "1970')
        file.flush()

        assert actions(AuditTail(path)) == ["whole"]


def test_what_a_peer_calls_itself_cannot_reach_the_terminal(path: Path) -> None:
    write(path, AuditRecord("operator:\x1b[2J\n\u202eevil\u2028", "login", "denied"))
    (entry,) = AuditTail(path).last(1)

    assert entry.actor == r"operator:\x1b[2J\n\u202eevil\u2028"
    assert entry.actor.isprintable()


def test_a_line_of_somebody_else_is_told_as_such(path: Path) -> None:
    write(path, AuditRecord("a", "ours", "done"))
    with path.open("ab") as file:
        file.write(b"\xff nonsense\n[1]\n{}\n")
    entries = AuditTail(path).last(10)
    why = "no whole record: its process was killed as it wrote, or it is not of this log"

    assert [entry.reason for entry in entries] == ["", why, why, why]


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_what_a_full_disk_took_of_a_record_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    real_write = os.write
    audit = AuditLog(path)
    audit.write(AuditRecord("a", "before", "done"))
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:cut]))
        for _ in range(2):
            with pytest.raises(OSError, match=r"took .* of a record's"):
                audit.write(AuditRecord("a", "torn", "done"))
    audit.write(AuditRecord("a", "after", "done"))
    audit.close()

    assert [json.loads(line)["action"] for line in path.read_bytes().splitlines()] == ["before", "after"]


def test_what_is_taken_back_is_never_what_another_process_wrote_meanwhile(path: Path) -> None:
    audit = AuditLog(path)
    with path.open("ab") as other:
        assert lock_file(other.fileno())

        writing = threading.Thread(target=audit.write, args=[AuditRecord("a", "ours", "done")])
        writing.start()
        other.write(b'{"half a record')
        other.flush()
        writing.join(0.2)

        assert writing.is_alive()

        other.truncate(0)
    writing.join(60)
    audit.close()

    assert [json.loads(line)["action"] for line in path.read_bytes().splitlines()] == ["ours"]


def test_what_a_killed_process_left_is_ended_by_the_next_one(path: Path) -> None:
    write(path, AuditRecord("a", "before", "done"))
    with path.open("ab") as file:
        file.write(b'{"time": "1970')
    write(path, AuditRecord("a", "after", "done"), AuditRecord("a", "last", "done"))

    assert actions(AuditTail(path)) == ["before", "?", "after", "last"]
    assert path.read_bytes().count(b"\n") == 4


def test_a_file_that_cannot_be_read_is_an_error_that_says_so(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DependencyUnavailable, match="audit log cannot be read"):
        AuditTail(path).last(1)


@pytest.mark.asyncio
async def test_a_running_gateway_tells_what_it_and_the_command_line_recorded(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        observation = guarded.gateway.api.observation
        key, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open(tag="line4")).session_id
        settings = AclSettings(directory=guarded.directory)
        done = CliRunner().invoke(keys_group(lambda: settings), ["create", "another", "--json"])

        assert done.exit_code == 0, done.output

        entries = observation.audit_tail(2)

        assert entries is not None
        assert [(e.actor, e.action, e.decision) for e in entries] == [
            (f"key:{key.id}", "session opened", "done"),
            ("command line", "keys create", "done"),
        ]
        assert (entries[0].session_id, entries[0].tag) == (session_id, "line4")
