"""What would end the workers together with their gateway is found at start, and named with its cure."""

from __future__ import annotations

import pytest

from mxgw_reattach.environment import kill_mode_of, unit_of, warnings_in

SYSTEM = "0::/system.slice/mxgw.service\n"
USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/mxgw.service\n"
SCOPE = "0::/user.slice/user-1000.slice/session-3.scope\n"
BELOW = "0::/system.slice/mxgw.service/gateway\n"


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (SYSTEM, "mxgw.service"),
        (USER, "mxgw.service"),
        (BELOW, "mxgw.service"),
        (SCOPE, None),
        ("0::/\n", None),
        ("", None),
        ("12:memory:/elsewhere.service\n0::/\n", None),
    ],
)
def test_the_unit_is_the_innermost_service(cgroup: str, unit: str | None) -> None:
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize("mode", ["control-group", "mixed"])
def test_a_kill_mode_that_ends_workers_is_named_with_its_cure(mode: str) -> None:
    (warning,) = warnings_in(100, SYSTEM, "an invocation", lambda unit: {"mxgw.service": mode}[unit])

    assert f"KillMode={mode}" in warning
    assert "mxgw.service" in warning
    assert "reattach.conf" in warning


@pytest.mark.parametrize("mode", ["process", "none"])
def test_a_kill_mode_that_leaves_workers_alone_is_fine(mode: str) -> None:
    assert warnings_in(100, SYSTEM, "an invocation", lambda unit: mode) == []


def test_when_systemd_does_not_tell_that_is_said() -> None:
    (warning,) = warnings_in(100, SYSTEM, "an invocation", lambda unit: "")

    assert "cannot tell" in warning


def test_outside_of_a_service_there_is_nothing_to_warn_of() -> None:
    def never(unit: str) -> str:
        raise AssertionError(unit)

    assert warnings_in(100, SCOPE, "an invocation", never) == []
    assert warnings_in(100, SYSTEM, "", never) == []


def test_the_first_process_of_a_container_takes_everything_with_it() -> None:
    (warning,) = warnings_in(1, "0::/\n", "", lambda unit: "process")

    assert "container" in warning


def test_a_user_s_own_units_are_asked_for_as_well() -> None:
    asked: list[list[str]] = []

    def run(command: object) -> str:
        asked.append(list(command))  # type: ignore[call-overload]
        return "process\n" if "--user" in asked[-1] else "\n"

    assert kill_mode_of("mxgw.service", run) == "process"
    assert len(asked) == 2
