"""What docs/alarms.md promises is what the plugin has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.repository import ROOT

from mxgw.v1.alarm_service_pb2 import AcknowledgeOutcome
from mxgw.v1.alarms_pb2 import AlarmEventKind, AlarmState
from mxgw_alarms import AlarmsSettings
from mxgw_alarms.service import SCOPES
from mxgw_core.config import load_settings

PAGE = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")


def test_the_settings_are_those_of_the_plugin_with_their_defaults() -> None:
    section = PAGE.split("## Settings")[1].split("## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.MULTILINE))
    defaults = {}
    for name, field in AlarmsSettings.model_fields.items():
        value = field.default
        if isinstance(value, str):
            defaults[name] = f'"{value}"'
        elif isinstance(value, bool) or not isinstance(value, int | float):
            defaults[name] = str(value).lower()
        else:
            defaults[name] = str(value) if isinstance(value, int) else f"{value:g}"

    assert shown == defaults


def test_the_printed_settings_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "settings.toml").write_text("\n".join(blocks), encoding="utf-8")
    settings = load_settings(environ={}, directory=tmp_path).settings

    assert settings.plugins.enabled == ("alarms",)
    assert AlarmsSettings(**settings.plugin_sections["alarms"]).references == ("Tank_001.Level", "Boiler_001.Pressure")


def test_every_state_event_and_outcome_is_named() -> None:
    for enum, prefix in (
        (AlarmState, "ALARM_STATE_"),
        (AlarmEventKind, "ALARM_EVENT_KIND_"),
        (AcknowledgeOutcome, "ACKNOWLEDGE_OUTCOME_"),
    ):
        for name in enum.keys():  # noqa: SIM118  an enum of the contract is no dictionary
            word = name.removeprefix(prefix)

            assert word == "UNSPECIFIED" or f"`{word}`" in PAGE, word


def test_the_scopes_are_those_that_the_service_declares() -> None:
    for method, declared in SCOPES.items():
        scope, role = declared.split("|")

        assert f"| `{method}` | scope `{scope}` | {role} |" in PAGE


def test_its_programs_are_python() -> None:
    for program in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        ast.parse(program)
