"""Fresh virtual environments, in which a distribution is installed from its own directory, as a user installs it.

They use the packages of the present environment, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def environment_with(folder: Path, *sources: Path) -> Path:
    """Create an environment in `folder` with copies of these distributions installed. Return the path of its Python."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    (packages,) = venv.glob("lib/python*/site-packages")
    # `addsitedir` is called because a plain path would leave out the editable installs of the present environment.
    (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    copies = [folder / "sources" / source.name for source in sources]
    for source, copy in zip(sources, copies, strict=True):
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    python = venv / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--no-compile", "--disable-pip-version-check", *map(str, copies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55)

    assert done.returncode == 0, done.stderr

    return python


def clean_environ(**extra: str) -> dict[str, str]:
    """Return the environment variables of this process, without those that change how mxgw, pytest or Python behave."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MXGW", "PYTEST", "PYTHON"))}
    return kept | extra


def run(python: Path, *arguments: str, timeout_s: float = 55, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the Python of the environment. `extra` are more environment variables."""
    return subprocess.run(
        [str(python), *arguments],
        cwd=python.parent,
        env=clean_environ(**extra),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
