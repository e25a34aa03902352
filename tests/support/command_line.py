"""`mxgw` without a process of its own, for tests of what its commands do: a process costs half a second of CPU time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from click.testing import CliRunner, Result

from mxgw_cli.main import root


def run_mxgw(*arguments: str, folder: Path | None = None, **environment: str) -> Result:
    """Run `mxgw` in this process, in `folder` if given, and return its exit code and what it printed.

    Run it in the main thread: commands that talk to a gateway handle signals. An exception that would print a traceback
    is raised here. How a process of `mxgw` starts and ends is tested elsewhere (tests/cli/test_endings.py).
    """
    theirs: dict[str, str | None] = {name: None for name in os.environ if name.startswith("MXGW")}
    with contextlib.chdir(folder or Path.cwd()):
        return CliRunner().invoke(
            root,
            list(arguments),
            prog_name="mxgw",
            env={**theirs, "COLUMNS": "100", "NO_COLOR": "1", **environment},
            catch_exceptions=False,
        )
