"""Sessions as a table, in detail, and as JSON."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from mxgw_cli.sessions.view import session_detail, session_document, sessions_table
from mxgw_client import AdviseKind, CloseReason, Item, ItemState, Position, SessionState, SourceHealth, WorkerState
from mxgw_client.enums import Quality
from mxgw_client.results import SessionInfo, StateOfSession, WorkerInfo

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SESSION_ID = "LuIKr0cSGrFPLT2eAoVLGcgK"


def session(state: SessionState = SessionState.READY, subscribers: int = 0, client_name: str = "desk") -> SessionInfo:
    ended = state in (SessionState.CLOSED, SessionState.FAULTED)
    return SessionInfo(
        session_id=SESSION_ID,
        state=state,
        close_reason=CloseReason.WORKER_EXITED if ended else CloseReason.UNSPECIFIED,
        close_detail="signal 9" if ended else "",
        client_name=client_name,
        owner="key-1",
        tag="line1",
        backend="sim",
        opened_at=NOW - timedelta(minutes=5),
        lease_s=1800.0,
        lease_expires_at=NOW + timedelta(minutes=3, seconds=7),
        head=Position(b"\x0a" * 16, 1234),
        oldest_sequence=1001,
        subscribers=subscribers,
        pending_commands=2,
        worker_pid=4711,
        worker_state=WorkerState.READY,
        source_health=SourceHealth.GOOD,
        worker_rss_bytes=38 * 1024**2,
    )


def drawn(renderable: RenderableType, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False, emoji=False).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 132, 200])
def test_the_table_fits_and_never_cuts_the_session_id(width: int) -> None:
    many = [session(client_name="a client with a very long name indeed"), session(SessionState.FAULTED)]
    text = drawn(sessions_table(many, NOW.timestamp(), width), width)

    assert max(map(len, text.splitlines())) <= width
    assert text.count(SESSION_ID) == 2
    assert "4711" in text
    assert "38.0 MiB" in text


def test_a_wide_table_has_owner_tag_lease_and_head() -> None:
    text = drawn(sessions_table([session()], NOW.timestamp(), 140), 140)

    for wanted in ("key-1", "line1", "3m07s", "1,234", "5m00s"):
        assert wanted in text


def test_a_session_with_subscribers_has_no_countdown() -> None:
    assert "attached" in drawn(sessions_table([session(subscribers=1)], NOW.timestamp(), 140), 140)


def test_the_detail_tells_state_worker_and_items() -> None:
    worker = WorkerInfo(
        4711,
        WorkerState.READY,
        "sim 1",
        NOW,
        Position(b"\x0a", 1234),
        4,
        302,
        7,
        28 * 1024**2,
        SourceHealth.LOST,
        "no route",
        1,
        0.2,
    )
    items = tuple(
        ItemState(Item(n, f"Tag_{n}[]", 1), False, AdviseKind.PLAIN, False, 1, None, Quality.GOOD, 0)
        for n in range(1, 13)
    )
    state = StateOfSession(Position(b"\x0a", 1234), {1: "desk"}, items)
    text = drawn(session_detail(session(), worker, state, NOW.timestamp()), 80)

    for wanted in (
        "3m07s left",
        "last heard of 200ms ago",
        "sim 1, lost",
        "no route",
        "Tag_1[]",
        "advised",
        "and 2 more",
    ):
        assert wanted in text
    assert "events lost" in text
    assert "holds 234 from 1,001" in text


def test_an_ended_session_says_why() -> None:
    text = drawn(session_detail(session(SessionState.FAULTED), None, None, NOW.timestamp()), 80)

    assert "worker exited" in text
    assert "signal 9" in text
    assert "lease" not in text


def test_a_session_without_a_subscriber_says_for_how_long_and_how_far_its_log_reaches() -> None:
    detached_at = NOW - timedelta(seconds=12)
    waiting = replace(session(), horizon_s=42.0, detached_at=detached_at)
    text = drawn(session_detail(waiting, None, None, NOW.timestamp()), 80)

    assert "without one for 12.0s" in text
    assert "reaches back 42.0s" in text
    assert session_document(waiting)["horizon_s"] == 42.0
    assert session_document(waiting)["detached_at"] == detached_at


def test_json_has_stable_words() -> None:
    document = session_document(session(SessionState.FAULTED))

    assert (document["state"], document["close_reason"], document["lease_expires_at"]) == (
        "faulted",
        "worker_exited",
        None,
    )


def test_a_clients_name_cannot_reach_the_terminals_controls() -> None:
    evil = session(client_name="\x1b[2J[bold]evil")
    text = drawn(sessions_table([evil], NOW.timestamp(), 140), 140)

    assert "\x1b" not in text
    assert "[bold]evil" in text
