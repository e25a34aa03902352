"""How plugins are asked: order, isolation, first answers, and what a failing one costs."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest

from mxgw_core.api import AuthenticationRequest, CloseReason, Peer, Retention
from mxgw_core.api.errors import PluginError, Unauthenticated
from mxgw_core.plugins import Answer, PluginHost, PluginState

from .conftest import Install, settings


def answering(value: str, options: str = "") -> str:
    """Return a plugin with two hooks: the statement `value` returns a number, None, or raises."""
    return f"""
from mxgw_core.api import Retention

class Plugin:
    def number(self):
        {value}
    @hookimpl{options}
    def mxgw_retention(self, session):
        number = self.number()
        return None if number is None else Retention(number, 0, 0.0)
    @hookimpl{options}
    def mxgw_detach_grace(self, session):
        return self.number()
"""


def kept(number: int) -> Retention:
    return Retention(number, 0, 0.0)


@pytest.fixture
def host(install: Install) -> PluginHost:
    """Three plugins: `early` and `late` answer, `broken` raises; the last registered is asked first."""
    install("early", answering("return 1"))
    install("broken", answering("raise RuntimeError('secret\\x1b[2J text')"))
    install("late", answering("return None"))
    return PluginHost.load(settings("early", "broken", "late"))


def test_plugins_are_asked_in_reverse_order_and_none_is_no_answer(install: Install) -> None:
    for number, name in enumerate(("one", "two", "three"), start=1):
        install(name, answering("return None" if name == "two" else f"return {number}"))

    answers = PluginHost.load(settings("one", "two", "three")).ask("mxgw_retention", session=None)

    assert answers == [Answer("three", kept(3)), Answer("one", kept(1))]


def test_tryfirst_and_trylast_count(install: Install) -> None:
    install("first", answering("return 1", "(tryfirst=True)"))
    install("plain", answering("return 2"))
    install("last", answering("return 3", "(trylast=True)"))

    answers = PluginHost.load(settings("first", "plain", "last")).ask("mxgw_retention", session=None)

    assert [answer.plugin for answer in answers] == ["first", "plain", "last"]


def test_an_exception_is_one_plugin_s_answer_and_no_other_s_problem(host: PluginHost) -> None:
    broken, early = host.ask("mxgw_retention", session=None)

    assert (broken.plugin, broken.value, type(broken.error)) == ("broken", None, RuntimeError)
    assert early == Answer("early", kept(1))


def test_a_first_answer_ends_the_asking(install: Install) -> None:
    install("unasked", answering("raise RuntimeError"))
    install("chosen", answering("return 0.0"))
    host = PluginHost.load(settings("unasked", "chosen"))

    assert host.ask("mxgw_detach_grace", session=None) == [Answer("chosen", 0.0)]
    assert host.failures == {}


def test_an_exception_does_not_end_the_asking_for_a_first_answer(host: PluginHost) -> None:
    assert [answer.plugin for answer in host.ask("mxgw_detach_grace", session=None)] == ["broken", "early"]


def test_a_failing_hook_is_logged_once_and_counted_from_then_on(
    host: PluginHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mxgw_core.plugins")
    for _ in range(3):
        host.ask("mxgw_retention", session=None)
    host.ask("mxgw_detach_grace", session=None)

    assert host.failures == {("broken", "mxgw_retention"): 3, ("broken", "mxgw_detach_grace"): 1}
    levels = [(entry.levelno, entry.getMessage()) for entry in caplog.records if "raised" in entry.getMessage()]
    assert [level for level, _ in levels] == [logging.WARNING, logging.DEBUG, logging.DEBUG, logging.WARNING]
    assert "plugin broken (dist-broken 1.0): mxgw_retention raised RuntimeError: secret [2J text" in levels[0][1]
    assert "3 times now" in levels[2][1]


AUTHENTICATING = """
from mxgw_core.api.errors import Unauthenticated

class Plugin:
    @hookimpl
    def mxgw_authenticate(self, request):
        raise {error}(request.metadata["authorization"])
"""

REQUEST = AuthenticationRequest("/x", Peer("here", is_local=True), {"authorization": "canary-91"})


def test_a_refusal_on_purpose_ends_the_asking_and_is_no_failure(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("other", AUTHENTICATING.format(error="ValueError"), access=True)
    install("strict", AUTHENTICATING.format(error="Unauthenticated"), access=True)
    host = PluginHost.load(settings("other", "strict"))

    (answer,) = host.ask("mxgw_authenticate", request=REQUEST)

    assert isinstance(answer.error, Unauthenticated)
    assert host.failures == {}
    assert not caplog.records


def test_what_was_sent_as_proof_is_never_logged(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mxgw_core.plugins")
    install("careless", AUTHENTICATING.format(error="ValueError"), access=True)
    host = PluginHost.load(settings("careless"))

    for _ in range(2):
        host.ask("mxgw_authenticate", request=REQUEST)

    assert "mxgw_authenticate raised ValueError (" in caplog.text
    assert "canary-91" not in caplog.text


def test_a_plugin_that_failed_is_not_asked_again(host: PluginHost) -> None:
    host.fail("broken", "its context raised OSError")

    assert [answer.plugin for answer in host.ask("mxgw_retention", session=None)] == ["early"]
    (record,) = [record for record in host.records if record.name == "broken"]
    assert (record.state, record.detail) == (PluginState.FAILED, "its context raised OSError")


def test_a_required_plugin_that_fails_stops_the_start(install: Install) -> None:
    install("vital", answering("return 1"))
    host = PluginHost.load(settings("vital", required=("vital",)))

    with pytest.raises(PluginError, match=r"required plugin 'vital' of dist-vital 1\.0 cannot be used: no disk"):
        host.fail("vital", "no disk")

    assert not host.implements("mxgw_retention")


def test_a_host_without_plugins_has_no_answers() -> None:
    host = PluginHost.load(settings())

    assert host.ask("mxgw_retention", session=None) == []
    assert not host.implements("mxgw_retention")


def test_implements_says_what_loaded_plugins_have(host: PluginHost) -> None:
    assert host.implements("mxgw_retention")
    assert not host.implements("mxgw_authenticate")


@pytest.mark.parametrize("arguments", [{}, {"sesion": None}, {"session": None, "more": 1}])
def test_a_call_with_the_wrong_arguments_is_the_caller_s_mistake(host: PluginHost, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"mxgw_retention takes \['session'\]"):
        host.ask("mxgw_retention", **arguments)

    assert host.failures == {}


def test_a_hook_that_does_not_exist_is_the_caller_s_mistake(host: PluginHost) -> None:
    with pytest.raises(KeyError, match="mxgw_nothing"):
        host.ask("mxgw_nothing")
    with pytest.raises(KeyError, match="mxgw_nothing"):
        host.implements("mxgw_nothing")


def test_an_implementation_takes_only_the_arguments_it_wants(install: Install) -> None:
    install(
        "few",
        """
class Plugin:
    @hookimpl
    def mxgw_worker_stopping(self, reason):
        raise RuntimeError(f"stopped: {reason}")
""",
    )

    (answer,) = PluginHost.load(settings("few")).ask("mxgw_worker_stopping", worker=1, reason=CloseReason.CLIENT)

    assert str(answer.error) == "stopped: CloseReason.CLIENT"


async def _entered(context: contextlib.AbstractAsyncContextManager[None]) -> None:
    async with context:
        pass


@pytest.mark.asyncio
async def test_hook_mxgw_gateway_context_may_be_written_with_a_generator(install: Install) -> None:
    install(
        "life",
        """
import contextlib
class Plugin:
    @hookimpl
    @contextlib.asynccontextmanager
    async def mxgw_gateway_context(self, gateway):
        gateway.append("in")
        yield
        gateway.append("out")
""",
    )
    log: list[str] = []
    (answer,) = PluginHost.load(settings("life")).ask("mxgw_gateway_context", gateway=log)

    await _entered(answer.value)

    assert log == ["in", "out"]


def test_hook_mxgw_cli_gives_commands(install: Install) -> None:
    import click

    install("cli", "import click\nclass Plugin:\n    @hookimpl\n    def mxgw_cli(self): return [click.Command('wave')]")

    ((command,),) = [answer.value for answer in PluginHost.load(settings("cli")).ask("mxgw_cli")]

    assert isinstance(command, click.Command)
    assert command.name == "wave"


def test_hook_mxgw_check_settings_is_told_in_the_order_of_the_settings_and_a_broken_one_is_a_problem(
    install: Install,
) -> None:
    from mxgw_core.checking import settings_problems

    say = "class Plugin:\n    @hookimpl\n    def mxgw_check_settings(self, limits): "
    install("first", say + "return [f'{limits.queue.events} is much', 'two\\nlines']")
    install("blind", say + "raise OSError('no such file')")
    install("raises", "from mxgw_core.api.errors import SettingsError\n" + say + "raise SettingsError('raised')")
    install("last", say + "return ['last']")
    found = settings("first", "blind", "raises", "last")

    first, two, lines, blind, *others = settings_problems(found, PluginHost.load(found))

    assert [first, two, lines, *others] == ["10000 is much", "two", "lines", "raised", "last"]
    assert blind.startswith("plugin blind (dist-blind 1.0): mxgw_check_settings raised OSError: no such file (")
    assert blind.endswith("so the settings are not checked")


def test_hook_mxgw_doctor_shows_findings_and_that_a_plugin_could_not_look(install: Install) -> None:
    from mxgw_cli.doctor.report import Outcome
    from mxgw_cli.doctor.run import _plugins

    install(
        "finds",
        "from mxgw_core.api import Finding\n"
        "class Plugin:\n    @hookimpl\n    def mxgw_doctor(self): return [Finding('keys', 'too many', 'revoke some')]",
    )
    install("blind", "class Plugin:\n    @hookimpl\n    def mxgw_doctor(self): raise OSError('no such file')")
    install("wrong", "class Plugin:\n    @hookimpl\n    def mxgw_doctor(self): return 'all is well'")
    checks = {check.title: check for check in _plugins(PluginHost.load(settings("finds", "blind", "wrong")))}

    assert (checks["finds: keys"].outcome, checks["finds: keys"].detail) == (Outcome.WARNING, "too many")
    assert checks["finds: keys"].cure == "revoke some"
    assert checks["blind"].outcome is Outcome.WARNING
    assert "it could not look: mxgw_doctor raised OSError: no such file" in checks["blind"].detail
    assert checks["wrong"].detail == ("it could not look: mxgw_doctor returned a str, not Sequence[Finding] | None")
