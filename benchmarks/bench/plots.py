"""Draws plots of growth and latency as SVG with matplotlib (extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measuring import Figure, Result


def draw(results: dict[str, Result], directory: Path) -> list[Path]:
    """Draw the plots that these results allow. Return the files; none when matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return []
    mpl.use("svg")
    # Keep text as text in the SVG, and make the same file from the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mxgw", "font.size": 9})
    written: list[Path] = []
    for case, letter, words in (("growth", "N", "subscribers"), ("sessions", "S", "sessions")):
        if case in results:
            written.append(_growth(results[case], letter, words, directory / f"performance-{words}.svg"))
    if throughput := results.get("throughput"):
        written.append(_throughput(throughput, directory / "performance-peers.svg"))
    return written


def _of(figures: Sequence[Figure], letter: str, what: str) -> dict[str, list[tuple[int, Figure]]]:
    found: dict[str, list[tuple[int, Figure]]] = {}
    for figure in figures:
        if figure.what == what and figure.circumstance.startswith(f"{letter}="):
            found.setdefault(figure.system, []).append((int(figure.circumstance[2:]), figure))
    return {system: sorted(points, key=lambda point: point[0]) for system, points in found.items()}


def _growth(result: Result, letter: str, words: str, path: Path) -> Path:
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(8, 3.2), layout="constrained")
    panels = picture.subplots(1, 2)
    described = (("events_per_s", 1e-6, "million events/s delivered"), ("cpu_s_per_million", 1, "CPU s per million"))
    for axes, (what, factor, label) in zip(panels, described, strict=True):
        for system, points in _of(result.figures, letter, what).items():
            x = [number for number, _ in points]
            medians = [figure.median * factor for _, figure in points]
            (line,) = axes.plot(x, medians, marker="o", markersize=3, label=system)
            lowest = [min(figure.values) * factor for _, figure in points]
            highest = [max(figure.values) * factor for _, figure in points]
            axes.fill_between(x, lowest, highest, alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(words)
        axes.set_title(label, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    picture.savefig(path, metadata={"Date": None})
    return path


def _throughput(result: Result, path: Path) -> Path:
    from matplotlib.figure import Figure as Picture

    circumstance = "N=8, made beforehand"
    chosen = [f for f in result.figures if f.what == "events_per_s" and f.circumstance == circumstance]
    chosen.sort(key=lambda figure: figure.median)
    picture = Picture(figsize=(8, 3.2), layout="constrained")
    axes = picture.subplots()
    medians = [figure.median / 1e6 for figure in chosen]
    spread = [
        [(figure.median - min(figure.values)) / 1e6 for figure in chosen],
        [(max(figure.values) - figure.median) / 1e6 for figure in chosen],
    ]
    colours = ["tab:blue" if f.system.startswith("mxgw") else "0.7" for f in chosen]
    axes.barh([figure.system for figure in chosen], medians, xerr=spread, color=colours, ecolor="0.3")
    axes.set_xlabel("million events/s delivered to 8 subscribers; median, lowest and highest")
    axes.grid(axis="x", alpha=0.3)
    picture.savefig(path, metadata={"Date": None})
    return path
