"""docs/monitoring.md and docs/monitoring/ say what is so: every name in them is one that a real gateway exports."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import client_of, read_events
from support.prometheus import needs_prometheus
from support.repository import ROOT
from support.scraping import Scrape, scraped_gateway
from support.waiting import until

from mxgw_core.config import load_settings
from mxgw_metrics import MetricsSettings

PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
FOLDER = ROOT / "docs" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = (FOLDER / "alerts.yml").read_text(encoding="utf-8")


async def scrape_of_a_gateway_at_work() -> Scrape:
    """Return the metrics of a gateway that has a session and a subscriber, with every plugin that brings some."""
    load = {"backends.sim.profile": "load", "backends.sim.items": 10, "backends.sim.rate": 1000.0}
    async with (
        scraped_gateway("backpressure", "replay", "reattach", "alarms", **load) as gateway,
        client_of(gateway.target) as client,
    ):
        session = await client.open()
        await client.subscribe(session.session_id, ["Load.Item00001"])
        await read_events(client.stream(session.session_id), 10)
        await until(lambda: any(each.horizon_s is not None for each in gateway.gateway.api.sessions()))
        found = await gateway.scrape()
        await client.close(session.session_id)
        return found


@pytest.fixture(scope="module")
def scrape() -> Scrape:
    return asyncio.run(scrape_of_a_gateway_at_work())


def expressions() -> Iterator[str]:
    """Yield what the dashboard asks for."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"]


def names_in(text: str) -> set[str]:
    """Return the names of metrics in expressions."""
    return set(re.findall(r'(?<!")\b(?:mxgw_[a-z0-9_]+|process_[a-z0-9_]+)\b', text))


def labels_in(text: str) -> set[tuple[str, str]]:
    """Return each metric with each label that is asked of it."""
    found = set()
    for name, matchers in re.findall(r"\b((?:mxgw|process)_[a-z0-9_]+)\{([^}]*)\}", text):
        found |= {(name, label) for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)}
    return found - {pair for pair in found if pair[1] in ("job", "instance")}


def test_dashboard_and_alerts_ask_for_nothing_that_is_not_exported(scrape: Scrape) -> None:
    tests = (FOLDER / "alerts.test.yml").read_text(encoding="utf-8")
    asked = {"grafana-dashboard.json": "\n".join(expressions()), "alerts.yml": RULES, "alerts.test.yml": tests}
    wrong = {f"{file}: {name}" for file, text in asked.items() for name in names_in(text) - scrape.names()}
    labels = {(name, label) for name in scrape.names() for own, _ in scrape.all(name) for label in own}
    wrong |= {f"{file}: {pair}" for file, text in asked.items() for pair in labels_in(text) - labels}

    assert all(names_in(text) for text in asked.values())
    assert not wrong


def test_each_metric_stands_on_the_page_with_its_kind_labels_and_meaning_and_no_other_does(scrape: Scrape) -> None:
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in re.findall(
            r"^\| `(mxgw_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE, re.MULTILINE
        )
    }
    exported = {}
    for family in scrape.families.values():
        if family.name.startswith("mxgw_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            exported[name] = family

    assert documented.keys() == exported.keys()

    for name, (kind, labels, meaning) in documented.items():
        samples = {frozenset(sample.labels) - {"le"} for sample in exported[name].samples}

        assert (kind, meaning) == (exported[name].type, exported[name].documentation), name
        assert samples <= {frozenset(labels)}, name


def test_the_metrics_of_the_process_are_those_on_the_page(scrape: Scrape) -> None:
    assert {name for name in scrape.names() if not name.startswith("mxgw_")} == set(
        re.findall(r"`(process_\w+)`", PAGE)
    )


def test_the_dashboard_shows_every_counter_and_gauge_but_those_that_others_tell(scrape: Scrape) -> None:
    shown = names_in("\n".join(expressions()))
    hidden = {
        name
        for name in scrape.names()
        if name.startswith("mxgw_") and not name.endswith(("_sum", "_count")) and name not in shown
    }

    assert hidden == {"mxgw_draining", "mxgw_ring_events", "mxgw_worker_oldest_start_time_seconds"}


def test_each_alert_stands_on_the_page_and_no_other_does() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)

    assert re.findall(r"^\| `(Mxgw\w+)` \|", PAGE, re.MULTILINE) == alerts


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = (FOLDER / "alerts.test.yml").read_text(encoding="utf-8").split("\n  - name: ")
    healthy, *faults = cases[1:]
    for alert in re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE):
        assert f"alertname: {alert}}}" in healthy
        assert any(f"alertname: {alert}\n        exp_alerts" in case for case in faults), alert


@needs_prometheus
def test_promtool_accepts_configuration_and_rules_and_their_tests_pass() -> None:
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ):
        done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=30)

        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_imported_anywhere() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]}

    assert len(panels) > 20
    assert len(set(numbers)) == len(numbers) == len(places)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in panels for target in panel["targets"])
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)
    assert "id" not in DASHBOARD  # it would overwrite somebody else's


def test_the_settings_are_those_of_the_plugin_with_their_defaults() -> None:
    section = PAGE.partition("\n## Settings\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|[^|]*\| (.+) \|$", section, re.MULTILINE)
    fields = MetricsSettings.model_fields

    assert [row[0] for row in rows] == list(fields)
    for name, default, meaning in rows:
        shown = str(fields[name].default)

        assert default == (shown.lower() if isinstance(fields[name].default, bool) else shown)
        assert meaning == fields[name].description


def test_the_printed_settings_are_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "settings.toml").write_text(block, encoding="utf-8")
    settings = load_settings(environ={}, directory=tmp_path).settings

    assert "metrics" in settings.plugins.enabled
    assert MetricsSettings(**settings.plugin_sections["metrics"]) == MetricsSettings()
