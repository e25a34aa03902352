"""A plugin says which versions of the plugin API it can use; a gateway that has another refuses it, in words."""

from __future__ import annotations

import ast
import re

import pytest
from support.repository import ROOT

from mxgw_core.api import API_VERSION
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.plugins.required_api import why_not

from .conftest import Install, settings

NEWER_GATEWAY = "install a newer release of mxgw, or an older release of the plugin"
NEWER_PLUGIN = "install a newer release of the plugin, or an older release of mxgw"


def test_the_version_is_a_major_and_a_minor_number() -> None:
    assert [part.isdecimal() for part in API_VERSION.split(".")] == [True, True]


@pytest.mark.parametrize(
    "requires", [">=1.0", ">=1.4", "~=1.2", ">=1.0,<2", "==1.*", ">1.3", "!=1.3", "==1.4", "<2, >=1", "===1.4"]
)
def test_a_range_that_has_this_version_is_no_problem(requires: str) -> None:
    assert why_not(requires, "1.4") == ""


@pytest.mark.parametrize(
    ("requires", "advice"),
    [
        (">=1.5", NEWER_GATEWAY),
        (">1.4", NEWER_GATEWAY),
        ("~=1.5", NEWER_GATEWAY),
        ("==2.*", NEWER_GATEWAY),
        (">=1.10,<2", NEWER_GATEWAY),
        ("<1.4", NEWER_PLUGIN),
        ("~=0.9", NEWER_PLUGIN),
        ("==0.*", NEWER_PLUGIN),
        ("!=1.4", NEWER_PLUGIN),
        (">=0.5,<1", NEWER_PLUGIN),
        ("===one", NEWER_PLUGIN),
    ],
)
def test_a_range_without_this_version_says_what_is_needed_what_is_here_and_what_to_do(
    requires: str, advice: str
) -> None:
    assert why_not(requires, "1.4") == f"it needs plugin API {requires}, and this release of mxgw has 1.4: {advice}"


@pytest.mark.parametrize("requires", ["", "1.0", ">=one", "newest", ">=1.0 <2", "x" * 10_000])
def test_what_is_no_range_says_how_one_is_written(requires: str) -> None:
    problem = why_not(requires)

    assert "is no range of API versions: write for example requires_api = " in problem
    assert len(problem) < 200


@pytest.mark.parametrize(
    "requires", [1.0, 1, (1, 0), [">=1.0"], b">=1.0", property()], ids=lambda value: type(value).__name__
)
def test_what_is_no_text_says_what_it_is(requires: object) -> None:
    assert f"its requires_api is {type(requires).__name__} " in why_not(requires)


@pytest.mark.parametrize("value", ["{module}:Plugin", "{module}:plugin", "{module}"])
def test_a_class_an_object_and_a_module_can_say_it(install: Install, value: str) -> None:
    for name, requires in (("fits", ">=1.0"), ("does_not", ">=99")):
        lines = [
            f"requires_api = {requires!r}",
            "@hookimpl",
            "def mxgw_session_detached(session): ...",
            "class Plugin:",
            f"    requires_api = {requires!r}",
            "    @hookimpl",
            "    def mxgw_session_detached(self, session): ...",
            "plugin = Plugin()",
        ]
        install(name, "\n".join(lines), value=value)
    host = PluginHost.load(settings("fits", "does_not"))
    states = {record.name: record.state for record in host.records}

    assert states["fits"] is PluginState.LOADED
    assert states["does_not"] is PluginState.FAILED


def test_the_page_has_the_sentences_that_a_plugin_is_refused_with() -> None:
    page = (ROOT / "docs" / "plugins" / "versions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (it.*) \|$", page, re.MULTILINE)

    assert len(rows) == 4
    assert [sentence for _, sentence in rows] == [why_not(ast.literal_eval(text), "1.0") for text, _ in rows]
