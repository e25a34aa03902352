"""docs/replay.md says what is so: its settings, its reasons, its programs."""

from __future__ import annotations

import ast
import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.repository import ROOT
from support.waiting import until

import mxgw_client
from mxgw_core.api import errors
from mxgw_core.config import load_settings
from mxgw_core.testing import running_gateway
from mxgw_core.testing.checker import Promise
from mxgw_replay import ReplaySettings

PAGE = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return what stands under a heading."""
    _, _, rest = PAGE.partition(f"\n{heading}\n")

    assert rest, heading

    level = heading.split(maxsplit=1)[0]
    return re.split(rf"^#{{2,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_settings_are_those_of_the_plugin_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", section("## Settings"), re.MULTILINE)
    defaults = {
        name: str(field.default).lower() if isinstance(field.default, bool) else f"{field.default:g}"
        for name, field in ReplaySettings.model_fields.items()
    }
    shown = {name: value if value in ("true", "false") else f"{float(value):g}" for name, value in rows}

    assert shown == defaults


def test_the_printed_settings_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    assert len(blocks) == 2

    (tmp_path / "settings.toml").write_text("\n".join(blocks), encoding="utf-8")
    settings = load_settings(environ={}, directory=tmp_path).settings

    assert settings.plugins.enabled == ("replay",)
    assert ReplaySettings(**settings.plugin_sections["replay"]).events == 130_000


def test_every_promise_is_listed_with_its_number() -> None:
    listed = re.findall(r"^\| (I\d) \|", section("## What is promised"), re.MULTILINE)
    judged = sorted({match[0] for promise in Promise if (match := re.match(r"I\d", promise.value))})

    assert listed == judged


def test_every_reason_it_names_exists() -> None:
    from mxgw.v1.events_pb2 import GapReason
    from mxgw.v1.session_service_pb2 import CloseReason

    def reasons(kind: type[errors.GatewayError]) -> set[str]:
        return {kind.reason}.union(*map(reasons, kind.__subclasses__()))

    known = reasons(errors.GatewayError)
    known |= {name.removeprefix("GAP_REASON_") for name in GapReason.keys()}  # noqa: SIM118 - no dictionary
    known |= {name.removeprefix("CLOSE_REASON_") for name in CloseReason.keys()}  # noqa: SIM118 - no dictionary
    known |= {"DELIVER_RETAINED", "REFUSE", "SNAPSHOT", "UNAVAILABLE", "DATA_LOSS"}
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE))

    assert named
    assert named <= known | {"SESSION_CLOSED", "WORKER_EXITED"}


def test_its_programs_are_python() -> None:
    assert len(programs()) == 2
    for program in programs():
        ast.parse(f"async def main():\n{textwrap.indent(program, '    ')}")


@pytest.mark.asyncio
async def test_the_program_goes_on_in_its_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [program for program in programs() if "read_position_file" in program]
    seen: list[int] = []
    code = f"async def main(gateway, store):\n{textwrap.indent(program, '    ')}"
    names: dict[str, Any] = {"read_position_file": mxgw_client.read_position_file}
    exec(compile(code, "docs/replay.md", "exec"), names)
    monkeypatch.chdir(tmp_path)
    async with (
        running_gateway({"plugins.enabled": ["replay"]}) as gateway,
        mxgw_client.connect(gateway.target) as client,
    ):

        def store(event: object) -> None:
            if isinstance(event, mxgw_client.DataChange):
                seen.append(event.sequence)

        for enough in (3, 6):
            async with asyncio.TaskGroup() as tasks:
                run = tasks.create_task(names["main"](client, store))
                await until(lambda: len(seen) >= enough, 60)  # noqa: B023 - awaited before it changes
                run.cancel()
        stored = mxgw_client.read_position_file("line4.pos")

    assert stored is not None
    assert seen == sorted(seen)
    assert set(seen) == set(range(1, len(set(seen)) + 1))
    # Of each run the last item may have been handed out and not been done with.
    assert len(seen) - len(set(seen)) <= 1
