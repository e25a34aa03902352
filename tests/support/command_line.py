"""`mxgw` without a process of its own, for tests of what its commands do: a process costs half a second of CPU time."""

from __future__ import annotations

import contextlib
from pathlib import Path

from click.testing import CliRunner, Result

from mxgw_cli.main import root


def mxgw_in(folder: Path, *arguments: str) -> Result:
    """Run `mxgw` in this process with `folder` as the working directory, and return what it printed and its exit code.

    That a process of `mxgw` starts, and how it ends, is tested elsewhere (tests/cli/test_endings.py).
    """
    with contextlib.chdir(folder):
        return CliRunner().invoke(
            root,
            list(arguments),
            prog_name="mxgw",
            env={"COLUMNS": "100", "NO_COLOR": "1"},
            catch_exceptions=False,
        )
