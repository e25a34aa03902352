"""Scenarios as data: what the gateway does, what the client is asked to do, and what must come of it.

docs/clients/conformance.md describes the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "scenarios"
EPOCH = bytes(range(16))
OTHER_EPOCH = bytes(16)
# Words that stand for the two epochs wherever a scenario names one.
EPOCHS = {"EPOCH": EPOCH.hex(), "OTHER": OTHER_EPOCH.hex()}
# Quick attempts, so that a scenario takes milliseconds; one that needs others says so. Their number has a limit, so
# that a client which never gives up fails a scenario within a second.
QUICK = {"first_delay_s": 0.01, "longest_delay_s": 0.05, "attempt_timeout_s": 10.0, "maximum_attempts": 20}
_KEYS = {"name", "says", "steps", "stream", "streams", "calls", "replies", "contract", "requests", "unchecked"}


class ScenarioError(ValueError):
    """A scenario is malformed."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    Attributes:
        group: the name of its file.
        name: unique among all scenarios; files of expected failures name it.
        says: one sentence: what a client does here.
        steps: the commands for the testee, with what must come of each.
        streams: for each StreamEvents call in order, the expected request and the frames.
        calls: Key: a call. Value: how its first calls are answered, one each.
        replies: Key: a command. Value: its reply, as JSON of MxReply.
        contract: what GetGatewayInfo names.
        requests: what must be true of the calls that came.
        unchecked: why the checker of promises is not asked; empty when it is.
    """

    group: str
    name: str
    says: str
    steps: Sequence[Mapping[str, Any]]
    streams: Sequence[Mapping[str, Any]] = ()
    calls: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    replies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    contract: str = "mxgw.v1"
    requests: Sequence[Mapping[str, Any]] = ()
    unchecked: str = ""


def load(folder: Path = FOLDER) -> list[Scenario]:
    """Return all scenarios of a folder, by file name and in the order of each file.

    Raises:
        ScenarioError: a file is no list of scenarios, or a name is not unique.
    """
    found: dict[str, Scenario] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ScenarioError(f"{path}: {error}") from error
        for entry in entries:
            scenario = _scenario(path.stem, entry)
            if scenario.name in found:
                raise ScenarioError(f"{path}: two scenarios are called {scenario.name}")
            found[scenario.name] = scenario
    return list(found.values())


def _scenario(group: str, entry: Mapping[str, Any]) -> Scenario:
    name = entry.get("name", "")
    if unknown := sorted(entry.keys() - _KEYS):
        raise ScenarioError(f"{group}: scenario {name!r} has the unknown key {unknown[0]!r}")
    if not name or not entry.get("says"):
        raise ScenarioError(f"{group}: a scenario needs a name and a sentence, this one has {name!r}")
    if ("steps" in entry) == ("stream" in entry):
        raise ScenarioError(f"{group}: scenario {name!r} needs either steps or a stream")
    steps = entry.get("steps") or [{"do": "open_session"}, {"do": "stream", **entry["stream"]}]
    facts = {key: entry[key] for key in _KEYS - {"stream", "steps"} if key in entry}
    return Scenario(group=group, steps=steps, **facts)


def chosen(scenarios: Iterable[Scenario], words: Sequence[str]) -> list[Scenario]:
    """Return the scenarios whose name or group contains one of the words; all of them when there are no words."""
    return [s for s in scenarios if not words or any(word in s.name or word == s.group for word in words)]


def with_epochs(value: Any) -> Any:
    """Return a part of a scenario with epochs in place of the words that stand for them."""
    match value:
        case str():
            return EPOCHS.get(value, value)
        case dict():
            return {key: with_epochs(inner) for key, inner in value.items()}
        case list():
            return [with_epochs(inner) for inner in value]
    return value
