"""Run the tests under Windows Python, in Wine: all but those that tests/not_on_windows.toml lists.

    python3 scripts/windows/run_tests.py                               everything, with 32-bit Python
    python3 scripts/windows/run_tests.py tests/worker -k outbox        arguments go to pytest
    python3 scripts/windows/run_tests.py --bits 64 tests/core
    python3 scripts/windows/run_tests.py --beside                      then those here that start Windows programs

scripts/windows/set_up.py must have run. The last lines say how many tests ran, and how many did not and why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from io import BufferedReader
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import wine
from support.mxaccess import com_double

# Pytest's exit code when the arguments select no test.
_NO_TESTS = 5


def main() -> int:
    """Run pytest. Return its exit code, or 1 when there is no Windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", choices=("32", "64"), default="32", help="of the Python (default: 32)")
    parser.add_argument("--beside", action="store_true", help="run the tests with the marker `windows` too")
    options, arguments = parser.parse_known_args()
    why = wine.missing()
    if why:
        sys.stderr.write(f"{why}\n")
        return 1
    codes = [inside(wine.Interpreter.BITS_32 if options.bits == "32" else wine.Interpreter.BITS_64, arguments)]
    if options.beside:
        codes.append(beside(arguments))
    failed = [code for code in codes if code not in (0, _NO_TESTS)]
    return failed[0] if failed else min(codes)


def beside(arguments: list[str]) -> int:
    """Run the tests of this side that start Windows programs, for example a gateway. Return pytest's exit code."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "windows and not soak", *arguments], check=False
    ).returncode


def inside(interpreter: wine.Interpreter, arguments: list[str]) -> int:
    """Run the tests in Windows. Return pytest's exit code."""
    # Without a buffer, progress is seen when it is made. The clone is read-only there: pytest and hypothesis must not
    # try to keep anything in it.
    pytest = ("-u", "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    environment = {"HYPOTHESIS_STORAGE_DIRECTORY": "Z:/shared/hypothesis", "GRPC_VERBOSITY": "NONE"}
    with tempfile.TemporaryDirectory(prefix="mxgw-windows-") as shared:
        environment[com_double.VARIABLE] = com_double.install(Path(shared))
        with wine.Windows(Path(shared)) as windows:
            process = subprocess.Popen(
                windows.python(interpreter, *pytest, environment=environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert isinstance(process.stdout, BufferedReader)
            copying = threading.Thread(target=copy, args=(process.stdout,))
            copying.start()
            code = process.wait()
        # A program that the tests left behind keeps the pipe open until its Windows has ended.
        copying.join()
    return code


def copy(source: BufferedReader) -> None:
    """Copy to standard output, which the tests do not have themselves: Wine loses output that goes to a file."""
    with source:
        while block := source.read1(1 << 16):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
