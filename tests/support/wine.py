"""Windows on this machine, through Wine: where it is, and how programs run in it. scripts/windows/set_up.py builds it.

Only the standard library is used, because the set-up imports this module too.
"""

from __future__ import annotations

import enum
import hashlib
import os
import platform
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from support.repository import ROOT

if TYPE_CHECKING:
    import psutil

SCRIPTS = ROOT / "scripts" / "windows"
CACHE_VARIABLE = "MXGWTEST_WINE"
# What a test that is skipped tells its reader.
ENABLE = "python3 scripts/windows/set_up.py"
NEEDS_ROOT = (
    "Wine has a Debian root of its own, which is made and entered with chroot, and only root may do that.\n"
    f"  With sudo:     sudo {ENABLE}\n"
    f"  In a container in which you are root and may mount:  docker run --privileged ... {ENABLE}"
)

# Everything that is started in these ends with their first process, and that one with this program.
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")

# Runs as process 1 of the namespaces. It ends when its standard input does, and everything in the namespaces with it.
# The root is read-only; the Windows drive is a view whose changes go to memory, so that two runs do not meet.
_START = r"""
set -eu
root=$1 pythons=$2 pycache=$3 clone=$4 shared=$5
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mkdir tmp/.upper tmp/.work
layers="lowerdir=$root/drive,upperdir=$root/tmp/.upper,workdir=$root/tmp/.work"
mount -t overlay overlay -o "$layers" drive 2>/dev/null || mount --bind drive drive
mount --bind "$pythons" python
mount -o remount,bind,ro python
mount --bind "$pycache" pycache
mount --bind "$clone" clone
mount -o remount,bind,ro clone
mount --bind "$shared" shared
for file in resolv.conf hosts; do
  if [ -e "/etc/$file" ]; then
    [ -e "etc/$file" ] || touch "etc/$file"
    mount --bind "/etc/$file" "etc/$file"
  fi
done
mount -o remount,bind,ro .
exec chroot . sh -c 'echo ready; cat >/dev/null; exit 0'
"""


class Interpreter(enum.Enum):
    """A Python of Windows, by the tag of its wheels."""

    BITS_32 = "win32"
    BITS_64 = "win_amd64"

    @property
    def program(self) -> str:
        """Its path, as a Windows program may name it too."""
        return f"/python/{self.value}/python.exe"


def cache() -> Path:
    """Return the directory of everything that is built: MXGWTEST_WINE, or a place in the user's cache directory."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mxgw" / "wine"


def debian() -> Path:
    """Return the Debian root with Wine that the present scripts make. It is complete when it exists."""
    return cache() / f"debian-{_key('build_debian.sh')}"


def pythons() -> Path:
    """Return the directory of the Windows Pythons that the present scripts make. It is complete when it exists."""
    inputs = ("build_debian.sh", "set_up.py", "interpreters.txt", "requirements.txt", "python_program.c")
    return cache() / f"python-{_key(*inputs)}"


def _key(*names: str) -> str:
    """Return a short hash of these files: whoever changes one gets a new directory beside the old one."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((SCRIPTS / name).read_bytes())
    return digest.hexdigest()[:12]


def missing() -> str:
    """Return "" when Windows programs can run here, otherwise why not, with the command that changes it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "Wine needs Linux on x86-64"
    if not (debian().is_dir() and pythons().is_dir()):
        return f"Windows under Wine is not set up; this does it, as root, in about 5 minutes: {ENABLE}"
    return "" if os.geteuid() == 0 else NEEDS_ROOT


class Windows:
    """A Windows that runs while the `with` block does. Its network is this machine's.

    Nothing outlives the block, nor this process: programs and mounts are in namespaces of their own, which the kernel
    ends. `shared` is a directory that both sides see, there as `Z:\\shared`. The repository is `Z:\\clone`, read-only.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared.absolute()
        self._process: subprocess.Popen[str] | None = None
        self._init = 0  # this machine's number of the namespaces' process 1

    def __enter__(self) -> Windows:
        pycache = cache() / "pycache"
        pycache.mkdir(exist_ok=True)
        for used in (debian(), pythons()):
            os.utime(used)  # what is not used for long is removed by the set-up
        directories = [str(path) for path in (debian(), pythons(), pycache, ROOT, self._shared)]
        self._process = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", _START, "sh", *directories],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise OSError("Windows under Wine did not start; what mount said stands above")
        self._init = child_of(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every program of this Windows, and wait until they have ended."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """Return the programs that run here, as processes of this machine."""
        import psutil

        return psutil.Process(self._init).children(recursive=True)

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that runs a program here. Its output must go through a pipe: Wine loses some in files.

        `arguments` begins with a Unix program, for example `wine`. The command's one child process is the program: use
        `child_of` to send it a signal.
        """
        every = {
            "HOME": "/root",
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "WINEPREFIX": "/drive",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe=",
            **(environment or {}),
        }
        assignments = [f"{name}={value}" for name, value in every.items()]
        entered = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--root"]
        # Wine shows modes as access lists. As on Windows, a new file is to be accessible to its owner only.
        private = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
        return [*entered, "env", "--ignore-environment", "--chdir=/clone", *assignments, *private, *arguments]

    def python(
        self, interpreter: Interpreter, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the command that runs a Windows Python which imports mxgw and its plugins from the repository."""
        metadata = self._shared / "metadata"
        if not metadata.exists():
            metadata.mkdir()
            # The entry points, without which no plugin is found.
            for found in Path(sysconfig.get_path("purelib")).glob("mxgw-*.dist-info"):
                (metadata / found.name).mkdir()
                for file in ("METADATA", "entry_points.txt"):
                    (metadata / found.name / file).write_bytes((found / file).read_bytes())
        paths = {
            "PYTHONPYCACHEPREFIX": f"Z:/pycache/{interpreter.value}",
            "PYTHONIOENCODING": "utf-8",
        }
        return self.command("wine", interpreter.program, *arguments, environment={**paths, **(environment or {})})


def child_of(pid: int) -> int:
    """Return the one child process of a process that waits for it."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
