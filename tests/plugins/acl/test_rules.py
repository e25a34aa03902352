"""The table of rights is complete: every RPC and every command of the contract is in it, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

import mxgw.v1
from mxgw.v1.commands_pb2 import MxCommand
from mxgw_acl.keys import SCOPE_MEANINGS, Scope
from mxgw_acl.rules import AUDITED_COMMANDS, COMMANDS, DECLARED, REFLECTION, RULES, Names, rule_of


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Yield every RPC of the contract, wherever in the package it stands."""
    for module in pkgutil.iter_modules(mxgw.v1.__path__):
        if module.name.endswith("_service_pb2"):
            descriptor = importlib.import_module(f"mxgw.v1.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                for method in service.methods:
                    yield f"/{service.full_name}/{method.name}", method


METHODS = dict(methods())


def test_every_rpc_of_the_core_has_its_row_and_no_row_is_about_nothing() -> None:
    core = {name for name in METHODS if name.split("/")[1].split(".")[-1] in _CORE_SERVICES}

    assert len(core) >= 12
    assert set(RULES) == core | REFLECTION


_CORE_SERVICES = {"SessionService", "CommandService", "EventService", "GatewayService"}


@pytest.mark.parametrize("method", sorted(RULES.keys() - REFLECTION))
def test_a_row_knows_whether_the_request_names_a_session(method: str) -> None:
    names = "session_id" in METHODS[method].input_type.fields_by_name

    assert names == (RULES[method].names is not Names.NO_SESSION)


def test_no_rpc_of_the_core_is_open_to_callers_without_a_key() -> None:
    assert not [method for method, rule in RULES.items() if rule.public]


def test_every_command_has_its_row_and_no_row_is_about_nothing() -> None:
    assert set(COMMANDS) == {field.name for field in MxCommand.DESCRIPTOR.oneofs_by_name["command"].fields}
    assert all(COMMANDS.values())
    assert set(COMMANDS) >= AUDITED_COMMANDS


def test_every_command_that_writes_is_recorded() -> None:
    assert {name for name in COMMANDS if "write" in name} <= AUDITED_COMMANDS


def test_every_scope_has_a_meaning_and_may_be_declared() -> None:
    assert set(SCOPE_MEANINGS) == set(Scope)
    assert {scope.value for scope in Scope} <= set(DECLARED)


@pytest.mark.parametrize(
    ("declared", "is_recorded"),
    [
        ("read", False),
        ("events", False),
        ("write", True),
        ("secured-write", True),
        ("admin", True),
        ("read|viewer", False),
        ("write|viewer", True),
        ("read|administrator", True),
    ],
)
def test_allowed_calls_of_a_declared_method_are_recorded_when_it_can_change_something(
    declared: str, *, is_recorded: bool
) -> None:
    rule = rule_of("/some.plugin.v1.Service/Do", declared)

    assert rule is not None
    assert rule.is_audited is is_recorded


@pytest.mark.parametrize("declared", ["", "unheard-of", "READ"])
def test_a_method_of_which_nobody_said_what_it_needs_has_no_rule(declared: str) -> None:
    assert rule_of("/some.plugin.v1.Service/Do", declared) is None


def test_a_service_cannot_declare_away_what_the_table_says() -> None:
    method = "/mxgw.v1.SessionService/CloseSession"

    assert rule_of(method, "public") is RULES[method]
