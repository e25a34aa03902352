"""Check the types of what `mxgw plugins new` writes, for every kind of plugin, as strictly as those of mxgw itself.

Formatting, lint, and whether the plugins work are checked by tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mxgw_cli.plugins.kinds import PluginKind
from mxgw_cli.plugins.scaffold import PluginNames, write_plugin

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Write a plugin of each kind, and check all of them together; return the exit code of mypy."""
    with tempfile.TemporaryDirectory(prefix="mxgw-templates-") as directory:
        written = [
            write_plugin(PluginNames.of(f"sample_{kind.value}", kind), kind, Path(directory))[0] for kind in PluginKind
        ]
        packages = [str(package) for root in written for package in root.glob("mxgw_*")]
        tests = [str(test) for root in written for test in root.glob("tests/*.py")]
        command = [sys.executable, "-m", "mypy", "--config-file", str(written[0] / "pyproject.toml")]
        command += ["--cache-dir", str(ROOT / ".mypy_cache" / "templates"), *packages, *tests]
        environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, written))}
        return subprocess.run(command, cwd=directory, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
