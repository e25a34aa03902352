"""The handshake, with each way in which it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mxgw.worker.v1.worker_pb2 import Challenge, Hello, Proof, Reject, Welcome
from mxgw_worker.ipc.handshake import GatewayHandshake, HandshakeError, HandshakeReason, WorkerHandshake

SECRET = bytes(range(32))
EPOCH = b"e" * 16


def worker_end(secret: bytes = SECRET, session_id: str = "s-1") -> WorkerHandshake:
    return WorkerHandshake(session_id=session_id, secret=secret, epoch=EPOCH, pid=42, start_ticks=7)


def gateway_end(secret: bytes = SECRET) -> GatewayHandshake:
    return GatewayHandshake(session_id="s-1", secret=secret)


def refusal(call: Callable[[], object]) -> HandshakeReason:
    with pytest.raises(HandshakeError) as caught:
        call()
    return caught.value.reason


def test_both_ends_prove_themselves_and_agree_on_the_next_secret() -> None:
    worker, gateway = worker_end(), gateway_end()
    challenge = gateway.on_hello(worker.hello(12, 3))
    welcome = gateway.on_proof(worker.on_challenge(challenge), 11)

    assert worker.on_welcome(welcome) == 11
    assert worker.next_secret == gateway.next_secret != SECRET
    assert (gateway.hello.head_sequence, gateway.hello.outbox_oldest, gateway.hello.pid) == (12, 3, 42)


def test_the_secrets_never_cross_the_wire_and_no_two_connections_are_alike() -> None:
    transcripts = []
    for _ in range(2):
        worker, gateway = worker_end(), gateway_end()
        hello = worker.hello(0, 1)
        challenge = gateway.on_hello(hello)
        proof = worker.on_challenge(challenge)
        welcome = gateway.on_proof(proof, 0)
        sent = b"".join(message.SerializeToString() for message in (hello, challenge, proof, welcome))
        assert SECRET not in sent
        assert gateway.next_secret not in sent
        transcripts.append((hello.worker_nonce, challenge.gateway_nonce, proof.mac, welcome.mac, gateway.next_secret))

    assert not set(transcripts[0]) & set(transcripts[1])


def test_a_worker_with_another_secret_is_refused() -> None:
    worker, gateway = worker_end(secret=b"w" * 32), gateway_end()
    proof = worker.on_challenge(gateway.on_hello(worker.hello(0, 1)))

    assert refusal(lambda: gateway.on_proof(proof, 0)) is HandshakeReason.BAD_PROOF
    with pytest.raises(RuntimeError):
        _ = gateway.next_secret


def test_a_gateway_with_another_secret_is_refused_and_learns_nothing_it_can_reuse() -> None:
    worker, impostor = worker_end(), gateway_end(secret=b"i" * 32)
    proof = worker.on_challenge(impostor.on_hello(worker.hello(0, 1)))

    # Echoing the worker's own proof does not help: each role has its own label.
    assert refusal(lambda: worker.on_welcome(Welcome(mac=proof.mac))) is HandshakeReason.BAD_GATEWAY_PROOF


def test_a_proof_of_one_connection_does_not_fit_another() -> None:
    worker, gateway = worker_end(), gateway_end()
    proof = worker.on_challenge(gateway.on_hello(worker.hello(0, 1)))
    other = gateway_end()
    other.on_hello(worker_end().hello(0, 1))

    assert refusal(lambda: other.on_proof(proof, 0)) is HandshakeReason.BAD_PROOF


@pytest.mark.parametrize(
    ("field", "value"), [("epoch", b"x" * 16), ("pid", 43), ("start_ticks", 8), ("head_sequence", 99)]
)
def test_a_hello_changed_on_its_way_spoils_the_proof(field: str, value: object) -> None:
    worker, gateway = worker_end(), gateway_end()
    changed = Hello.FromString(worker.hello(5, 1).SerializeToString())
    setattr(changed, field, value)
    proof = worker.on_challenge(gateway.on_hello(changed))

    assert refusal(lambda: gateway.on_proof(proof, 0)) is HandshakeReason.BAD_PROOF


def test_a_changed_place_to_resume_spoils_the_gateways_proof() -> None:
    worker, gateway = worker_end(), gateway_end()
    welcome = gateway.on_proof(worker.on_challenge(gateway.on_hello(worker.hello(5, 1))), 2)
    welcome.resume_after = 4

    assert refusal(lambda: worker.on_welcome(welcome)) is HandshakeReason.BAD_GATEWAY_PROOF


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("protocol_version", 1, HandshakeReason.PROTOCOL_VERSION),
        ("session_id", "s-2", HandshakeReason.WRONG_SESSION),
        ("session_id", "ö", HandshakeReason.WRONG_SESSION),
        ("epoch", b"short", HandshakeReason.MALFORMED_HELLO),
        ("worker_nonce", b"", HandshakeReason.MALFORMED_HELLO),
        ("worker_nonce", b"n" * 33, HandshakeReason.MALFORMED_HELLO),
        ("pid", 0, HandshakeReason.MALFORMED_HELLO),
        ("pid", -1, HandshakeReason.MALFORMED_HELLO),
        ("outbox_oldest", 7, HandshakeReason.MALFORMED_HELLO),
    ],
)
def test_a_wrong_hello_is_refused(field: str, value: object, reason: HandshakeReason) -> None:
    hello = worker_end().hello(5, 1)
    setattr(hello, field, value)

    assert refusal(lambda: gateway_end().on_hello(hello)) is reason


def test_an_empty_outbox_is_a_good_hello() -> None:
    assert len(gateway_end().on_hello(worker_end().hello(5, 6)).gateway_nonce) == 32


def test_messages_out_of_order_are_refused() -> None:
    worker, gateway = worker_end(), gateway_end()

    assert refusal(lambda: gateway.on_proof(Proof(mac=b"m" * 32), 0)) is HandshakeReason.UNEXPECTED_MESSAGE
    assert (
        refusal(lambda: worker.on_challenge(Challenge(gateway_nonce=b"n" * 32))) is HandshakeReason.UNEXPECTED_MESSAGE
    )
    assert refusal(lambda: worker.on_welcome(Welcome(mac=b"m" * 32))) is HandshakeReason.UNEXPECTED_MESSAGE


def test_each_message_counts_once() -> None:
    worker, gateway = worker_end(), gateway_end()
    hello = worker.hello(0, 1)
    challenge = gateway.on_hello(hello)
    proof = worker.on_challenge(challenge)
    welcome = gateway.on_proof(proof, 0)
    worker.on_welcome(welcome)

    assert refusal(lambda: gateway.on_hello(hello)) is HandshakeReason.UNEXPECTED_MESSAGE
    assert refusal(lambda: gateway.on_proof(proof, 0)) is HandshakeReason.UNEXPECTED_MESSAGE
    assert refusal(lambda: worker.on_challenge(challenge)) is HandshakeReason.UNEXPECTED_MESSAGE
    assert refusal(lambda: worker.on_welcome(welcome)) is HandshakeReason.UNEXPECTED_MESSAGE
    with pytest.raises(RuntimeError):
        worker.hello(0, 1)


def test_a_failed_proof_cannot_be_tried_again() -> None:
    worker, gateway = worker_end(), gateway_end()
    proof = worker.on_challenge(gateway.on_hello(worker.hello(0, 1)))
    assert refusal(lambda: gateway.on_proof(Proof(mac=b"guess"), 0)) is HandshakeReason.BAD_PROOF

    assert refusal(lambda: gateway.on_proof(proof, 0)) is HandshakeReason.UNEXPECTED_MESSAGE


def test_a_challenge_needs_a_whole_nonce() -> None:
    worker = worker_end()
    worker.hello(0, 1)

    assert refusal(lambda: worker.on_challenge(Challenge(gateway_nonce=b"n"))) is HandshakeReason.UNEXPECTED_MESSAGE


def test_a_rejection_carries_the_gateways_reason_as_harmless_text() -> None:
    with pytest.raises(HandshakeError) as caught:
        worker_end().on_reject(Reject(reason="ALREADY_CONNECTED", detail="\x1b[31m" + "x" * 1000))

    assert caught.value.reason is HandshakeReason.REJECTED
    assert caught.value.detail.startswith("ALREADY_CONNECTED: ?[31mxxx")
    assert len(caught.value.detail) <= 300


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="must have 32"):
        worker_end(secret=b"s" * length)
    with pytest.raises(ValueError, match="must have 32"):
        gateway_end(secret=b"s" * length)


def test_representations_do_not_show_secrets() -> None:
    secret = b"A" * 32
    for end in (worker_end(secret), gateway_end(secret)):
        assert "AAAA" not in repr(end)
