"""`workers.python`: workers run in another Python than the gateway, also spare and adopted ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.adoption import LOAD, adopted
from support.clients import client_of
from support.command_line import run_mxgw
from support.pythons import make_python
from support.restarts import Restarts, restarts
from support.waiting import until


def _programs(gateway: Restarts) -> list[str]:
    return [worker.cmdline()[0] for worker in gateway.workers()]


@pytest.mark.asyncio
async def test_workers_and_spares_run_in_the_named_python_and_the_next_gateway_adopts_them_whatever_it_names(
    tmp_path: Path,
) -> None:
    python = str(make_python(tmp_path / "venv"))
    async with restarts(f"{LOAD}\n[workers]\nwarm_pool = 1\npython = '{python}'") as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            first = await client.open()
            await until(lambda: _programs(gateway) == [python] * 2)
            second = await client.open()  # takes the spare
            before = {worker.pid for worker in gateway.workers()}
        await gateway.kill()
        (gateway.directory / "settings.toml").write_text(LOAD)
        await gateway.start()
        async with client_of(gateway.target) as client:
            for session in (first, second):
                await adopted(client, session.session_id)
            pids = {worker.pid for worker in gateway.workers()}

            assert len(pids) == 2
            assert pids <= before
            assert _programs(gateway) == [python] * 2

            await client.open()

            assert sorted(_programs(gateway)) == sorted([python, python, sys.executable])


def test_every_command_that_checks_settings_refuses_a_python_that_cannot_run_workers(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", mxgw=None)
    options = ("--set", f"workers.python={python}", "--set", f"gateway.data_dir={tmp_path / 'd'}")
    sentence = f"workers.python {python} is a Python without mxgw"
    checked = run_mxgw("config", "check", *options)
    command = [sys.executable, "-m", "mxgw_cli", "serve", "--listen", "127.0.0.1:0", *options]
    served = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    examined = json.loads(run_mxgw("doctor", "--json", *options).stdout)["checks"]

    assert checked.exit_code == served.returncode == 1
    assert checked.stdout.startswith(sentence)
    assert sentence in served.stderr
    assert "Traceback" not in served.stderr
    assert [check["outcome"] for check in examined if check["detail"].startswith(sentence)] == ["failed"]
    assert [check["detail"] for check in examined if check["area"] == "Backends"] == [
        "the workers' Python cannot run them"
    ]
