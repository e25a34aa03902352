"""docs/backpressure.md says what the settings model and the counters say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from support.repository import ROOT

from mxgw.v1.events_pb2 import GapReason
from mxgw_backpressure import BackpressureSettings
from mxgw_backpressure.plugin import POLICIES
from mxgw_core.api.events import Action
from mxgw_core.events.counts import LABELS

PAGE = (ROOT / "docs" / "backpressure.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "plugins" / "writing-an-overflow-policy.md").read_text(encoding="utf-8")


def settings_rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the row of each setting: key, default, range, meaning."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_rows(field.annotation, f"{prefix}{name}.")
            continue
        default: Any = field.get_default(call_default_factory=True)
        yield f"| `{prefix}{name}` | `{json.dumps(default)}` | {bounds(field)} | {field.description} |"


def bounds(field: Any) -> str:
    words = []
    for attribute, word in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        words += [f"{word} {getattr(m, attribute):,}" for m in field.metadata if hasattr(m, attribute)]
    return ", ".join(words)


@pytest.mark.parametrize("row", tuple(settings_rows(BackpressureSettings)), ids=lambda row: row.split("`")[1])
def test_the_page_has_every_setting_as_the_model_has_it(row: str) -> None:
    assert row in PAGE, f"put this into docs/backpressure.md:\n{row}"


def test_the_page_has_no_setting_that_does_not_exist() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    shown = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)

    assert shown == [row.split("`")[1] for row in settings_rows(BackpressureSettings)]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_page_has_every_policy(policy: str) -> None:
    assert re.search(rf"^\| `{policy}`( \(default\))? \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("counter", "labels"), tuple(LABELS.items()))
def test_the_page_has_every_counter_with_its_labels(counter: str, labels: tuple[str, ...]) -> None:
    assert f"| `{counter}` | {', '.join(f'`{label}`' for label in labels)} |" in PAGE


def test_gap_reasons_on_the_page_exist() -> None:
    known = {name.removeprefix("GAP_REASON_") for name, _ in GapReason.items()}
    named = set(re.findall(r"`(QUEUE_DROPPED|CONFLATED|WORKER_OUTBOX_OVERRUN)`", PAGE))

    assert named == {"QUEUE_DROPPED", "CONFLATED", "WORKER_OUTBOX_OVERRUN"}
    assert named <= known


def test_the_guide_has_every_action_with_its_parameters() -> None:
    kinds = Action.__args__  # type: ignore[attr-defined]
    shown = dict(re.findall(r"^\| `(\w+)\(([\w, ]*)\)` \|", GUIDE, re.MULTILINE))

    assert shown == {kind.__name__: ", ".join(kind.__dataclass_fields__) for kind in kinds}
