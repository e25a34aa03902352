"""The double of MXAccess' COM object: where it is built, and how a Windows gets it.

Only the standard library is used, because scripts that run without the project import this module too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from support import wine

SOURCES = Path(__file__).parent / "com_double"
# Set for the tests that run inside Windows: the path of the library there.
VARIABLE = "MXGWTEST_LMX_DOUBLE"
LIBRARY = "LmxDouble.dll"


def library() -> Path:
    """Return the library for 32-bit programs. It is built when its sources have changed, in about 10 seconds.

    Raises:
        OSError: it cannot be built; the text is what the compiler says.
    """
    digest = hashlib.sha256(wine.debian().name.encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    built = wine.cache() / f"lmxdouble-{digest.hexdigest()[:12]}.dll"
    import fcntl  # not on Windows, where only the names of this module are used

    with (wine.cache() / "lmxdouble.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(built)
        os.utime(built)
    return built


def _build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-double-") as name, wine.Windows(Path(name)) as windows:
        sources = f"/clone/{SOURCES.relative_to(wine.ROOT)}"
        done = subprocess.run(
            windows.command("sh", f"{sources}/build.sh", sources, "/shared"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OSError(f"the double of MXAccess cannot be built:\n{done.stderr}")
        part = target.with_suffix(".part")
        shutil.copyfile(Path(name) / LIBRARY, part)
        part.rename(target)


def install(shared: Path) -> str:
    """Put the library into the shared directory of a Windows, and return its path there."""
    shutil.copyfile(library(), shared / LIBRARY)
    return rf"Z:\shared\{LIBRARY}"


# A program for the 32-bit Python of that Windows: registers the library that it is given.
REGISTER = "import ctypes, sys; ctypes.OleDLL(sys.argv[1]).DllRegisterServer()"
