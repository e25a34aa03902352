"""The simulator as a part of a process: what it loads, and how it ends one."""

import subprocess
import sys


def test_the_backend_needs_only_the_standard_library_and_protobuf() -> None:
    script = (
        "import sys; import mxgw_worker.backends.sim.profiles.plant, mxgw_worker.backends.sim.profiles.load, "
        "mxgw_worker.backends.sim.profiles.recording; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)

    loaded = {name for name in done.stdout.split() if not name.startswith(("_", "sitecustomize", "distutils"))}
    assert loaded <= {"google", "mxgw", "mxgw_worker"}


def test_a_worker_pays_only_for_the_profile_it_uses() -> None:
    script = (
        "import sys, mxgw_worker.backends.sim; "
        "print(*(name for name in sys.modules if '.profiles.' in name), 'csv' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == ["mxgw_worker.backends.sim.profiles._loading", "False"]


def test_crash_ends_the_process_without_a_farewell() -> None:
    script = """
import asyncio, atexit
from mxgw.convert import to_value
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.testing import RecordingSink

async def main():
    backend = SimBackend({"controls": True, "resolve_delay_s": 0.0})
    await backend.start(RecordingSink())
    server = await backend.register("x")
    item = await backend.add_item(server, "Sim.Crash")
    await backend.advise(server, item)
    await asyncio.sleep(0.1)
    await backend.write(server, item, to_value(True), 0)
    await asyncio.sleep(30)

atexit.register(print, "farewell")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30)

    assert done.returncode == 70, done.stderr
    assert b"farewell" not in done.stdout
