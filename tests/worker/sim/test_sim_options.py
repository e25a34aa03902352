"""Options: every wrong one is refused by name before anything starts."""

import json
from pathlib import Path

import pytest

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.options import defaults, parse_options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"profil": "load"}, "no option 'profil'; did you mean 'profile'?"),
        ({"zzz": 1}, "no option 'zzz'; it knows alarm_rate, alarm_seed, "),
        ({"profile": "factory"}, "'profile' of backend sim must be one of plant, recording, load, not 'factory'"),
        ({"profile": "load", "rate": -1}, "'rate' of backend sim must be a number from 0 to 1e"),
        ({"profile": "load", "rate": "fast"}, "'rate' .* not 'fast'"),
        ({"profile": "load", "rate": True}, "'rate' .* not True"),
        ({"profile": "load", "rate": float("nan")}, "'rate' .* not nan"),
        ({"profile": "load", "items": 0}, "'items' of backend sim must be a whole number from 1 to 1000000, not 0"),
        ({"profile": "load", "items": 1.5}, "'items' .* not 1.5"),
        ({"profile": "load", "burst": "huge"}, "'burst' .* one of paced, max"),
        ({"profile": "load", "text_bytes": 70_000}, "'text_bytes'"),
        ({"rate": 5}, "'rate' of backend sim belongs to profile load, not to 'plant'"),
        ({"profile": "load", "resolve_delay_s": 1}, "'resolve_delay_s' .* belongs to profile plant or recording"),
        ({"controls": "yes"}, "'controls' of backend sim must be true or false"),
        ({"seed": -1}, "'seed'"),
        ({"update_period_s": 0}, "'update_period_s'"),
        ({"profile": "recording", "file": 3}, "'file' of backend sim must be a text"),
        ({"profile": "recording", "object": "Steel Works"}, "'object' of backend sim must be a tag name"),
        ({"profile": "recording", "source_time": "then"}, "'source_time' .* one of now, recorded"),
        ({"security": "none"}, "'security' .* one of open, galaxy, os"),
        ({"users": ["olga"]}, "'users' of backend sim must be a table of users"),
        ({"users": {"olga": 5}}, "'users.olga' of backend sim must be a password"),
        ({"users": {"olga": {"password": "x", "guide": "y"}}}, "'users.olga' .* has no key 'guide'"),
        ({"users": {"olga": {"password": "x", "guid": "y"}}}, "'users.olga.guid' .* must be a GUID"),
        ({"users": {"olga": {"password": "x", "permissions": ["fly"]}}}, "'users.olga.permissions' .* operate, tune"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, object], text: str) -> None:
    with pytest.raises(BackendUnavailable, match=text):
        SimBackend(options)


def test_errors_about_users_never_show_a_password() -> None:
    with pytest.raises(BackendUnavailable) as refused:
        SimBackend({"users": {"olga": {"password": "hunter2", "guid": 7}}})

    assert "hunter2" not in str(refused.value)


def test_a_whole_number_is_good_where_a_fraction_may_stand() -> None:
    assert parse_options({"profile": "load", "rate": 5}).rate == 5.0


def test_profile_load_resolves_at_once() -> None:
    assert parse_options({"profile": "load"}).resolve_delay_s == 0.0


def test_the_page_about_the_simulator_lists_every_option_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "backends" / "sim.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip().strip("`"): default.strip().strip("`") for name, default in rows}

    assert {name: listed.get(name) for name in defaults()} == {
        name: json.dumps(value) for name, value in defaults().items()
    }
