"""The connection to one server: its socket, secure channel and session. All are renewed after the connection was lost.

The supervisor of the library is not used, for three reasons. It starts to publish before missed messages were fetched,
so that values can be skipped. It does not distinguish a kept subscription from a new one. It retries without reporting
this. Here one task drives the connection, and the session cannot be used while the connection is down.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.crypto import security_policies

from mxgw_worker.backends.base import BackendUnavailable

from .channel import keep_channel, open_channel
from .limits import Limits, learn
from .link import NAMESPACE_0, NAMESPACE_ARRAY, Link, namespaces_of
from .options import OpcUaOptions
from .security import refusal, secure
from .session import Session

log = logging.getLogger(__name__)

_NONE_URI = security_policies.SecurityPolicyNone.URI
# The server has as many sessions as it allows.
_NO_ROOM = frozenset({ua.StatusCodes.BadTooManySessions, ua.StatusCodes.BadMaxConnectionsReached})
_SERVER_STATE = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State, 0)
# How long a session is given to end that was made by an attempt to connect which failed.
_ABANDON_S = 1.0


class ServerConnection:
    """Connects, reconnects and closes. While the connection is down, reading `link` raises ConnectionError."""

    def __init__(self, options: OpcUaOptions) -> None:
        self._options = options
        self._client: Client | None = None
        self._link: Link | None = None
        self._ever_up = False
        # True while the session was made by the attempt to connect that is running.
        self._session_is_new = False
        # How long the keys of the secure channel live. The server decides.
        self._keys_live_s = options.channel_lifetime_s
        # Counts the sessions. What the server keeps for a session is gone, or of another session, after the next one.
        self.session_number = 0

    @property
    def up(self) -> bool:
        """True when requests can be sent."""
        return self._link is not None and self._link.up

    @property
    def link(self) -> Link:
        """The connection that there is now.

        Raises:
            ConnectionError: the connection is down.
        """
        if self._link is None or not self._link.up:
            raise ConnectionError("the OPC UA server is not connected")
        return self._link

    @property
    def session(self) -> Session:
        """The session of `link`.

        Raises:
            ConnectionError: the connection is down.
        """
        return self.link.session

    @property
    def limits(self) -> Limits:
        """The limits of `link`.

        Raises:
            ConnectionError: the connection is down.
        """
        return self.link.limits

    async def open(self) -> bool:
        """Connect, and reuse the session of an earlier connection if the server still has it.

        Return True when the session was reused. The session is there after `connect_timeout_s` at most. Then the server
        is asked for its namespaces and limits, which takes `request_timeout_s` at most for each request. It takes a
        second more when the new session has to be ended because the rest failed.

        Raises:
            BackendUnavailable: the connection failed; the text says how to fix the problem.
        """
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                if self._client is None:
                    self._client = self._new_client()
                await secure(self._client, options)
                reused = await self._connect(self._client)
            # These requests have their own time each: a slow server has connected by now.
            link = await self._learn(self._client.uaclient.session)
            if reused:
                await self._check_numbers(link)
        except BaseException as error:
            await self._abandon()
            self.drop()
            if isinstance(error, ua.UaError | OSError | TimeoutError):
                raise BackendUnavailable(self._explain(error)) from error
            raise
        self._link = link
        self._ever_up = True
        self._session_is_new = False
        return reused

    async def serve(self) -> str:
        """Keep the connection alive until it is lost, and return the reason as a text. The caller must call `drop`
        afterwards.
        """
        assert self._client is not None
        client = self._client
        reason = "the connection was closed"
        try:
            async with asyncio.TaskGroup() as tasks, client.uaclient.subscribe_state() as states:
                renewal = tasks.create_task(
                    keep_channel(client, self._options.channel_lifetime_s, self._keys_live_s), name="opcua:channel"
                )
                probe = tasks.create_task(self._probe(client), name="opcua:probe")
                while client.uaclient.state is UaClientState.CONNECTED:
                    await states.next_change()
                renewal.cancel()
                probe.cancel()
        except* (ua.UaError, OSError, TimeoutError) as group:
            reason = f"the server no longer answers ({type(group.exceptions[0]).__name__})"
        return reason

    async def close(self) -> None:
        """Close the session, the channel and the socket. This takes a bounded time and never raises."""
        was_up = self.up
        if self._link is not None:
            self._link.up = False
        if self._client is None:
            return
        try:
            async with asyncio.timeout(2.0):
                if was_up:
                    await self._client.uaclient.session.close_session(True)
                    await self._client.close_secure_channel()
        except (ua.UaError, OSError, TimeoutError) as error:
            log.debug("closing the session: %s", type(error).__name__)
        self.drop()

    def drop(self) -> None:
        """Close the socket at once, without waiting until unsent data is sent."""
        if self._link is not None:
            self._link.up = False
        if self._client is None:
            return
        self._abort()
        self._client.uaclient.disconnect_socket()
        if not self._ever_up:
            self._client = None

    def _abort(self) -> None:
        protocol = self._client.uaclient.protocol if self._client is not None else None
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    async def _check_numbers(self, link: Link) -> None:
        """End a reused session when indexes of namespaces mean something else than before: its monitored items belong
        to other nodes now. The next attempt makes a new session.

        Raises:
            ConnectionError: the session was ended.
        """
        before = self._link.namespaces if self._link is not None else []
        if link.namespaces[: len(before)] != before:
            await link.session.close_session(True)
            raise ConnectionError("the server has numbered its namespaces anew")

    async def _abandon(self) -> None:
        """End a session that the failed attempt to connect has made. Otherwise it would take one of the server's few
        places until it ends by its timeout.
        """
        if self._client is None or not self._session_is_new:
            return
        self._session_is_new = False
        try:
            async with asyncio.timeout(_ABANDON_S):
                await self._client.uaclient.session.close_session(True)
        except (ua.UaError, OSError, TimeoutError) as error:
            log.debug("ending a session that was not used: %s", type(error).__name__)

    def _new_client(self) -> Client:
        options = self._options
        client = Client(options.url, timeout=options.request_timeout_s)
        client.uaclient.session = Session(client.uaclient)
        client.name = client.description = options.application_name
        client.application_uri = options.application_uri or f"urn:{socket.gethostname()}:mxgw:opcua"
        client.product_uri = "urn:mxgw"
        client.session_timeout = int(options.session_timeout_s * 1000)
        if options.user:
            client.set_user(options.user)
            client.set_password(options.login_password())
        return client

    async def _connect(self, client: Client) -> bool:
        await client.connect_socket()
        session = client.uaclient.session
        await session.hello(client.server_url.geturl())
        self._keys_live_s = await open_channel(client, self._options.channel_lifetime_s)
        if self._ever_up and session.has_session:
            session.rebind_authentication_token()
            try:
                await self._activate(client)
                return True
            except ua.UaStatusCodeError as error:
                log.info("the server no longer has the session: %s", ua.StatusCode(error.code).name)
        self._session_is_new = True
        self.session_number += 1
        await client.create_session()
        self._refuse_plaintext(client)
        await self._activate(client)
        return False

    async def _activate(self, client: Client) -> None:
        options = self._options
        await client.activate_session(
            username=options.user or None,
            password=options.login_password() if options.user else None,
            certificate=client.user_certificate,
        )

    def _refuse_plaintext(self, client: Client) -> None:
        """Raise an error when the password would be sent without encryption, because neither the channel nor the
        server's login policy encrypts it.
        """
        if not self._options.user or self._options.allow_plaintext_password:
            return
        policy = client.server_policy(ua.UserTokenType.UserName).SecurityPolicyUri
        if policy in ("", None, _NONE_URI) and self._options.mode != "SignAndEncrypt":
            raise BackendUnavailable(
                "opcua: the password would cross the network unencrypted; set security_policy, "
                "or allow_plaintext_password = true where the network is trusted"
            )

    async def _learn(self, session: Session) -> Link:
        """Read the server's limits and namespaces."""
        limits, (namespaces,) = await learn(session, self._options.max_items_per_call, [NAMESPACE_ARRAY])
        return Link(session, namespaces_of(namespaces) or [NAMESPACE_0], limits, self._abort)

    async def _probe(self, client: Client) -> None:
        """Ask the server something whenever it has been silent for a while.

        Raises:
            TimeoutError, ConnectionError, ua.UaError: the server does not answer.
        """
        session = client.uaclient.session
        while True:
            await asyncio.sleep(self._options.probe_interval_s)
            asked = time.perf_counter()
            if asked - session.last_answer < self._options.probe_interval_s:
                continue
            try:
                await session.read_attributes([_SERVER_STATE], ua.AttributeIds.Value)
            except TimeoutError:
                # A slow server answers one request after the other. It is not lost while it answers any.
                if session.last_answer < asked:
                    raise

    def _explain(self, error: Exception) -> str:
        url, options = self._options.url, self._options
        match error:
            case TimeoutError():
                return (
                    f"opcua: no answer from {url} within {options.connect_timeout_s:g} s; check host, port and "
                    "firewall, or raise connect_timeout_s"
                )
            case ConnectionRefusedError():
                return f"opcua: {url} refuses connections; is the OPC UA server running, and is the port right?"
            case socket.gaierror():
                return f"opcua: the host of {url} cannot be found; check its name, or use its address"
            case (
                ua.uaerrors.BadUserAccessDenied()
                | ua.uaerrors.BadIdentityTokenRejected()
                | (ua.uaerrors.BadIdentityTokenInvalid())
            ):
                who = f"user {options.user!r}" if options.user else "this login (anonymous or certificate)"
                return f"opcua: {url} refuses {who}; check 'user' and 'password', or the server's user list"
            case ua.UaStatusCodeError() if about_certificates := refusal(error, options):
                return about_certificates
            case ua.UaStatusCodeError() if error.code in _NO_ROOM:
                return (
                    f"opcua: {url} has no room for a further session ({ua.StatusCode(error.code).name}); end sessions "
                    "of other clients, or raise the server's limit of sessions"
                )
            case ua.UaStatusCodeError():
                return f"opcua: {url} refuses the session: {ua.StatusCode(error.code).name}"
            case ua.UaError() if "Server certificate mismatch" in str(error):
                return (
                    f"opcua: {url} has another certificate than the one that was checked before; if it was renewed, "
                    f"renew {options.server_certificate or 'the trusted certificates'} too"
                )
            case ua.UaError() if "No matching endpoints" in str(error):
                return (
                    f"opcua: {url} does not offer {options.security_policy}/{options.mode}; set security_policy and "
                    "security_mode to what the server's administrator allows"
                )
            case ua.UaError():
                return f"opcua: {url}: {error}"
            case _:
                return (
                    f"opcua: the connection to {url} failed ({type(error).__name__}: {error}); check that it is an "
                    "OPC UA server and that it accepts security_policy and certificate"
                )
