"""Make the virtual environment .venv with this package and its extras. Do nothing when it is up to date.

    python3 scripts/set_up.py opcua dashboard          for `make demo`
    python3 scripts/set_up.py opcua dashboard dev      for `make test` and `make check`

Progress is printed to standard error, so that it does not mix with the output of the command that runs afterwards. The
exit status is 0 when the environment is ready, and 1 when it is not; a sentence then says why. This script must run
with Python 3.6, so that it can say that a Python is too old, and it uses only the standard library, because nothing
else is installed yet.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"
STAMP = VENV / "set-up.json"
OLDEST = (3, 11)
# Editable installs of a pyproject.toml need pip 21.3. Python 3.11 comes with 22.3 or newer.
OLDEST_PIP = (22, 3)


def main(extras):
    python = find_python()
    goal = goal_for(python, extras)
    stamp = read_stamp()
    if covers(stamp, goal):
        return
    version = output_of([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    say(f"Setting up .venv with Python {version} (once; a minute or two):")
    moved = bool(stamp) and (stamp.get("place"), stamp.get("python")) != (goal["place"], goal["python"])
    if moved or not is_usable():
        make_venv(python, version)
    else:
        # All targets of make use one environment, so extras that an earlier target needed are kept.
        goal["extras"] = sorted({*goal["extras"], *stamp.get("extras", [])})
    if STAMP.exists():
        STAMP.unlink()
    upgrade_old_pip()
    said = run("mxgw and what it needs", pip("install", "--editable", f".[{','.join(goal['extras'])}]"))
    if said:
        fail(f"packages could not be installed; is the package index reachable from here?\n{said}")
    STAMP.write_text(json.dumps(goal))


def find_python():
    """Return the path of this Python, or of a newer one on PATH when this one is too old."""
    if sys.version_info >= OLDEST:
        # Inside a virtual environment this is the Python from which it was made, because .venv itself can be removed
        # below.
        return getattr(sys, "_base_executable", None) or sys.executable
    for minor in range(20, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    return fail(
        f"mxgw needs Python 3.{OLDEST[1]} or newer, and {sys.executable} is {sys.version.split()[0]}.\n"
        "  Install a newer one, or name it: make PYTHON=/path/to/python3.12 ..."
    )


def goal_for(python, extras):
    """Return the facts that are stored in a finished environment. When one of them changes, it is set up again."""
    return {
        # An environment that was moved still refers to its old directory.
        "place": str(ROOT),
        "python": os.path.realpath(python),
        "extras": sorted(extras),
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
    }


def read_stamp():
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and VENV_PYTHON.exists() else {}


def covers(stamp, goal):
    same = all(stamp.get(key) == goal[key] for key in ("place", "python", "pyproject"))
    return same and set(goal["extras"]) <= set(stamp.get("extras", []))


def is_usable():
    """Return True when .venv has a Python that is new enough, and pip. (The user can have made .venv by hand.)"""
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.call([str(VENV_PYTHON), "-c", check], stderr=subprocess.DEVNULL, cwd=str(ROOT)) == 0
    except OSError:
        return False


def make_venv(python, version):
    if VENV.is_dir():
        shutil.rmtree(str(VENV))
    said = run("virtual environment", [python, "-m", "venv", str(VENV)])
    if not said:
        return
    if "ensurepip" in said or "No module named venv" in said:
        fail(
            "this Python cannot make virtual environments: its modules venv and ensurepip are a package of their own.\n"
            f"  Debian and Ubuntu:  apt install python{version}-venv   (or python3-venv)\n"
            "  or name another Python:  make PYTHON=/path/to/python3.12 ..."
        )
    fail(f"the virtual environment could not be made:\n{said}")


def upgrade_old_pip():
    version = output_of([str(VENV_PYTHON), "-m", "pip", "--version"]).split()[1]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_PIP:
        said = run(f"pip {version} is old, taking a newer one", pip("install", "--upgrade", "pip"))
        if said:
            fail(f"pip could not be upgraded:\n{said}")


def pip(*arguments):
    return [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def run(step, command):
    """Run one step, and print its name and its seconds. Return its output when it failed, otherwise ""."""
    sys.stderr.write(f"  {step} ...")
    sys.stderr.flush()
    began = time.time()
    with tempfile.TemporaryFile() as output:
        code = subprocess.call(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=str(ROOT)
        )
        if code == 0:
            say(f" {time.time() - began:.0f} s")
            return ""
        say(" failed")
        output.seek(0)
        return output.read().decode("utf-8", "replace") or f"exit status {code}"


def output_of(command):
    return subprocess.check_output(command, cwd=str(ROOT)).decode("utf-8", "replace")


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(text):
    say(f"set-up: {text}")
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
