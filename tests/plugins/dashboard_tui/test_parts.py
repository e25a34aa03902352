"""Figures as text, rates from snapshots, alarms, recordings, the journal: without gateway and without screen."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from support.access import is_private
from support.repository import ROOT
from support.screens import EPOCH_NS, SECOND_NS, Clock, row, snapshot

from mxgw.convert import duration_from_seconds, to_value
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import AuditEntry, SessionInfo, SessionState
from mxgw_dashboard_tui.command import dashboard
from mxgw_dashboard_tui.service.audit import NewEntries
from mxgw_dashboard_tui.service.journal import Journal
from mxgw_dashboard_tui.settings import DashboardSettings
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.credentials import Credentials
from mxgw_dashboard_tui.tui.model import Model
from mxgw_dashboard_tui.tui.recording import NoRecording, Recorder, read_recording
from mxgw_dashboard_tui.tui.widgets.grid import _fit
from mxgw_dashboard_tui.tui.widgets.plot import bars, squeezed


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9999"), (10_000, "10.0k"), (99_960, "100k"), (1_234_567, "1.2M"), (10**13, "10.0T")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert t.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (312, "5m12s"), (11_040, "3h04m"), (1_047_600, "12d3h")],
)
def test_spans_are_short(seconds: float | None, text: str) -> None:
    assert t.span(seconds) == text


def test_text_of_a_peer_is_one_clean_line_of_bounded_length() -> None:
    hostile = "a\x1b[31m\n\r\t\x9b\u202eb\u200b" + "x" * 10_000

    assert t.clean(hostile, 20).isprintable()
    assert len(t.clean(hostile, 20)) == 20


def test_values_read_as_operators_read_them() -> None:
    assert t.value_text(to_value(4294967297.0)) == "4294967297"
    assert t.value_text(to_value([1.5] * 5000), 40).startswith("[5000] 1.5, 1.5")
    assert t.value_text(to_value("[red]\x07")) == "[red]\N{REPLACEMENT CHARACTER}"
    assert t.value_text(to_value(None)) == "-"


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_a_cell_is_exactly_as_wide_as_its_column_whatever_the_script(width: int) -> None:
    for text in ("", "abc", "日本語のクライアント", "x" * 50):
        assert cell_len(_fit(text, width, right=False)) == width
        assert cell_len(_fit(text, width, right=True)) == width


def test_bars_have_the_size_they_were_given_and_reach_the_top_at_the_largest_value() -> None:
    lines = bars([0, 1, 2, 4], width=6, height=2)

    assert [len(line) for line in lines] == [6, 6]
    assert lines[0][-1] == lines[1][-1] == "█"
    assert lines[1].strip()[0] == "▁"


def test_a_plot_has_room_for_all_of_the_past_and_moves_to_the_left_only() -> None:
    values = [float(n % 17) for n in range(700)]
    pictures = [squeezed(values[gone : gone + 600], 40, gone) for gone in range(100)]

    assert all(len(picture) <= 40 for picture in pictures)
    assert all(max(picture) == 16 for picture in pictures)
    for earlier, later in pairwise(pictures):
        assert later[1:-1] in (earlier[1 : len(later) - 1], earlier[2 : len(later)])


def test_credentials_are_due_at_half_of_their_life_and_never_without_a_login() -> None:
    clock = Clock()

    async def is_due(credentials: Credentials) -> bool:
        try:
            async with asyncio.timeout(0.01):
                await credentials.due()
        except TimeoutError:
            return False
        return True

    async def told() -> list[bool]:
        credentials = Credentials(clock)
        seen = [await is_due(credentials)]
        credentials.begin("token", 100.0)
        seen.append(await is_due(credentials))
        clock.now += 50
        seen.append(await is_due(credentials))
        credentials.postpone(10)
        seen.append(await is_due(credentials))
        credentials.forget()
        clock.now += 1000
        seen.append(await is_due(credentials))
        credentials.begin("token of no known life", 0.0)
        seen.append(await is_due(credentials))
        return seen

    assert asyncio.run(told()) == [False, False, True, False, False, False]


def test_the_audit_tail_tells_each_entry_once_and_says_when_some_are_missing() -> None:
    entries = [AuditEntry(time_ns=n, actor="key:a", action="write", decision="allowed") for n in range(10)]
    new = NewEntries()
    window = entries[:4]

    assert new.of(window) == (entries[:4], False)
    assert new.of(window) == ((), False)
    assert new.of(entries[2:6]) == (entries[4:6], False)
    assert new.of(entries[7:]) == (entries[7:], True)
    assert new.of(()) == ((), False)


def model() -> Model:
    clock = Clock()
    return Model(clock, lambda: clock.now)


def test_a_rate_is_what_the_worker_counted_between_two_looks() -> None:
    made = model()
    made.take(snapshot(0, [row("a", 1, head_sequence=1_000)]))
    view = made.take(snapshot(4, [row("a", 1, head_sequence=1_200)]))

    assert view.sessions[0].rate == 50


def test_another_epoch_begins_a_rate_anew() -> None:
    made = model()
    first, second = row("a", 1, head_sequence=1_000), row("a", 1, head_sequence=2_000)
    second.session.epoch = b"y" * 16
    made.take(snapshot(0, [first]))

    assert made.take(snapshot(1, [second])).sessions[0].rate is None


def test_losses_are_counted_from_the_first_look_on_and_by_the_minute() -> None:
    made = model()
    views = [made.take(snapshot(s, [row("a", 1, seconds=s, lost_events=1000 + s)])) for s in range(100)]

    assert views[0].lost_per_min == 0
    assert views[30].lost_per_min == 30
    assert views[99].lost_per_min == 60


def test_a_restarted_gateway_is_not_compared_with_its_earlier_run() -> None:
    made = model()
    made.take(snapshot(0))
    other = snapshot(1)
    other.instance_id = "another run"
    view = made.take(other)

    assert all(session.rate is None for session in view.sessions)
    assert len(view.points) == 1


def test_journal_entries_are_kept_once_and_in_order() -> None:
    made = model()
    made.take(snapshot(0))
    view = made.take(snapshot(1))

    assert [entry.number for entry in view.journal] == [1, 2, 3, 4]


def test_a_journal_does_not_keep_the_snapshots_alive_that_it_came_with() -> None:
    def resident() -> int:
        return psutil.Process().memory_info().rss

    made = model()
    made.take(snapshot(0))
    before = resident()
    for seconds in range(1, 150):
        # Two megabytes of other things beside one entry.
        big = snapshot(seconds, [row(f"s{n}", n, seconds=seconds, tag="x" * 20_000) for n in range(100)])
        del big.journal[:]
        big.journal.add(number=100 + seconds, detail="one entry")
        made.take(pb.WatchGatewayResponse.FromString(big.SerializeToString()))

    assert len(made.view.journal if made.view is not None else ()) == 153
    assert resident() - before < 100 * 1024 * 1024


def test_alarms_stand_before_warnings_and_name_their_place() -> None:
    made = model()
    view = [made.take(snapshot(seconds)) for seconds in range(6)][-1]
    told = [(alarm.severity, alarm.where) for alarm in view.alarms]

    assert [severity for severity, _ in told] == sorted((s for s, _ in told), key=lambda s: s != "ALARM")
    assert {"gateway", "site-rules", "energy report", "lab import", "pump tuning"} <= {where for _, where in told}


def test_a_quiet_gateway_has_no_alarm() -> None:
    quiet = snapshot(0, [row("fine", 1)])
    quiet.ClearField("plugins")
    quiet.ClearField("ended")

    assert not model().take(quiet).alarms

    quiet.memory_bytes = quiet.memory_limit_bytes

    assert "limits.memory_bytes" in next(alarm.text for alarm in model().take(quiet).alarms)


def test_what_was_recorded_is_played_back_as_it_was(tmp_path: Path) -> None:
    clock = Clock()
    recorder = Recorder(tmp_path / "r.jsonl", clock)
    for seconds in range(3):
        recorder.snapshot(snapshot(seconds))
        clock.now += 1
    recorder.close()
    played = list(read_recording(tmp_path / "r.jsonl"))

    assert [at_s for at_s, _ in played] == [0.0, 1.0, 2.0]
    assert [message for _, message in played] == [snapshot(seconds) for seconds in range(3)]
    assert is_private(tmp_path / "r.jsonl")


def test_a_recording_that_was_cut_off_ends_where_it_is_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.jsonl", Clock())
    recorder.snapshot(snapshot(0))
    recorder.snapshot(snapshot(1))
    recorder.close()
    whole = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-10])

    assert len(list(read_recording(tmp_path / "cut.jsonl"))) == 1


@pytest.mark.parametrize("content", ["", "{}\n", "no json\n", '{"format":"mxgw-dashboard-recording","version":99}\n'])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "f").write_text(content)

    with pytest.raises(NoRecording):
        list(read_recording(tmp_path / "f"))


def test_a_recording_never_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")

    with pytest.raises(NoRecording, match="new file"):
        Recorder(tmp_path / "mine", Clock())

    assert (tmp_path / "mine").read_text() == "precious"


def info(name: str, tag: str = "") -> SessionInfo:
    return SessionInfo(
        session_id=name,
        state=SessionState.READY,
        owner="me",
        client_name=name,
        tag=tag,
        backend="sim",
        opened_at=EPOCH_NS / SECOND_NS,
        epoch=b"e",
        head_sequence=0,
        oldest_sequence=1,
        subscribers=0,
        worker_pid=1,
    )


def test_the_journal_keeps_the_newest_and_shows_each_who_may_see_the_session() -> None:
    journal = Journal(limit=3)
    for name in ("a", "b", "c", "d"):
        journal.add(pb.JOURNAL_KIND_SESSION_OPENED, info(name, tag=name), "")
    journal.add(pb.JOURNAL_KIND_OPERATOR_ACTION, info("d", tag="d"), "closed the session", "anna")

    def numbers(administrator: bool, *tags: str) -> list[int]:
        return [e.number for e in journal.after(0, lambda session: session.tag in tags, administrator=administrator)]

    assert numbers(True, "a", "b", "c", "d") == [3, 4, 5]
    assert numbers(False, "c", "d") == [3, 4]
    assert numbers(True, "c") == [3]
    assert [e.number for e in journal.after(4, lambda _: True, administrator=True)] == [5]


def test_lag_of_more_than_five_seconds_is_an_alarm() -> None:
    late = row("slow", 1, lag_events=10, lag_age=duration_from_seconds(5.1))
    fine = row("quick", 2, lag_events=10, lag_age=duration_from_seconds(4.9))
    where = {alarm.where for alarm in model().take(snapshot(0, [late, fine])).alarms}

    assert "slow" in where
    assert "quick" not in where


def test_the_page_has_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "dashboard.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `?\"?([\w.]+)\"?`? \|", page, re.MULTILINE))

    assert rows == {name: str(field.default) for name, field in DashboardSettings.model_fields.items()}


def test_the_pictures_of_the_page_are_of_the_app_as_it_is_and_load_nothing() -> None:
    specification = importlib.util.spec_from_file_location("generate_images", ROOT / "scripts" / "generate_images.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    page = (ROOT / "docs" / "dashboard.md").read_text("utf-8")
    for path, picture in module.pictures():
        assert path.read_text("utf-8") == picture, f"{path.name} is out of date; run: make docs"
        assert f"images/{path.name}" in page
        assert not re.findall(r"url\(.?http", picture)


def test_without_a_terminal_the_command_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTUAL_DRIVER", raising=False)
    result = CliRunner().invoke(dashboard, ["--connect", "127.0.0.1:1"])

    assert (result.exit_code, "needs a terminal" in result.output) == (1, True)


def test_a_key_is_sent_until_somebody_has_logged_in_and_again_afterwards() -> None:
    credentials = Credentials(Clock(), "the-key")
    sent = [credentials.metadata]
    credentials.begin("token", 100.0)
    sent.append(credentials.metadata)
    credentials.forget()
    sent.append(credentials.metadata)

    assert [value for pairs in sent for _, value in pairs] == ["Bearer the-key", "Bearer token", "Bearer the-key"]
    assert Credentials(Clock()).metadata == ()
