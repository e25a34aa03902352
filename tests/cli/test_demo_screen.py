"""What the demo draws, at the sizes that people have."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mxgw_cli.demo.board import Board, WorkerStatus
from mxgw_cli.demo.view import DemoScreen, sparkline

LONG = "SteelWorks.Lagging_Current_Reactive_Power_kVarh"


def drawn(board: Board, width: int, height: int, *, now: float = 10.0, colours: bool = False) -> list[str]:
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=height, force_terminal=colours, markup=False, highlight=False, emoji=False
    )
    console.print(DemoScreen(board, now, 30.0))
    return file.getvalue().splitlines()


def board_of(tags: int = 11) -> Board:
    names = [LONG, *(f"SteelWorks.Tag{number}" for number in range(1, tags))]
    board = Board("recorded data of a steel plant, 3600 times faster", 0.0)
    board.name_tags(list(enumerate(names)))
    board.ledger.opened(b"epoch", 0)
    for step in range(200):
        board.rate.count(step / 20)
        board.ledger.event(step + 1)
        board.latency.add(0.8)
        board.data_change(step / 20, step % tags, step * 1.25, 192, 1_515_000_000.0 + step * 900, "")
    board.worker = WorkerStatus(4711, "ready", 38 * 1024 * 1024, "good", "")
    return board


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (40, 10)])
def test_the_screen_fits_the_terminal(width: int, height: int) -> None:
    lines = drawn(board_of(100), width, height)

    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_at_80_columns_everything_that_matters_is_readable() -> None:
    text = "\n".join(drawn(board_of(), 80, 24))

    for wanted in ("events/s", "0 gaps", "p50 0.80 ms", "worker 4711 ready", "38.0 MiB", "10 of 30 s", "good"):
        assert wanted in text
    assert "…" in text
    assert "kVarh" in text  # a long name is cut in the middle, not at its end


def test_a_wide_terminal_shows_whole_names_and_trends() -> None:
    text = "\n".join(drawn(board_of(), 140, 40))

    assert LONG in text
    assert "▇█" in text


def test_tags_beyond_the_screen_are_counted() -> None:
    assert any("83 more tags below" in line for line in drawn(board_of(100), 80, 24))


def test_gaps_and_disorder_stand_out_in_red() -> None:
    board = board_of()
    board.ledger.gap(500)
    board.ledger.event(1)
    text = "\n".join(drawn(board, 120, 24, colours=True))

    assert "\x1b[1;31m1 gaps" in text
    assert "1 duplicate or out of order" in text


def test_a_lost_source_says_why() -> None:
    board = board_of()
    board.worker = WorkerStatus(1, "ready", 0, "lost", "connection refused")

    assert any("source lost: connection refused" in line for line in drawn(board, 80, 24))


def test_what_a_peer_sends_cannot_reach_the_terminals_controls_or_become_markup() -> None:
    board = Board("t", 0.0)
    board.name_tags([(1, "Evil\x1b[2J\u202e[red]Tag[]")])
    board.data_change(1.0, 1, "\x1b]0;owned\x07\n", 192, None, "")
    text = "\n".join(drawn(board, 120, 24))

    assert "[red]Tag[]" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert sum("Evil" in line for line in text.splitlines()) == 1


def test_a_flat_trend_is_a_flat_line() -> None:
    assert sparkline([5.0, 5.0, 5.0]) == "▄▄▄"
    assert sparkline([]) == ""
    assert sparkline([0.0, 1.0]) == "▁█"
