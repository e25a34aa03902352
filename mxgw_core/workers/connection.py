"""The gateway's end of a worker's connection: checks who connects, makes the handshake, receives and sends messages.

There is one `WorkerConnection` object per connection. Every event passes through here, so this code must be fast: all
messages that arrive together are passed on in one call, and the events inside a message are not decoded.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from google.protobuf.message import DecodeError

from mxgw.worker.v1.worker_pb2 import Hello, Reject, WorkerEnvelope
from mxgw_worker.ipc.framing import FrameDecoder, FrameError, frame
from mxgw_worker.ipc.handshake import GatewayHandshake, HandshakeError
from mxgw_worker.platform import PeerCredentials, peer_credentials

log = logging.getLogger(__name__)

# Before a peer has proved that it knows the secret, larger messages of this peer are refused and not buffered.
_UNPROVEN_FRAME_BYTES = 4096
# A peer that has not sent its proof within this time is refused.
_PROOF_TIMEOUT_S = 5.0


class ConnectionOwner(Protocol):
    """What a `WorkerConnection` calls: the session's worker implements these methods."""

    def resume_after(self, hello: Hello) -> int:
        """Return the sequence after which the worker should send events. `hello` is the worker's first message."""

    def claim(self, connection: WorkerConnection) -> bool:
        """Accept the connection of a peer that has proved that it knows the secret, if possible. Return whether it is
        accepted.

        Return False when the worker has an accepted connection already.

        Raises:
            Refused: the connection is not accepted for another reason.
        """

    def on_messages(self, envelopes: Sequence[WorkerEnvelope]) -> None:
        """Process messages of the accepted connection, in the order in which they were sent.

        Raises:
            BrokenProtocol: the worker broke the protocol.
        """

    def on_lost(self, connection: WorkerConnection, detail: str) -> None:
        """The accepted connection has ended."""

    def on_refused(self, connection: WorkerConnection, reason: str, detail: str) -> None:
        """A connection was refused during the handshake."""


class Refused(Exception):
    """A peer is refused although it knows the secret. The peer is sent `reason` and `detail`, and both are logged."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BrokenProtocol(Exception):
    """The worker broke the protocol, so its connection is closed."""


class _State(enum.Enum):
    AWAITS_HELLO = "hello"
    AWAITS_PROOF = "proof"
    PROVEN = "proven"
    CLOSED = "closed"


class WorkerConnection(asyncio.Protocol):
    """One connection of a peer that claims to be the worker."""

    def __init__(
        self,
        owner: ConnectionOwner,
        handshake: Callable[[], GatewayHandshake],
        *,
        expected_pid: Callable[[], int | None],
        frame_bytes: int,
    ) -> None:
        self._owner = owner
        self._make_handshake = handshake
        self._expected_pid = expected_pid
        self._frame_bytes = frame_bytes
        self._decoder = FrameDecoder(_UNPROVEN_FRAME_BYTES)
        self._state = _State.AWAITS_HELLO
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.handshake: GatewayHandshake | None = None
        self.peer: PeerCredentials | None = None

    # the methods of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast instead of an isinstance check, because the transports of uvloop are no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self.peer = peer_credentials(self._transport)
        expected = self._expected_pid()
        if not self.peer.same_user:
            self._refuse("WRONG_USER", f"the peer runs as user {self.peer.uid}")
        elif expected is not None and self.peer.pid is not None and self.peer.pid != expected:
            self._refuse("WRONG_PROCESS", f"the peer is process {self.peer.pid}, the worker is {expected}")
        else:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(_PROOF_TIMEOUT_S, self._refuse, "PROOF_TIMEOUT", "no proof came in time")

    def data_received(self, data: bytes) -> None:
        if self._state is _State.CLOSED:
            return
        try:
            frames = self._decoder.feed(data)
            envelopes = [WorkerEnvelope.FromString(payload) for payload in frames]
            while envelopes and self._is_shaking():
                self._shake(envelopes.pop(0))
            if envelopes and self._state is _State.PROVEN:
                self._owner.on_messages(envelopes)
        except (HandshakeError, Refused) as error:
            self._refuse(error.reason, error.detail)
        except FrameError as error:
            self._break(f"bad frame: {error}")
        except DecodeError:
            self._break("a frame holds no WorkerEnvelope")
        except BrokenProtocol as error:
            self._break(str(error))

    def eof_received(self) -> bool:
        try:
            self._decoder.end()
        except FrameError as error:
            self._break(str(error))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(f"the connection ended: {exc}" if exc else "the connection ended")

    # handshake

    def _is_shaking(self) -> bool:
        return self._state in (_State.AWAITS_HELLO, _State.AWAITS_PROOF)

    def _shake(self, envelope: WorkerEnvelope) -> None:
        kind = envelope.WhichOneof("body")
        if self._state is _State.AWAITS_HELLO and kind == "hello":
            self.handshake = self._make_handshake()
            challenge = self.handshake.on_hello(envelope.hello)
            if self.peer is not None and self.peer.pid not in (None, envelope.hello.pid):
                self._refuse("WRONG_PROCESS", f"the hello names process {envelope.hello.pid}, not the peer's")
                return
            self.send(WorkerEnvelope(challenge=challenge))
            self._state = _State.AWAITS_PROOF
        elif self._state is _State.AWAITS_PROOF and kind == "proof" and self.handshake is not None:
            welcome = self.handshake.on_proof(envelope.proof, self._owner.resume_after(self.handshake.hello))
            # A peer without a proof must not learn whether the worker is connected already, so `claim` is called only
            # after the proof was checked.
            if not self._owner.claim(self):
                self._refuse("ALREADY_CONNECTED", "another connection of this worker was taken already")
                return
            self.send(WorkerEnvelope(welcome=welcome))
            self._decoder = FrameDecoder(self._frame_bytes)
            self._state = _State.PROVEN
            self._cancel_deadline()
        else:
            self._refuse("UNEXPECTED_MESSAGE", f"{kind} instead of {self._state.value}")

    def _refuse(self, reason: str, detail: str) -> None:
        if self._state is _State.CLOSED:
            return
        self.send(WorkerEnvelope(reject=Reject(reason=reason, detail=detail)))
        if self._state is not _State.PROVEN:
            self._owner.on_refused(self, reason, detail)
        self._close_with(detail)

    def _break(self, detail: str) -> None:
        if self._state is _State.PROVEN:
            self._close_with(detail)
        else:
            self._refuse("MALFORMED", detail)

    # sending, and the end of the connection

    def send(self, envelope: WorkerEnvelope) -> None:
        """Queue one message for sending. On a closed connection the message is dropped."""
        self.send_encoded(envelope.SerializeToString())

    def send_encoded(self, *parts: bytes) -> None:
        """Queue an encoded message for sending. The parts, one after the other, are its bytes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(*parts))

    def hold(self, on: bool) -> None:
        """Stop reading when `on` is true, otherwise resume reading. Messages that are not read wait in the socket, and
        when the socket is full, in the outbox of the worker.
        """
        if self._transport is not None and not self._transport.is_closing():
            if on:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection after queued messages are sent. `on_lost` is not called."""
        self._state = _State.CLOSED
        self._cancel_deadline()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once, and drop unsent messages. `on_lost` is not called."""
        self._state = _State.CLOSED
        self._cancel_deadline()
        if self._transport is not None:
            self._transport.abort()

    def _close_with(self, detail: str) -> None:
        self._lost(detail)
        if self._transport is not None:
            self._transport.close()

    def _lost(self, detail: str) -> None:
        was, self._state = self._state, _State.CLOSED
        self._cancel_deadline()
        if was is _State.PROVEN:
            self._owner.on_lost(self, detail)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
