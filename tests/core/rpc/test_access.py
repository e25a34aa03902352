"""Who is calling, and may they: the plugins' answers folded, always on the side of refusing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from support.plugins import InstallPlugin, owner_of

from mxgw.v1 import commands_pb2 as c
from mxgw_core.api import (
    ANONYMOUS,
    AccessRequest,
    Allow,
    AuthenticationRequest,
    CommandGuard,
    Deny,
    Identity,
    ItemRecord,
    Peer,
    SessionInfo,
    SessionState,
    hookimpl,
)
from mxgw_core.api.errors import AccessDenied, GatewayError, Unauthenticated
from mxgw_core.config.models import PluginsSettings, Settings
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.objects import plugin_guard
from mxgw_core.rpc.access import AccessControl, denied_inputs

LOCAL, REMOTE = Peer("127.0.0.1:1", is_local=True), Peer("10.0.0.1:1", is_local=False)
ALICE = Identity("alice", "key")
METHOD = "/mxgw.v1.SessionService/GetSession"
SESSION = SessionInfo("s", SessionState.READY, "alice", "", "", "sim", 0.0, b"", 0, 1, 0, 1)
BROKEN = RuntimeError("the plugin is broken")

Answer = Callable[..., object]


class Authenticator:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Any:
        return self.answer(request)


class Authorizer:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @hookimpl
    def mxgw_authorize(self, request: AccessRequest) -> Any:
        return self.answer(request)


class Guard:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @hookimpl
    def mxgw_command_guard(self, session: SessionInfo, identity: Identity) -> Any:
        return self.answer(session, identity)


class Filter:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @hookimpl
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> Any:
        return self.answer(session, identity)


class Denying:
    """A guard that denies what it was made with."""

    def __init__(self, denied: Mapping[int, str] | Exception) -> None:
        self._denied = denied

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        if isinstance(self._denied, Exception):
            raise self._denied
        return self._denied


def says(value: object) -> Answer:
    def answer(*_: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


@pytest.fixture
def access(install_plugin: InstallPlugin) -> Callable[..., AccessControl]:
    """Return access control with these plugins, the first named first in the settings (so asked last)."""

    def make(*plugins: object) -> AccessControl:
        names = [install_plugin(f"p{n}", plugin) for n, plugin in enumerate(plugins)]
        return AccessControl(PluginHost.load(Settings(plugins=PluginsSettings(enabled=tuple(names)))))

    return make


# authentication


def test_without_a_plugin_a_local_caller_is_anonymous_and_a_foreign_one_nobody(access: Any) -> None:
    control = access()

    assert control.authenticates is False
    assert control.authenticate(METHOD, LOCAL, {}) is ANONYMOUS
    with pytest.raises(Unauthenticated):
        control.authenticate(METHOD, REMOTE, {})


def test_the_first_plugin_that_knows_the_caller_counts(access: Any) -> None:
    control = access(
        Authenticator(says(Identity("other", "key"))), Authenticator(says(ALICE)), Authenticator(says(None))
    )

    assert control.authenticates is True
    assert control.authenticate(METHOD, REMOTE, {}) is ALICE


def test_a_plugin_sees_method_peer_and_metadata(access: Any) -> None:
    seen: list[AuthenticationRequest] = []

    def answer(request: AuthenticationRequest) -> Identity:
        seen.append(request)
        return ALICE

    access(Authenticator(answer)).authenticate(METHOD, LOCAL, {"authorization": "Bearer x"})

    assert seen == [AuthenticationRequest(METHOD, LOCAL, {"authorization": "Bearer x"})]
    assert "Bearer" not in repr(seen)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([None], id="nobody knows"),
        pytest.param([BROKEN], id="one is broken"),
        pytest.param([ALICE, BROKEN], id="the first asked is broken"),
        pytest.param(["alice"], id="no identity"),
        pytest.param([True], id="true is no identity"),
    ],
)
@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
def test_with_a_plugin_nobody_is_anonymous_any_more(access: Any, answers: list[object], peer: Peer) -> None:
    control = access(*[Authenticator(says(answer)) for answer in answers])
    with pytest.raises(Unauthenticated) as refused:
        control.authenticate(METHOD, peer, {})

    assert "broken" not in refused.value.message


def test_a_refusal_made_on_purpose_is_passed_on_and_nobody_else_is_asked(access: Any) -> None:
    refusal = Unauthenticated("the key was revoked", metadata={"key": "k1"})
    control = access(Authenticator(says(ALICE)), Authenticator(says(refusal)))
    with pytest.raises(Unauthenticated) as refused:
        control.authenticate(METHOD, LOCAL, {})

    assert refused.value is refusal


# authorization


def _request() -> AccessRequest:
    return AccessRequest(METHOD, ALICE, LOCAL, "s", lambda: SESSION)


@pytest.mark.parametrize("answers", [[], [None], [Allow()], [Allow(), None, Allow()]])
def test_without_a_deny_the_call_may_run(access: Any, answers: list[object]) -> None:
    access(*[Authorizer(says(answer)) for answer in answers]).authorize(_request())


@pytest.mark.parametrize(
    "answers", [[Deny("no")], [Deny("no"), Allow()], [Allow(), Deny("no")], [None, Deny("no"), Allow(), Allow()]]
)
def test_any_deny_wins_whoever_says_it(access: Any, answers: list[object]) -> None:
    with pytest.raises(AccessDenied, match="no"):
        access(*[Authorizer(says(answer)) for answer in answers]).authorize(_request())


@pytest.mark.parametrize("answers", [[BROKEN], [Allow(), BROKEN], [BROKEN, Allow()]])
def test_an_exception_is_a_deny_and_says_nothing_of_its_cause(access: Any, answers: list[object]) -> None:
    with pytest.raises(AccessDenied) as refused:
        access(*[Authorizer(says(answer)) for answer in answers]).authorize(_request())

    assert "broken" not in refused.value.message


@pytest.mark.parametrize("answer", [True, "allow", Allow, Deny, 1])
def test_an_answer_that_is_none_of_both_is_a_deny(access: Any, answer: object) -> None:
    with pytest.raises(AccessDenied):
        access(Authorizer(says(answer))).authorize(_request())


def test_a_plugins_own_error_is_passed_on(access: Any) -> None:
    class QuotaReached(GatewayError):
        reason = "QUOTA_REACHED"

    with pytest.raises(QuotaReached):
        access(Authorizer(says(QuotaReached("enough")))).authorize(_request())


# guards and filters


def test_guards_of_all_plugins_are_asked_and_none_is_no_guard(access: Any) -> None:
    one, other = Denying({0: "one"}), Denying({0: "other"})
    control = access(Guard(says(one)), Guard(says(None)), Guard(says(other)))

    found = [guard.denied(c.MxCommand(), []) for guard in control.guards(SESSION, ALICE)]
    assert sorted(denied[0] for denied in found) == ["one", "other"]


@pytest.mark.parametrize("error", [BROKEN, AccessDenied("not you")])
def test_a_guard_that_cannot_be_made_refuses_the_command(access: Any, error: Exception) -> None:
    with pytest.raises(AccessDenied):
        access(Guard(says(Denying({}))), Guard(says(error))).guards(SESSION, ALICE)


@pytest.mark.parametrize("error", [BROKEN, AccessDenied("not you")])
def test_a_filter_that_cannot_be_made_refuses_the_stream(access: Any, error: Exception) -> None:
    with pytest.raises(AccessDenied):
        access(Filter(says(error)), Filter(says(None))).filters(SESSION, ALICE)


def _guard(guard: CommandGuard) -> CommandGuard:
    return plugin_guard(guard, owner_of("mxgw_command_guard"))


@pytest.mark.asyncio
async def test_what_any_guard_denies_is_denied() -> None:
    guards = [_guard(Denying({0: "first"})), _guard(Denying({})), _guard(Denying({2: "third"}))]
    command = c.MxCommand(unsubscribe_bulk=c.UnsubscribeBulkCommand(item_handles=[1, 2, 3]))

    assert await denied_inputs(guards, command, []) == {0: "first", 2: "third"}


@pytest.mark.asyncio
async def test_a_guard_that_fails_denies_everything() -> None:
    with pytest.raises(AccessDenied, match="the command could not be authorized: plugin 'probe' failed") as caught:
        await denied_inputs([_guard(Denying({})), _guard(Denying(BROKEN))], c.MxCommand(), [])

    assert caught.value.metadata == {"plugin": "probe"}
