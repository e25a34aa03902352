"""The Python in which workers run: the gateway's own, or the one that `workers.python` names.

Another one is checked before the gateway serves, because each session would fail with it, and for a reason that only
the log of its worker has.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mxgw_core.api.errors import SettingsError
from mxgw_core.printable import printable
from mxgw_worker.platform import python_program, quoted

log = logging.getLogger(__name__)

# A Python that has not answered after this time, in seconds, is refused. The first start after an installation can take
# many seconds, while an antivirus program looks at each file.
_ANSWER_S = 60.0
# The longest answer, in bytes. A program that writes more is no Python that works.
_ANSWER_BYTES = 64 * 1024
_OLDEST = (3, 11)
# Begins the line with the answer; other lines are what Python or an imported module writes.
_MARK = "mxgw-python:"
# What the Python is asked. Old versions must be able to read it, because it also tells the version.
_QUESTION = f"""
import json, os, sys
answer = {{"pid": os.getpid(), "python": list(sys.version_info[:3]), "program": sys.executable, "error": ""}}
answer["bits"] = 64 if sys.maxsize > 2**32 else 32
if sys.version_info >= {_OLDEST}:
    try:
        from importlib.metadata import version
        answer["mxgw"] = version("mxgw")
        import mxgw_worker.main
    except BaseException as error:
        answer["missing"] = getattr(error, "name", "") or ""
        answer["error"] = "%s: %s" % (type(error).__name__, error)
sys.stdout.write("\\n{_MARK}" + json.dumps(answer) + "\\n")
"""


@dataclass(frozen=True, slots=True)
class PythonFacts:
    """A Python that can run the workers of this gateway.

    Attributes:
        version: for example "3.11.9".
        bits: 32 or 64.
    """

    version: str
    bits: int


def python_command(python: Path | None, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command that runs a Python with these arguments, and the variables that its environment needs besides.

    `python` is the value of `workers.python`. The Python is isolated: neither environment variables nor the working
    directory can change which code is imported.
    """
    program, environment = python_program(Path(sys.executable) if python is None else python.absolute())
    return (str(program), "-I", *arguments), environment


def check_python(python: Path, timeout_s: float = _ANSWER_S) -> PythonFacts:
    """Make sure that a Python can run the workers of this gateway: start it, and ask what is installed in it.

    This blocks, for `timeout_s` seconds at most.

    Raises:
        SettingsError: it cannot; the text says why, and what to do.
    """
    named = f"workers.python {python}"
    command, environment = python_command(python, "-c", _QUESTION)
    try:
        if stat.S_ISDIR(python.stat().st_mode):
            raise SettingsError(f"{named} is a directory: name the program in it")
        pid, code, text = _answer(command, environment, timeout_s)
    except FileNotFoundError as error:
        what = "" if error.filename in (None, str(python)) else f": there is no {error.filename}"
        raise SettingsError(
            f"{named} does not exist{what}: name the program of a Python in which mxgw is installed"
        ) from None
    except OSError as error:
        raise SettingsError(f"{named} cannot be started: {error.strerror or error}") from None
    if code is None:
        raise SettingsError(f"{named} did not answer within {timeout_s:g} s: name the program of a Python")
    facts = _facts(text)
    if facts is None:
        last = printable((text.split("\n")[-1] or "no output"), 200)
        raise SettingsError(f"{named} is no Python that works: it left with exit code {code} ({last})")
    return _checked(named, python, pid, facts)


@dataclass(frozen=True, slots=True)
class _Facts:
    """The answer of a Python. `missing` is the module or distribution that was not found, if that is the `error`."""

    pid: int
    python: tuple[int, ...]
    program: str
    bits: int
    mxgw: str
    missing: str
    error: str


def _facts(text: str) -> _Facts | None:
    lines = [line for line in text.split("\n") if line.startswith(_MARK)]
    try:
        found = json.loads(lines[-1].removeprefix(_MARK))
        numbers = tuple(int(number) for number in found["python"])
        texts = (str(found.get(key, "")) for key in ("mxgw", "missing", "error"))
        return _Facts(int(found["pid"]), numbers, str(found["program"]), int(found["bits"]), *texts)
    except (LookupError, ValueError, TypeError, AttributeError):
        return None


def _checked(named: str, python: Path, pid: int, facts: _Facts) -> PythonFacts:
    own = version("mxgw")
    needed = (f"mxgw=={own}", f"protobuf=={version('protobuf')}")
    pip = quoted([str(python), "-m", "pip", "install", "--no-deps", *needed])
    number = ".".join(map(str, facts.python))
    if facts.pid != pid:
        # The gateway knows its workers by their pids.
        raise SettingsError(
            f"{named} only starts another program, {printable(facts.program, 300)}: name the program that it starts"
        )
    if facts.python[:2] < _OLDEST:
        raise SettingsError(f"{named} is Python {number}; workers need {'.'.join(map(str, _OLDEST))} or newer")
    if facts.mxgw and facts.mxgw != own:
        raise SettingsError(
            f"{named} has mxgw {printable(facts.mxgw, 50)}, and this gateway is {own}; workers need the same: {pip}"
        )
    if facts.missing in ("mxgw", "mxgw_worker"):
        raise SettingsError(
            f"{named} is a Python without mxgw (what is installed for one user only does not count): {pip}"
        )
    if facts.error:
        raise SettingsError(f"{named} cannot import mxgw_worker ({printable(facts.error, 300)}): {pip}")
    log.info("workers run in Python %s with %d bits: %s", number, facts.bits, python)
    return PythonFacts(number, facts.bits)


def _answer(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> tuple[int, int | None, str]:
    """Run a program. Return its pid, its exit code, and the beginning of its output.

    The exit code is None when the program did not end, or did not close its output, within `timeout_s`. A program that
    writes more than `_ANSWER_BYTES` is ended.
    """
    ends_at = time.perf_counter() + timeout_s
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    output: list[bytes] = []

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            output.append(stream.read(_ANSWER_BYTES))

    # The program can have started another one that keeps the pipe open, so the end of this thread is not waited for.
    reader = threading.Thread(target=read, name="workers-python", daemon=True)
    reader.start()
    reader.join(timeout_s)
    text = b"".join(output)
    is_in_time = len(text) == _ANSWER_BYTES
    if not is_in_time and not reader.is_alive():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, ends_at - time.perf_counter()))
            is_in_time = True
    process.kill()
    code = process.wait()
    return process.pid, code if is_in_time else None, text.decode("utf-8", "replace").replace("\r\n", "\n").strip()
