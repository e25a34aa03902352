"""Make the pictures of docs/dashboard.md with the running app, on the same example plant as its tests.

    .venv/bin/python scripts/generate_images.py            `make docs` runs this too

The pictures are SVG files that load nothing from the web. Their text is shown in a font of the reader's system.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SHOTS = {
    "sessions": ((120, 30), ()),
    "session": ((120, 30), ("slash", *"tank", "enter", "enter")),
    "overview": ((120, 30), ("2",)),
    "confirm": ((80, 24), ("slash", *"tank", "enter", "ctrl+x")),
    "audit": ((120, 30), ("6",)),
}


async def shot(size: tuple[int, int], keys: tuple[str, ...]) -> str:
    """Return a picture of the app after these keys were pressed."""
    from support.screens import app_of, written
    from textual.widgets import Input

    os.environ.pop("NO_COLOR", None)
    app = app_of(written(looks=40, hostile=False))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press(*keys)
        for _ in range(3):
            await pilot.pause(0.05)
            for screen in app.screen_stack:
                for line in screen.query(Input):
                    line.cursor_blink = False
                if hasattr(screen, "repaint"):
                    screen.repaint()
        await pilot.pause()
        return without_links(app.export_screenshot())


def without_links(svg: str) -> str:
    """Return the picture without its links to fonts on the web."""
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code,", "")


def pictures() -> Iterator[tuple[Path, str]]:
    """Yield the name of each file and the picture for it."""
    for name, (size, keys) in SHOTS.items():
        yield IMAGES / f"dashboard-{name}.svg", asyncio.run(shot(size, keys))


def main() -> None:
    """Write all pictures."""
    sys.path.insert(0, str(ROOT / "tests"))
    IMAGES.mkdir(exist_ok=True)
    for path, picture in pictures():
        path.write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
