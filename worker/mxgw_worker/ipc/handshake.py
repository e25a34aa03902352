"""The handshake, in which gateway and worker authenticate each other. This module does no I/O. worker.proto has the
order of messages.

Both ends know a secret of 32 bytes that is never sent. Each end sends a random nonce. Each end also proves that it
knows the secret, with an HMAC-SHA256 of its role and of the transcript (the Hello and the gateway's nonce, each with
its length). The Hello contains the worker's nonce and process id, so a proof is valid only for one role, one connection
and one worker process. After a complete handshake, both ends derive the secret of the next handshake from the same
transcript.
"""

from __future__ import annotations

import hmac
import secrets
from enum import StrEnum
from hashlib import sha256
from typing import NoReturn

from mxgw.worker.v1.worker_pb2 import Challenge, Hello, Proof, Reject, Welcome

# Raised with every change that a worker of an earlier build would not notice: one that ignores the options of an item
# (3) would report every change of it, and nobody would know why.
PROTOCOL_VERSION = 3
SECRET_BYTES = 32
NONCE_BYTES = 32
EPOCH_BYTES = 16

_MAXIMUM_REJECT_CHARACTERS = 300


class HandshakeReason(StrEnum):
    """The reason why a handshake failed. The gateway sends its reason to the worker in `Reject.reason`."""

    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    WRONG_SESSION = "WRONG_SESSION"
    MALFORMED_HELLO = "MALFORMED_HELLO"
    BAD_PROOF = "BAD_PROOF"
    BAD_GATEWAY_PROOF = "BAD_GATEWAY_PROOF"
    REJECTED = "REJECTED"
    UNEXPECTED_MESSAGE = "UNEXPECTED_MESSAGE"


class HandshakeError(Exception):
    """The peer could not prove its identity, or does not follow the protocol. The connection must be cut."""

    def __init__(self, reason: HandshakeReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class GatewayHandshake:
    """The gateway's end of one handshake. It cannot be used again after the handshake has failed or finished."""

    def __init__(self, *, session_id: str, secret: bytes, former_secret: bytes | None = None) -> None:
        """Prepare a handshake. The worker can prove itself with `secret` or with `former_secret`. A worker that did not
        receive the last Welcome still has the former secret.
        """
        self._session_id = session_id
        self._secrets = [_checked_secret(each) for each in (secret, former_secret) if each is not None]
        self._proved_secret: bytes | None = None
        self._hello: Hello | None = None
        self._transcript: tuple[bytes, bytes] | None = None
        self._next_secret: bytes | None = None

    @property
    def proved_secret(self) -> bytes:
        """The secret that the worker has proved to know. It is set by `on_proof`."""
        if self._proved_secret is None:
            raise RuntimeError("the handshake is not complete")
        return self._proved_secret

    @property
    def hello(self) -> Hello:
        """The worker's Hello. It must not be trusted before `on_proof` has succeeded."""
        if self._hello is None:
            raise RuntimeError("no Hello was received yet")
        return self._hello

    @property
    def next_secret(self) -> bytes:
        """The secret of the next handshake with this worker. It is set by `on_proof`.

        A worker that does not receive the Welcome still has the secret of this handshake.
        """
        if self._next_secret is None:
            raise RuntimeError("the handshake is not complete")
        return self._next_secret

    def on_hello(self, hello: Hello) -> Challenge:
        """Check the worker's Hello, and return the challenge for the worker.

        Raises:
            HandshakeError: PROTOCOL_VERSION, WRONG_SESSION, MALFORMED_HELLO, or UNEXPECTED_MESSAGE for a second Hello.
        """
        if self._hello is not None:
            raise _unexpected("a second Hello")
        if hello.protocol_version != PROTOCOL_VERSION:
            raise HandshakeError(
                HandshakeReason.PROTOCOL_VERSION,
                f"the worker speaks protocol version {hello.protocol_version}, this gateway {PROTOCOL_VERSION}; "
                "gateway and worker must come from one installation",
            )
        if not hmac.compare_digest(hello.session_id.encode(), self._session_id.encode()):
            raise HandshakeError(HandshakeReason.WRONG_SESSION, "the worker belongs to another session")
        problem = _hello_problem(hello)
        if problem:
            raise HandshakeError(HandshakeReason.MALFORMED_HELLO, problem)
        self._hello = hello
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._transcript = (hello.SerializeToString(deterministic=True), nonce)
        return Challenge(gateway_nonce=nonce)

    def on_proof(self, proof: Proof, resume_after: int) -> Welcome:
        """Check the worker's proof, and return the Welcome, which has the gateway's proof. In the Welcome,
        `resume_after` is the sequence after which the worker is to send events.

        Raises:
            HandshakeError: BAD_PROOF, or UNEXPECTED_MESSAGE when no challenge waits for a proof.
        """
        transcript, self._transcript = self._transcript, None
        if transcript is None:
            raise _unexpected("a Proof without an open challenge")
        # The proof is compared with every secret, so that the duration does not reveal which secret matched.
        matching = [s for s in self._secrets if hmac.compare_digest(proof.mac, _mac(s, b"worker", *transcript))]
        if not matching:
            raise HandshakeError(HandshakeReason.BAD_PROOF, "the worker does not know the secret of this session")
        secret = self._proved_secret = matching[0]
        self._next_secret = _mac(secret, b"rotate", *transcript)
        mac = _mac(secret, b"gateway", *transcript, _number(resume_after))
        return Welcome(mac=mac, resume_after=resume_after)

    def __repr__(self) -> str:
        return f"GatewayHandshake(session_id={self._session_id!r}, complete={self._next_secret is not None})"


class WorkerHandshake:
    """The worker's end of one handshake. It cannot be used again after the handshake has failed or finished."""

    def __init__(self, *, session_id: str, secret: bytes, epoch: bytes, pid: int, start_ticks: int) -> None:
        self._secret = _checked_secret(secret)
        self._introduction = Hello(
            protocol_version=PROTOCOL_VERSION, session_id=session_id, epoch=epoch, pid=pid, start_ticks=start_ticks
        )
        self._hello_bytes: bytes | None = None
        self._transcript: tuple[bytes, bytes] | None = None
        self._next_secret: bytes | None = None

    @property
    def next_secret(self) -> bytes:
        """The secret of the next handshake. It is set by `on_welcome`."""
        if self._next_secret is None:
            raise RuntimeError("the handshake is not complete")
        return self._next_secret

    def hello(self, head_sequence: int, outbox_oldest: int) -> Hello:
        """Return the Hello, with a fresh nonce."""
        if self._hello_bytes is not None:
            raise RuntimeError("a handshake says Hello once; make a new one for a new connection")
        hello = self._introduction
        hello.head_sequence = head_sequence
        hello.outbox_oldest = outbox_oldest
        hello.worker_nonce = secrets.token_bytes(NONCE_BYTES)
        self._hello_bytes = hello.SerializeToString(deterministic=True)
        return hello

    def on_challenge(self, challenge: Challenge) -> Proof:
        """Return the proof that this worker knows the secret.

        Raises:
            HandshakeError: UNEXPECTED_MESSAGE, the challenge is out of order, or its nonce has a wrong length.
        """
        if self._hello_bytes is None or self._transcript is not None or self._next_secret is not None:
            raise _unexpected("a Challenge out of order")
        if len(challenge.gateway_nonce) != NONCE_BYTES:
            raise _unexpected(f"a Challenge with a nonce of {len(challenge.gateway_nonce)} bytes")
        self._transcript = (self._hello_bytes, challenge.gateway_nonce)
        return Proof(mac=_mac(self._secret, b"worker", *self._transcript))

    def on_welcome(self, welcome: Welcome) -> int:
        """Check the gateway's proof, and return the sequence after which events are to be sent.

        Raises:
            HandshakeError: BAD_GATEWAY_PROOF, or UNEXPECTED_MESSAGE when no proof was sent.
        """
        transcript, self._transcript = self._transcript, None
        if transcript is None or self._next_secret is not None:
            raise _unexpected("a Welcome out of order")
        expected = _mac(self._secret, b"gateway", *transcript, _number(welcome.resume_after))
        if not hmac.compare_digest(welcome.mac, expected):
            raise HandshakeError(
                HandshakeReason.BAD_GATEWAY_PROOF,
                "the process that listens at the endpoint does not know this worker's secret",
            )
        self._next_secret = _mac(self._secret, b"rotate", *transcript)
        return welcome.resume_after

    def on_reject(self, reject: Reject) -> NoReturn:
        """Raise the gateway's refusal as an error.

        Raises:
            HandshakeError: always, with the reason REJECTED; its detail starts with the gateway's reason.
        """
        text = f"{reject.reason}: {reject.detail}"[:_MAXIMUM_REJECT_CHARACTERS]
        raise HandshakeError(HandshakeReason.REJECTED, "".join(c if c.isprintable() else "?" for c in text))

    def __repr__(self) -> str:
        session_id = self._introduction.session_id
        return f"WorkerHandshake(session_id={session_id!r}, complete={self._next_secret is not None})"


def _mac(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    mac = hmac.new(secret, digestmod=sha256)
    for part in (b"mxgw.worker.v1", label, *parts):
        mac.update(_number(len(part)))
        mac.update(part)
    return mac.digest()


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _checked_secret(secret: bytes) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes, it must have {SECRET_BYTES}")
    return secret


def _hello_problem(hello: Hello) -> str:
    if len(hello.epoch) != EPOCH_BYTES:
        return f"the epoch has {len(hello.epoch)} bytes, it must have {EPOCH_BYTES}"
    if len(hello.worker_nonce) != NONCE_BYTES:
        return f"the nonce has {len(hello.worker_nonce)} bytes, it must have {NONCE_BYTES}"
    if hello.pid <= 0:
        return f"{hello.pid} is no process id"
    if hello.outbox_oldest > hello.head_sequence + 1:
        return f"the outbox starts at {hello.outbox_oldest}, beyond the head {hello.head_sequence}"
    return ""


def _unexpected(what: str) -> HandshakeError:
    return HandshakeError(HandshakeReason.UNEXPECTED_MESSAGE, f"received {what}")
