"""The programs printed in the client guide run as printed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "client-guide.md"
PROGRAMS = [
    code
    for code in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    if "import" in code
]


def test_the_guide_has_an_asynchronous_and_a_synchronous_program() -> None:
    assert len(PROGRAMS) == 2
    assert "asyncio.run" in PROGRAMS[0]
    assert "sync.connect" in PROGRAMS[1]


@pytest.mark.parametrize("number", [0, 1])
def test_a_program_of_the_guide_prints_values_until_it_is_interrupted(gateway_process: str, number: int) -> None:
    code = PROGRAMS[number].replace("127.0.0.1:50051", gateway_process)

    assert gateway_process in code

    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(5)]
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)

    assert lines[0].startswith("Reading(reference='Tank_001.Level'")
    assert all("Tank_001.Level" in line or "Pump_001.Speed" in line for line in lines[1:])
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
