"""What the demo says: a line now and then, the figures at the end, and what to try next."""

from __future__ import annotations

from rich.text import Text

from mxgw_core.cli.demo.board import Board
from mxgw_core.cli.demo.ledger import SequenceLedger
from mxgw_core.cli.text import milliseconds_text

NEXT = (
    ("mxgw serve", "run a gateway of your own"),
    ("mxgw browse --depth 3", "see what it offers (in a second terminal)"),
    ("mxgw stream Tank_001.Level", "follow one of its tags, or add --json"),
    ("mxgw demo --backend opcua", "the demo through a real OPC UA server"),
    ("mxgw doctor", "check this machine for a real installation"),
)


def is_flawless(ledger: SequenceLedger) -> bool:
    """Return whether events came, each once and in order."""
    return bool(ledger.events) and not (ledger.gaps or ledger.duplicates or ledger.out_of_order)


def document(board: Board, backend: str, seconds: float) -> dict[str, object]:
    """Return the figures for JSON. Latency is from the worker's clock to this process's, on one machine."""
    ledger, latency = board.ledger, board.latency
    p50, p99 = latency.percentile(0.5), latency.percentile(0.99)
    return {
        "backend": backend,
        "seconds": round(seconds, 3),
        "events": ledger.events,
        "gaps": ledger.gaps,
        "duplicates": ledger.duplicates,
        "out_of_order": ledger.out_of_order,
        "p50_ms": None if p50 is None else round(p50, 3),
        "p99_ms": None if p99 is None else round(p99, 3),
    }


def status_line(board: Board, now: float) -> Text:
    """Return one line for those who do not see the live screen."""
    ledger = board.ledger
    p50 = board.latency.percentile(0.5)
    latency = "" if p50 is None else f", p50 {milliseconds_text(p50)}"
    return Text(
        f"{now - board.started_at:4.0f} s  {ledger.events:,} events, {board.rate.per_second(now):,.1f}/s, "
        f"{ledger.gaps} gaps{latency}"
    )


def summary_lines(board: Board, seconds: float) -> list[Text]:
    """Return the figures at the end, then what to try next."""
    ledger, latency = board.ledger, board.latency
    if not ledger.events:
        return [Text(f"No event came in {seconds:.1f} s.", style="bold red"), Text("Try: mxgw doctor")]
    counts = f"{ledger.gaps} gaps, {ledger.duplicates} duplicates, {ledger.out_of_order} out of order"
    verdict = (
        ("Every event came once and in order", "bold green") if is_flawless(ledger) else ("Not flawless", "bold red")
    )
    lines = [
        Text(""),
        Text.assemble(
            (f"{ledger.events:,}", "bold"),
            f" events of {len(board.rows):,} tags in {seconds:.1f} s ({ledger.events / max(seconds, 0.001):,.1f}/s).",
        ),
        Text.assemble(verdict, f": {counts}."),
    ]
    p50, p99 = latency.percentile(0.5), latency.percentile(0.99)
    if p50 is not None and p99 is not None:
        lines.append(Text(f"From worker to here: p50 {milliseconds_text(p50)}, p99 {milliseconds_text(p99)}."))
    lines += [Text(""), Text("Try next:")]
    lines += [Text.assemble("  ", (f"{command:<28}", "cyan"), f"  {meaning}") for command, meaning in NEXT]
    return lines
