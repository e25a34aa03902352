"""Decides who a caller is, and what the caller is allowed to do, by combining the answers of the plugins.

If no plugin authenticates, every local caller is the anonymous identity.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import unquote

from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.access import (
    ADMINISTRATOR,
    AccessRequest,
    AuthenticationRequest,
    CommandGuard,
    Deny,
    ItemAccess,
    Moment,
)
from mxgw_core.api.errors import AccessDenied, GatewayError, Unauthenticated
from mxgw_core.api.events import EventFilter, StreamPace
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.api.types import ANONYMOUS, UNIX_PEER, Identity, ItemRecord, Peer, SessionInfo, own_session
from mxgw_core.plugins import Answer, PluginHost
from mxgw_core.plugins.objects import (
    PluginItemAccess,
    PluginPace,
    denial,
    plugin_filter,
    plugin_guard,
)
from mxgw_core.rpc.bulk import slices_of
from mxgw_core.rpc.call_counts import AccessOutcome, CallCounts

# Headers with credentials, for this gateway or for a proxy in front of it.
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
# For these methods `authorize` is not the whole decision. The decision about a command is complete after its guards
# were asked, and the decision about a stream when its subscriber attaches.
_DECIDED_LATER = frozenset({"/mxgw.v1.CommandService/Invoke", "/mxgw.v1.EventService/StreamEvents"})
# Methods that use or end a session. Other methods only read its state.
_USES = _DECIDED_LATER | {"/mxgw.v1.SessionService/CloseSession", "/mxgw.v1.CommandService/Browse"}
_GET_SESSION = "/mxgw.v1.SessionService/GetSession"
_NOTHING: Mapping[int, str] = MappingProxyType({})


def parse_peer(peer: str) -> Peer:
    """Return the peer that gRPC describes with a text: `ipv4:…`, `ipv6:…` or `unix:…`."""
    text = unquote(peer)
    family, _, rest = text.partition(":")
    if family == "unix":
        return Peer(address=UNIX_PEER, is_local=True)
    host = rest.rpartition(":")[0].strip("[]")
    return Peer(address=rest or text, is_local=is_loopback(host))


def is_loopback(host: str) -> bool:
    """Return whether `host` names this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def joined_metadata(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return a call's metadata by key. The values of a repeated key are joined, so that no value is overlooked.

    Source: RFC 9110, 5.3.
    """
    metadata: dict[str, list[str]] = {}
    for key, value in pairs:
        metadata.setdefault(key, []).append(value)
    return {key: ", ".join(values) for key, values in metadata.items()}


@dataclass(slots=True)
class LastPart:
    """What the guards decided about a command. This completes the decision that `authorize` has begun.

    Attributes:
        items: the items about which the guards were asked; None as long as no guard was asked.
        denied: the denied inputs. Key: the index of the input. Value: the reason.
    """

    items: Sequence[ItemRecord | None] | None = None
    denied: dict[int, str] = field(default_factory=dict)


class AccessControl:
    """Asks the plugins about each call, and combines and counts their answers.

    When a plugin fails, or gives no valid answer, the call is refused.
    """

    def __init__(self, plugins: PluginHost, counts: CallCounts | None = None) -> None:
        self._plugins = plugins
        self._counts = counts if counts is not None else CallCounts()
        self._authenticates = plugins.implements("mxgw_authenticate")
        self._authorizes = plugins.implements("mxgw_authorize")
        self._records = plugins.implements("mxgw_decided")
        self._guards = plugins.implements("mxgw_command_guard")
        self._filters = plugins.implements("mxgw_event_filter")
        self._paces = plugins.implements("mxgw_stream_pace")

    @property
    def authenticates(self) -> bool:
        """Whether a plugin decides who callers are."""
        return self._authenticates

    def check_credentials(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make sure that no credential header is sent twice: a proxy and the gateway could read different ones.

        Raises:
            Unauthenticated: a header with credentials was sent twice.
        """
        keys = [key for key, _ in pairs if key in _CREDENTIALS]
        if len(keys) == len(set(keys)):
            return
        self._counts.access[AccessOutcome.UNAUTHENTICATED] += 1
        key = next(key for key in keys if keys.count(key) > 1)
        raise Unauthenticated(
            f"the call has {keys.count(key)} `{key}` headers: send one; a proxy on the way, or a second interceptor of "
            "the client, may add its own"
        )

    def authenticate(
        self,
        method: str,
        peer: Peer,
        metadata: Mapping[str, str],
        *,
        certificate_names: Sequence[str] = (),
        scope: str = "",
    ) -> Identity:
        """Return the identity of the caller.

        Raises:
            Unauthenticated: no plugin knows the caller, or a plugin failed.
        """
        try:
            return self._authenticated(method, peer, metadata, certificate_names, scope)
        except GatewayError as error:
            self._counts.access[AccessOutcome.of(error)] += 1
            raise

    def _authenticated(
        self, method: str, peer: Peer, metadata: Mapping[str, str], certificate_names: Sequence[str], scope: str
    ) -> Identity:
        if not self._authenticates:
            if peer.is_local:
                return ANONYMOUS
            raise Unauthenticated("no plugin authenticates callers, and this one is not local")
        request = AuthenticationRequest(method, peer, metadata, certificate_names, scope)
        for answer in self._plugins.ask("mxgw_authenticate", request=request):
            if isinstance(answer.error, GatewayError):
                raise answer.error
            if answer.error is not None:
                raise Unauthenticated("the caller could not be authenticated")
            identity: Identity = answer.value
            return identity
        raise Unauthenticated("the call carries no accepted credentials")

    def authorize(self, request: AccessRequest) -> None:
        """Make sure that the call may run.

        Raises:
            AccessDenied: a plugin denies the call, or a plugin failed.
        """
        if request.moment is Moment.LIST:
            # This checks one entry of a list, and not a call. So the decision is neither recorded nor counted.
            self._authorized(request)
            return
        if request.moment is Moment.ANSWER:
            # The call was allowed, and this was recorded before it ran. Only a refusal is new.
            try:
                self._authorized(request)
            except GatewayError as error:
                self._counts.access[AccessOutcome.of(error)] += 1
                self.decided(request, error)
                raise
            return
        try:
            try:
                self._authorized(request)
            except GatewayError as error:
                self.decided(request, error)
                raise
            if request.moment is Moment.ATTACH or request.method not in _DECIDED_LATER:
                self.decided(request, None)
        except GatewayError as error:
            self._counts.access[AccessOutcome.of(error)] += 1
            raise
        if request.moment is Moment.CALL:
            self._counts.access[AccessOutcome.OK] += 1

    def may_see(
        self, identity: Identity, peer: Peer, session_id: str, find_session: Callable[[], SessionInfo | None]
    ) -> bool:
        """Return whether a session is in the list of a caller: when the caller is allowed to call GetSession for it."""
        try:
            self.authorize(AccessRequest(_GET_SESSION, identity, peer, session_id, find_session, moment=Moment.LIST))
        except GatewayError:
            return False
        return True

    def decided(
        self, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str] = _NOTHING
    ) -> None:
        """Report to the plugins what was decided about a request.

        Raises:
            GatewayError: the call was allowed, but a plugin could not record this decision.
        """
        if not self._records:
            return
        for answer in self._plugins.ask("mxgw_decided", request=request, refusal=refusal, denied=denied):
            if answer.error is None or refusal is not None:
                continue
            if isinstance(answer.error, GatewayError):
                raise answer.error
            raise denial(answer.owner, "the decision could not be recorded")

    @contextmanager
    def deciding(self, request: AccessRequest) -> Iterator[LastPart]:
        """Run the block that completes a decision, and report the decision to the plugins.

        A `GatewayError` that the block raises is reported as the refusal of the call.

        Raises:
            GatewayError: raised by the block, or by `decided`.
        """
        part = LastPart()
        try:
            yield part
        except GatewayError as error:
            self.decided(replace(request, items=part.items), error, part.denied)
            raise
        self.decided(replace(request, items=part.items), None, part.denied)

    def _authorized(self, request: AccessRequest) -> None:
        self._plugins.check("mxgw_authenticate")  # other calls ran since the caller was authenticated
        self._asked(request)
        # This is checked after the plugins were asked. Otherwise a caller who must not see an internal session would
        # learn that it exists.
        is_use = request.method in _USES or request.scope == ADMINISTRATOR
        if request.is_internal and is_use and request.session is not None:
            raise AccessDenied(own_session(request.session))

    def _asked(self, request: AccessRequest) -> None:
        if not self._authorizes:
            return
        for answer in self._plugins.ask("mxgw_authorize", request=request):
            if isinstance(answer.error, GatewayError):
                raise answer.error
            if answer.error is not None:
                raise denial(answer.owner, "the call could not be authorized")
            if isinstance(answer.value, Deny):
                raise AccessDenied(answer.value.detail)

    def guards(self, session: SessionInfo, identity: Identity) -> Sequence[CommandGuard]:
        """Return the guards for this identity's commands.

        Raises:
            AccessDenied: a plugin failed.
        """
        if not self._guards:
            return ()
        answers = self._plugins.ask("mxgw_command_guard", session=session, identity=identity)
        _require(answers, "the command could not be authorized")
        return [plugin_guard(answer.value, answer.owner) for answer in answers]

    def check_guards(self) -> None:
        """Make sure that no plugin with guards has failed since `guards` was called.

        Raises:
            PluginFailed: such a plugin has failed, so all commands are denied.
        """
        self._plugins.check("mxgw_command_guard")

    def filters(self, session: SessionInfo, identity: Identity) -> Sequence[EventFilter]:
        """Return the filters of this identity's stream.

        Raises:
            AccessDenied: a plugin failed.
        """
        if not self._filters:
            return ()
        answers = self._plugins.ask("mxgw_event_filter", session=session, identity=identity)
        _require(answers, "the stream could not be authorized")
        return [plugin_filter(answer.value, answer.owner) for answer in answers]

    def paces(self, session: SessionInfo, identity: Identity) -> Sequence[StreamPace]:
        """Return the limits on how fast events are sent to this identity's stream.

        Raises:
            AccessDenied: a plugin failed.
        """
        if not self._paces:
            return ()
        answers = self._plugins.ask("mxgw_stream_pace", session=session, identity=identity)
        _require(answers, "the stream could not be authorized")
        return [PluginPace(answer.value, answer.owner) for answer in answers]

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        """Return the plugins' rules about the items that this identity is allowed to read and to write.

        These rules name items by reference, so they need no session.

        Raises:
            AccessDenied: a plugin failed.
        """
        answers = self._plugins.ask("mxgw_item_access", identity=identity)
        _require(answers, "the call could not be authorized")
        return [PluginItemAccess(answer.value, answer.owner) for answer in answers]


async def denied_inputs(
    guards: Sequence[CommandGuard], command: MxCommand, items: Sequence[ItemRecord | None]
) -> dict[int, str]:
    """Return the denied inputs of a command. Key: the index of the input. Value: the reason.

    An input is denied when one guard denies it. The guards get a bulk command in parts of a few inputs, so that other
    calls can run between the parts.

    Raises:
        GatewayError: a guard refuses the whole command.
        AccessDenied: a guard failed.
    """
    denied: dict[int, str] = {}
    async for start, part in slices_of(command):
        of_part = items[start : start + NAMES_AT_ONCE]
        for guard in guards:
            denied.update({start + index: why for index, why in guard.denied(part, of_part).items()})
    return denied


def _require(answers: Sequence[Answer], what: str) -> None:
    """Make sure that all plugins have answered; otherwise refuse the call, because `what`.

    Raises:
        GatewayError: a plugin refuses the call.
        AccessDenied: a plugin failed.
    """
    for answer in answers:
        if isinstance(answer.error, GatewayError):
            raise answer.error
        if answer.error is not None:
            raise denial(answer.owner, what)
