"""What loads, in which order, and what happens to what does not."""

from __future__ import annotations

import logging
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mxgw_core.api import API_VERSION
from mxgw_core.api.errors import PluginError, SettingsError
from mxgw_core.config.models import GatewaySettings, Settings
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState, installed_plugins
from mxgw_core.plugins.former import MODULES

from .conftest import Install, settings

OWN = "mxgw"  # stands in for the project's own distribution, so that its real plugins do not interfere

GOOD = """
class Plugin:
    @hookimpl
    def mxgw_check_settings(self, limits): return [__name__]
"""

BROKEN: dict[str, tuple[str, str]] = {
    "raises at import": ("raise RuntimeError('no licence')", "importing 'dist_bad_module:Plugin' raised RuntimeError: "
                         "no licence"),
    "leaves at import": ("import sys\nsys.exit(3)", "importing 'dist_bad_module:Plugin' raised SystemExit: 3"),
    "lacks its dependency": ("import no_such_package.part", "it needs the module 'no_such_package', which is not "
                             "installed"),
    "imports a part of core that has gone": ("import mxgw_core.cli.failures", "it imports 'mxgw_core.cli', which this "
                                             "release of mxgw does not have: plugins import mxgw_core.api only"),
    "lacks what it names": ("x = 1", "importing 'dist_bad_module:Plugin' raised AttributeError"),
    "imports a module that is gone": ("from mxgw_core.api.backup import BackupEntry", "it imports "
                                      "'mxgw_core.api.backup', which this release of mxgw does not have: the module "
                                      "is called mxgw_core.api.maintenance now; import the names"),
    "imports a name that never was": ("from mxgw_core.api import NoSuchName", "ImportError: cannot import name"),
    "raises in its constructor": ("class Plugin:\n    def __init__(self): raise OSError('disk')",
                                  "constructing Plugin() raised OSError: disk"),
    "wants arguments": ("class Plugin:\n    def __init__(self, x): pass", "constructing Plugin() raised TypeError"),
    "is a function": ("def Plugin(): pass", "must be a class, an object or a module"),
    "is nothing": ("Plugin = None", "must be a class, an object or a module"),
    "needs an API that is to come": ("class Plugin:\n    requires_api = '>=1.7'\n    def __init__(self): 1 // 0",
                                     f"it needs plugin API >=1.7, and this release of mxgw has {API_VERSION}: install "
                                     "a newer release of mxgw, or an older release of the plugin"),
    "needs an API that is gone": ("class Plugin:\n    requires_api = '<1'",
                                  f"it needs plugin API <1, and this release of mxgw has {API_VERSION}: install a "
                                  "newer release of the plugin, or an older release of mxgw"),
    "needs what is no range": ("class Plugin: requires_api = '1.0'", "its requires_api '1.0' is no range of API "
                               "versions: write for example requires_api = \">=1.0,<2\""),
    "needs a number": ("class Plugin: requires_api = 1.0", "its requires_api is float 1.0; it must be a text"),
    "does not say what it needs": ("class M(type):\n    @property\n    def requires_api(self): raise OSError('disk')\n"
                                   "class Plugin(metaclass=M): pass", "reading its requires_api raised OSError: disk"),
    "implements nothing": ("class Plugin: pass", "it implements no hook"),
    "takes an unknown argument": ("class Plugin:\n    @hookimpl\n    def mxgw_session_opened(self, sesion): pass",
                                  "are declared in the hookimpl but can not be found in the hookspec; CHANGELOG.md"),
    "takes an argument that is gone": ("class Plugin:\n    @hookimpl\n    def mxgw_worker_exited(self, exit): pass",
                                       "for hook 'mxgw_worker_exited' hookimpl definition: mxgw_worker_exited(exit) "
                                       "Argument(s) {'exit'}"),
    "takes a default": ("class Plugin:\n    @hookimpl\n    def mxgw_session_opened(self, session=None): pass",
                        "mxgw_session_opened: parameter session must be plain"),
    "takes a keyword only": ("class Plugin:\n    @hookimpl\n    def mxgw_session_opened(self, *, session): pass",
                             "mxgw_session_opened: parameter session must be plain"),
    "takes anything": ("class Plugin:\n    @hookimpl\n    def mxgw_session_opened(self, **all): pass",
                       "mxgw_session_opened: parameter all must be plain"),
    "has an unknown hook": ("class Plugin:\n    @hookimpl\n    def mxgw_sesion_opened(self, session): pass",
                            "there is no hook 'mxgw_sesion_opened'; did you mean 'mxgw_session_opened'? "
                            "CHANGELOG.md names what changed"),
    "has an unmarked hook": ("class Plugin:\n    def mxgw_session_opened(self, session): pass",
                             "mxgw_session_opened is not marked with @hookimpl"),
    "has an asynchronous hook": ("class Plugin:\n    @hookimpl\n    async def mxgw_session_opened(self, session): pass",
                                 "mxgw_session_opened is asynchronous"),
    "has a wrapper": ("class Plugin:\n    @hookimpl(wrapper=True)\n    def mxgw_session_opened(self, session): yield",
                      "mxgw_session_opened is a wrapper"),
    "declares settings badly": ("class Plugin:\n    @hookimpl\n    def mxgw_settings(self): return {}",
                                "mxgw_settings returned a dict, not a SettingsSection"),
    "raises in its declaration": ("class Plugin:\n    @hookimpl\n    def mxgw_settings(self): raise KeyError('x')",
                                  "mxgw_settings raised KeyError: 'x'"),
    "names another section": ("import pydantic\nclass M(pydantic.BaseModel): pass\n"
                              "class Plugin:\n    @hookimpl\n    def mxgw_settings(self):\n"
                              "        return SettingsSection('acl', M, print)", "it must be the plugin's name, 'bad'"),
    "has no model": ("class Plugin:\n    @hookimpl\n    def mxgw_settings(self):\n"
                     "        return SettingsSection('bad', dict, print)", "is no pydantic model"),
    "refuses its settings": ("import pydantic\nclass M(pydantic.BaseModel): pass\n"
                             "class Plugin:\n    def no(self, s): raise ValueError('not today')\n"
                             "    @hookimpl\n    def mxgw_settings(self): return SettingsSection('bad', M, self.no)",
                             "applying its settings raised ValueError: not today"),
    "exits with its settings": ("import pydantic, sys\nclass M(pydantic.BaseModel): pass\n"
                                "class Plugin:\n    @hookimpl\n"
                                "    def mxgw_settings(self): return SettingsSection('bad', M, lambda _: sys.exit(3))",
                                "applying its settings raised SystemExit: 3"),
    "exits in its model": ("import pydantic, sys\nclass M(pydantic.BaseModel):\n"
                           "    @pydantic.model_validator(mode='after')\n    def no(self): sys.exit(3)\n"
                           "class Plugin:\n    @hookimpl\n"
                           "    def mxgw_settings(self): return SettingsSection('bad', M, print)",
                           "validating its settings raised SystemExit: 3"),
}  # fmt: skip

broken = pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN.keys())


def record(host: PluginHost, name: str) -> PluginRecord:
    (found,) = [record for record in host.records if record.name == name]
    return found


@broken
def test_a_broken_plugin_fails_alone(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    install("bad", code)
    install("good", GOOD)

    host = PluginHost.load(settings("good", "bad"))

    bad = record(host, "bad")
    assert (bad.state, bad.distribution, bad.version) == (PluginState.FAILED, "dist-bad", "1.0")
    assert reason in bad.detail
    assert record(host, "good").state is PluginState.LOADED
    assert [answer.plugin for answer in host.ask("mxgw_check_settings", limits=None)] == ["good"]
    assert not host.implements("mxgw_session_opened")
    (warning,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert "'bad' of dist-bad 1.0 cannot be used: " in warning.getMessage()


@broken
def test_a_broken_plugin_that_is_required_stops_the_start(install: Install, code: str, reason: str) -> None:
    install("bad", code)

    with pytest.raises(PluginError) as caught:
        PluginHost.load(settings("bad", required=("bad",)))

    assert "required plugin 'bad' of dist-bad 1.0 cannot be used: " in str(caught.value)
    assert reason in str(caught.value)


# What plugins for an earlier release import, and a part of the text that says what took its place.
FORMER = [
    ("from mxgw_core.api import CommandObserver", "implement the hook mxgw_decided"),
    ("from mxgw_core.api import StandingAnswer", "a filter that implements StandingFilter"),
    ("from mxgw_core.api import Verdict", "it is called Action now"),
    ("from mxgw_core.api.events import Verdict", "it is called Action now"),
    ("import mxgw_core.api as api\napi.Verdict", "it is called Action now"),
    ("from mxgw_core.api.gateway import GrpcService", "import GrpcService from mxgw_core.api"),
    ("import mxgw_core.api.gateway as gateway\ngateway.GrpcService", "import GrpcService from mxgw_core.api"),
    ("from mxgw_core.api.gateway import SettingsT", "write SettingsSection[Model]"),
    ("from mxgw_core.api.observation import Finding", "import Finding from mxgw_core.api"),
    ("import mxgw_core.api.attempts", "the module is called mxgw_core.api.rate_limits now"),
    ("import mxgw_core.api.backup", "the module is called mxgw_core.api.maintenance now"),
    ("import mxgw_core.api.correlation", "the module is called mxgw_core.api.calls now"),
    ("import mxgw_core.api.distribution", "the module is called mxgw_core.api.metrics now"),
    ("import mxgw_core.api.internal", "the module is called mxgw_core.api.internal_sessions now"),
    ("import mxgw_core.api.rates", "the module is called mxgw_core.api.rate_limits now"),
    ("from mxgw_core.api import rates", "the module is called mxgw_core.api.rate_limits now"),
    ("class Plugin:\n    def __init__(self): import mxgw_core.api.rates", "mxgw_core.api.rate_limits now"),
    (
        "class Plugin:\n    @hookimpl\n    def mxgw_settings(self): from mxgw_core.api.events import Verdict",
        "Action now",
    ),
]


@pytest.mark.parametrize(("code", "instead"), FORMER)
def test_a_plugin_that_imports_what_is_gone_is_refused_with_what_took_its_place(
    install: Install, code: str, instead: str
) -> None:
    install("old", code)

    refused = record(PluginHost.load(settings("old")), "old")

    assert refused.state is PluginState.FAILED
    assert instead in refused.detail
    assert refused.detail.endswith("; CHANGELOG.md names what changed for plugins that were written before")


@pytest.mark.parametrize(
    "code",
    [
        "from mxgw_core.api import NoSuchName",
        "from mxgw_core.api.gateway import NoSuchName",
        "from json import GrpcService",
        "import json\njson.Verdict",
        "raise ImportError('no licence')",
        "object().Verdict",
    ],
)
def test_an_error_that_is_not_about_a_former_name_has_no_advice(install: Install, code: str) -> None:
    install("other", code)

    assert "CHANGELOG.md" not in record(PluginHost.load(settings("other")), "other").detail


def test_every_module_that_took_the_place_of_another_can_be_imported() -> None:
    for former, now in MODULES.items():
        assert find_spec(f"mxgw_core.api.{now}") is not None
        assert find_spec(f"mxgw_core.api.{former}") is None


def test_acl_is_required_as_soon_as_it_is_enabled(install: Install) -> None:
    install("acl", "raise RuntimeError('no key file')", distribution=OWN, access=True)

    with pytest.raises(PluginError, match=r"plugin 'acl' of mxgw 1\.0, which decides .* RuntimeError: no key"):
        PluginHost.load(settings("acl"))


def test_an_enabled_plugin_that_is_not_installed_stops_the_start(install: Install) -> None:
    install("nothing", GOOD, distribution=OWN)

    with pytest.raises(PluginError, match=r"'acl' cannot be used: is it installed\?.*\n.*'tokens' .* installed\?"):
        PluginHost.load(settings("acl", "nothing", "tokens"))


def test_a_plugin_that_is_not_installed_names_the_nearest(install: Install) -> None:
    install("greeter", GOOD)

    host = PluginHost.load(settings("greter"), keep_going=True)

    assert record(host, "greter").state is PluginState.FAILED
    assert record(host, "greter").detail.startswith("is it installed?")
    assert "did you mean 'greeter'?" in record(host, "greter").detail
    assert "dist_greeter_module" not in sys.modules


def test_only_what_is_enabled_is_imported(install: Install) -> None:
    first = install("first", GOOD)
    second = install("second", GOOD)

    host = PluginHost.load(settings("second"))

    assert second in sys.modules
    assert first not in sys.modules
    assert record(host, "first") == PluginRecord("first", PluginState.AVAILABLE, "dist-first", "1.0", required=False)


def test_listing_what_is_installed_imports_nothing(install: Install) -> None:
    module = install("loud", "raise RuntimeError", version="2.5")

    listed = [plugin for plugin in installed_plugins() if plugin.name == "loud"]

    assert listed == [PluginRecord("loud", PluginState.AVAILABLE, "dist-loud", "2.5", required=False)]
    assert module not in sys.modules


def test_two_distributions_with_one_name_stop_the_start_and_are_named(install: Install) -> None:
    modules = [install("twin", GOOD, distribution=name, version="1.2") for name in ("dist-one", "dist-two")]

    with pytest.raises(PluginError, match=r"'twin' is offered by dist-one 1\.2 and dist-two 1\.2; uninstall all but"):
        PluginHost.load(settings("twin"))

    assert not set(modules) & set(sys.modules)
    assert ["dist-one 1.2 and dist-two 1.2" in p.detail for p in installed_plugins() if p.name == "twin"] == [True]


def test_all_required_failures_are_told_together(install: Install) -> None:
    for name in ("a", "b"):
        install(name, f"raise RuntimeError('cause {name}')")

    with pytest.raises(PluginError, match=r"(?s)cause a.*\n.*cause b"):
        PluginHost.load(settings("a", "b", required=("a", "b")))


def test_a_listing_keeps_going(install: Install) -> None:
    install("acl", "raise RuntimeError('no key file')", distribution=OWN, access=True)
    install("strict", SETTINGS.replace("operator_sessions(self, operator)", "session_opened(self, session)"))

    host = PluginHost.load(settings("acl", "strict", strict={"sise": 5}), keep_going=True)

    assert [(r.name, r.state, r.required) for r in host.records if r.name in ("acl", "strict")] == [
        ("acl", PluginState.FAILED, True),
        ("strict", PluginState.FAILED, False),
    ]
    assert "plugins.strict.sise: unknown key" in record(host, "strict").detail


@pytest.mark.parametrize("value", ["{module}:Plugin", "{module}:ready", "{module}"])
def test_a_class_an_object_and_a_module_can_be_a_plugin(install: Install, value: str) -> None:
    code = GOOD + "ready = Plugin()\n@hookimpl\ndef mxgw_check_settings(limits): return ['the module']\n"
    install("any", code, value=value)

    (answer,) = PluginHost.load(settings("any")).ask("mxgw_check_settings", limits=None)

    assert answer.value == ["the module" if value == "{module}" else "dist_any_module"]


def test_one_object_cannot_be_two_plugins(install: Install) -> None:
    install("one", GOOD + "ready = Plugin()\n", value="{module}:ready")
    install("two", "from dist_one_module import ready", value="{module}:ready")

    host = PluginHost.load(settings("one", "two"))

    assert record(host, "one").state is PluginState.LOADED
    assert record(host, "two").detail == "another enabled plugin is the same object"


SETTINGS = """
import contextlib, pydantic

class Inner(pydantic.BaseModel):
    model_config = {"extra": "forbid"}
    depth: int = 1

class Model(pydantic.BaseModel):
    model_config = {"extra": "forbid", "frozen": True}
    size: int = pydantic.Field(1, ge=1)
    names: tuple[str, ...] = ()
    inner: Inner = Inner()
    pin: pydantic.SecretStr = pydantic.SecretStr("")
    token: str = pydantic.Field("", max_length=5)

class Plugin:
    seen = []
    def apply(self, settings):
        self.seen.append(settings)
    @hookimpl
    def mxgw_settings(self):
        return SettingsSection("strict", Model, self.apply)
    @hookimpl
    def mxgw_gateway_context(self, gateway):
        return contextlib.nullcontext(self.seen)
"""


def test_hook_mxgw_settings_hands_over_validated_settings_before_any_other_hook(install: Install) -> None:
    install("strict", SETTINGS)

    host = PluginHost.load(settings("strict", strict={"size": 5, "names": ["a"], "pin": "1234"}))

    ((applied,),) = [answer.value.enter_result for answer in host.ask("mxgw_gateway_context", gateway=None)]
    assert (applied.size, applied.names, applied.inner.depth) == (5, ("a",), 1)
    assert applied.pin.get_secret_value() == "1234"


def test_each_plugin_gets_its_own_settings(install: Install) -> None:
    install("strict", SETTINGS)
    install("other", SETTINGS.replace('"strict"', '"other"'))

    host = PluginHost.load(settings("strict", "other", strict={"size": 5}, other={"size": 6}))

    answers = host.ask("mxgw_gateway_context", gateway=None)
    seen = {answer.plugin: [s.size for s in answer.value.enter_result] for answer in answers}
    assert seen == {"strict": [5], "other": [6]}


def test_settings_of_a_plugin_are_wrong_with_file_key_and_reason(install: Install) -> None:
    install("strict", SETTINGS)
    section: dict[str, Any] = {
        "sise": 1,
        "size": 0,
        "names": "a",
        "inner": {"dept": 2, "depth": "x"},
        "pin": 987654,
        "token": "canary",
    }
    origins = {"plugins.strict.sise": "settings.toml", "plugins.strict.size": "/etc/site.toml",
               "plugins.strict.inner.dept": "environment MXGW_X"}  # fmt: skip

    with pytest.raises(SettingsError) as caught:
        PluginHost.load(settings("strict", strict=section), origins=origins)

    assert str(caught.value).splitlines() == [
        "/etc/site.toml: plugins.strict.size: must be greater than or equal to 1 (is 0)",
        "settings: plugins.strict.names: must be a list",
        'settings: plugins.strict.inner.depth: must be a valid integer (is "x")',
        "environment MXGW_X: plugins.strict.inner.dept: unknown key; did you mean 'depth'?",
        "settings: plugins.strict.pin: must be a valid string",
        "settings: plugins.strict.token: must have at most 5 characters",
        "settings.toml: plugins.strict.sise: unknown key; did you mean 'size'?",
    ]


def test_a_plugin_without_settings_takes_none(install: Install) -> None:
    install("plain", GOOD)

    with pytest.raises(SettingsError, match=r"plugins\.plain\.x: unknown key; this plugin has no settings"):
        PluginHost.load(settings("plain", plain={"x": 1}))


def test_settings_of_several_plugins_are_wrong_together(install: Install) -> None:
    install("plain", GOOD)
    install("strict", SETTINGS)
    install("acl", "raise RuntimeError('no key file')", distribution=OWN, access=True)

    with pytest.raises(SettingsError, match=r"(?s)plugins\.plain\.x.*plugins\.strict\.size.*'acl'.*no key file"):
        PluginHost.load(settings("plain", "strict", "acl", plain={"x": 1}, strict={"size": 0}))


def test_a_plugin_may_refuse_a_setting_by_name(install: Install) -> None:
    install("strict", SETTINGS + """
    def apply(self, settings):
        from mxgw_core.api.errors import SettingsError
        raise SettingsError("plugins.strict.size: the disk is smaller")
""")  # fmt: skip

    with pytest.raises(SettingsError, match="the disk is smaller"):
        PluginHost.load(settings("strict"))


def test_a_section_of_a_plugin_that_is_not_enabled_is_left_alone(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    module = install("strict", SETTINGS)

    PluginHost.load(settings(strict={"nonsense": 1}))

    assert module not in sys.modules
    assert not caplog.records


def test_a_section_of_no_plugin_at_all_is_warned_of(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("strict", SETTINGS)

    PluginHost.load(settings(strickt={"size": 1}))

    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "[plugins.strickt] belongs to no installed plugin; did you mean 'strict'?" in warning.getMessage()


PATHS = """
import contextlib, pathlib, pydantic

class Inner(pydantic.BaseModel):
    model_config = {"extra": "forbid"}
    ca: pathlib.Path | None = None
    more: tuple[pathlib.Path, ...] = ()
    named: dict[str, pathlib.Path] = {}

class Model(pydantic.BaseModel):
    file: pathlib.Path = pathlib.Path("by-default")
    inner: Inner = Inner()

    model_config = {"frozen": True}

class Plugin:
    seen = []
    @hookimpl
    def mxgw_settings(self):
        return SettingsSection("paths", Model, self.seen.append, former={"inner.old": "set paths.file"})
    @hookimpl
    def mxgw_gateway_context(self, gateway):
        return contextlib.nullcontext(self.seen)
"""


def with_data_dir(data_dir: str, **section: Any) -> Settings:
    return settings("paths", paths=section).model_copy(update={"gateway": GatewaySettings(data_dir=Path(data_dir))})


def test_a_plugin_s_relative_paths_count_from_the_data_directory(install: Install) -> None:
    install("paths", PATHS)
    inner = {"ca": "tls/ca.pem", "more": ["a", "/b"], "named": {"x": "c"}}

    host = PluginHost.load(with_data_dir("/data", inner=inner))

    ((applied,),) = [answer.value.enter_result for answer in host.ask("mxgw_gateway_context", gateway=None)]
    data = Path("/data").absolute()  # with the drive on Windows

    assert applied.file == data / "by-default"
    assert "file" not in applied.model_fields_set
    assert applied.inner.ca == data / "tls/ca.pem"
    assert applied.inner.more == (data / "a", data / "/b")
    assert applied.inner.named == {"x": data / "c"}


@pytest.mark.parametrize(
    ("data_dir", "advice"), [("state", "write '{keys}' to leave it there"), (".", ""), ("sub", "write 'keys' to")]
)
def test_files_where_a_relative_path_pointed_before_stop_the_start(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: str, advice: str
) -> None:
    install("paths", PATHS)
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "keys").mkdir()
    (site / "sub" / "keys").mkdir()
    monkeypatch.chdir(site)
    given = "sub/keys" if data_dir == "sub" else "keys"

    if not advice:
        PluginHost.load(with_data_dir(data_dir, file=given))
        return
    with pytest.raises(SettingsError, match=rf"plugins\.paths\.file: .*{re.escape(advice.format(keys=site / 'keys'))}"):
        PluginHost.load(with_data_dir(data_dir, file=given))
    (site / data_dir / given).mkdir(parents=True)
    PluginHost.load(with_data_dir(data_dir, file=given))  # moved
    PluginHost.load(with_data_dir(data_dir, file=str(site / "keys")))


def test_a_setting_that_is_gone_is_told_with_what_to_do_instead(install: Install) -> None:
    install("paths", PATHS)

    with pytest.raises(
        SettingsError, match=r"plugins\.paths\.inner\.old: this is no setting any more: set paths\.file"
    ):
        PluginHost.load(settings("paths", paths={"inner": {"old": 1}}))


@pytest.mark.parametrize("fault", ["line", "bytes", "metadata"])
def test_a_distribution_that_cannot_be_read_is_named_and_stops_the_start_only_where_it_can_matter(
    install: Install, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("good", GOOD)
    install("lost", GOOD)
    metadata = tmp_path / "dist-lost" / "dist_lost-1.0.dist-info"
    if fault == "metadata":
        (metadata / "METADATA").unlink()
    else:
        text = b"[mxgw.plugins]\nno equals sign\n" if fault == "line" else b"[mxgw.plugins]\n\xff = x:Y\n"
        (metadata / "entry_points.txt").write_bytes(text)

    assert "lost" not in {record.name for record in installed_plugins()}
    host = PluginHost.load(settings("good"))
    assert [record.state for record in host.records if record.name == "good"] == [PluginState.LOADED]
    assert f"the distribution at {metadata} cannot be read, so its plugins are not known" in caplog.text
    with pytest.raises(
        PluginError, match=f"'lost' cannot be used: .* this one cannot be read: {re.escape(str(metadata))}"
    ):
        PluginHost.load(settings("good", "lost"))
