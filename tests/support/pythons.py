"""Virtual environments made by hand, as Pythons for workers: what is installed in each is what a test says."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import google.protobuf

from support.repository import ROOT

# The wheel has these import packages from these directories; the rest of mxgw is not for workers.
_WORKERS_PART = (ROOT / "protos", ROOT / "worker")


def make_python(folder: Path, *, mxgw: str | None = version("mxgw"), protobuf: bool = True, startup: str = "") -> Path:
    """Make an environment of the present Python in `folder`. Return the path of its program.

    It has the worker's part of mxgw, as of version `mxgw`, unless this is None, and `protobuf`; nothing else. `startup`
    is one line of Python that runs whenever it starts.

    On Windows the program is an empty file: what must be started there is the program of the installation.
    """
    home = Path(getattr(sys, "_base_executable", sys.executable))
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {home.parent}\ninclude-system-site-packages = false\n")
    if sys.platform == "win32":
        program, packages = folder / "Scripts" / "python.exe", folder / "Lib" / "site-packages"
        program.parent.mkdir()
        program.touch()
    else:
        number = ".".join(map(str, sys.version_info[:2]))
        program, packages = folder / "bin" / "python", folder / "lib" / f"python{number}" / "site-packages"
        program.parent.mkdir()
        program.symlink_to(home)
    packages.mkdir(parents=True)
    if startup:
        (packages / "startup.pth").write_text(f"import sys; {startup}\n")
    if mxgw is not None:
        (packages / "mxgw.pth").write_text("".join(f"{part}\n" for part in _WORKERS_PART))
        (packages / f"mxgw-{mxgw}.dist-info").mkdir()
        (packages / f"mxgw-{mxgw}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: mxgw\nVersion: {mxgw}\n"
        )
    if protobuf:
        installed = Path(google.protobuf.__file__).parents[1]
        for part in ("protobuf", "_upb"):
            shutil.copytree(installed / part, packages / "google" / part, ignore=shutil.ignore_patterns("__pycache__"))
    return program
