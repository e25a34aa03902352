"""Exceptions of plugins that raise SystemExit when they are shown: they fail their plugin, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mxgw_core.api.errors import InvalidRequest, PluginFailed, SettingsError
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.plugins.calls import CallFailed
from mxgw_core.plugins.loading import describe

from .conftest import Install, settings


def exits(*_: object) -> Any:
    raise SystemExit(9)


class Meta(type):
    __name__ = property(exits)


class BrokenText(Exception):
    __str__ = __repr__ = exits


class BrokenName(Exception, metaclass=Meta):
    pass


class BrokenClass(Exception):
    __class__ = property(exits)


class BrokenRefusal(InvalidRequest):
    __str__ = exits


class BrokenReason(InvalidRequest):
    reason = property(exits)


class Text(str):
    __iter__ = __str__ = __format__ = exits


# They are made inside the test, because pytest shows what it gets as a parameter.
BROKEN: dict[str, Callable[[], Exception]] = {
    "BrokenText": BrokenText,
    "BrokenName": lambda: BrokenName("x"),
    "BrokenClass": lambda: BrokenClass("x"),
    "BrokenReason": lambda: BrokenReason("x"),
    "ValueError": lambda: ValueError(Text("x")),
}


@pytest.mark.parametrize("class_name", BROKEN)
def test_an_exception_that_cannot_be_shown_fails_its_plugin_alone(class_name: str) -> None:
    error = BROKEN[class_name]()

    class Plugin:
        @staticmethod
        def fail() -> None:
            raise error

    host = PluginHost()
    owner = host.calls.owner("evil", "mxgw_session_opened")
    with pytest.raises(CallFailed):
        owner.call("Guard.denied", None, Plugin.fail)
    with pytest.raises(CallFailed), owner.contained("a part"):
        Plugin.fail()

    assert host.failures == {("evil", "mxgw_session_opened"): 2}
    assert describe(error).startswith(class_name)
    assert describe(ExceptionGroup("several", [error])).startswith(f"ExceptionGroup of {class_name}")


def test_refusals_that_can_be_shown_stay_what_they_are() -> None:
    owner = PluginHost().calls.owner("good", "mxgw_session_opened")

    def refuses() -> None:
        raise PluginFailed("not now")

    with pytest.raises(PluginFailed, match="not now"):
        owner.call("Guard.denied", None, refuses)


def test_a_refusal_that_cannot_be_shown_becomes_a_plain_one() -> None:
    host = PluginHost()

    def refuses() -> None:
        raise BrokenRefusal("not yours")

    with pytest.raises(InvalidRequest, match="not yours") as refusal:
        host.calls.owner("evil", "mxgw_command_guard").call("Guard.denied", None, refuses)

    assert type(refusal.value) is InvalidRequest
    assert not host.failures


HEAD = """
from mxgw_core.api.errors import SettingsError
def exits(*_): raise SystemExit(9)
class Meta(type): __name__ = property(exits)
class Broken(Exception): __str__ = __repr__ = exits
class Lying(Exception, metaclass=Meta): pass
class Odd: __repr__ = exits
class Section(SettingsSection): name = property(exits)
class BadSettings(SettingsError): __str__ = exits
class Named(metaclass=Meta):
    def __init__(self): raise Broken
class Plugin:
    @hookimpl
    def mxgw_session_opened(self, session): raise Broken
"""


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("raise Broken", "raised Broken"),
        ("raise Lying('x')", "raised Lying: x"),
        ("Plugin.requires_api = Odd()", "reading its requires_api raised SystemExit: 9"),
        ("Plugin = Named", "constructing Named() raised Broken"),
        ("def mxgw_settings(self): raise Broken", "mxgw_settings raised Broken"),
        (
            "def mxgw_settings(self): return Section.__new__(Section)",
            "the answer of mxgw_settings raised SystemExit: 9",
        ),
    ],
)
def test_what_cannot_be_shown_at_the_load_is_a_failure_of_the_plugin(install: Install, fault: str, detail: str) -> None:
    if fault.startswith("def"):
        fault = f"Plugin.mxgw_settings = None\n{fault}\nPlugin.mxgw_settings = hookimpl(mxgw_settings)"
    install("evil", HEAD + fault)

    (record,) = [record for record in PluginHost.load(settings("evil")).records if record.name == "evil"]

    assert record.state is PluginState.FAILED
    assert detail in record.detail


def test_a_settings_error_that_cannot_be_shown_stops_the_start_in_words(install: Install) -> None:
    code = (
        HEAD + "from pydantic import BaseModel\nclass Model(BaseModel): pass\ndef apply(settings): raise BadSettings\n"
    )
    code += "def mxgw_settings(self): return SettingsSection('evil', Model, apply)\n"
    install("evil", code + "Plugin.mxgw_settings = hookimpl(mxgw_settings)")

    with pytest.raises(SettingsError, match="a SettingsError without a text"):
        PluginHost.load(settings("evil"))


def test_a_hook_whose_exception_cannot_be_shown_is_asked_again(install: Install) -> None:
    install("evil", HEAD)
    host = PluginHost.load(settings("evil"))

    for _ in range(2):
        (answer,) = host.ask("mxgw_session_opened", session=None)
        assert isinstance(answer.error, CallFailed)
    assert host.failures == {("evil", "mxgw_session_opened"): 2}
