"""Makes the hashes by which repeated calls are found: of request ids, and of what the calls contain.

A caller repeats a call by sending the same request id again. Only the hashes are kept, sent to a worker or written to
disk. No hash is logged, because the value of a write could be guessed from its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.types import Identity

SHORTEST, LONGEST = 16, 64


def request_key(identity: Identity, request_id: bytes) -> bytes:
    """Return the hash of a request id and its caller; empty when there is no id.

    The same id from another caller gives another hash.

    Raises:
        InvalidRequest: the id is too short or too long.
    """
    if not request_id:
        return b""
    if not SHORTEST <= len(request_id) <= LONGEST:
        raise InvalidRequest(
            f"request_id has {len(request_id)} bytes; {SHORTEST} to {LONGEST} are allowed, best {SHORTEST} random ones",
            metadata={"field": "request_id"},
        )
    return _hash((identity.kind.encode(), identity.id.encode(), request_id))


def body_digest(body: Message) -> bytes:
    """Return the hash of a message. Equal messages have equal hashes."""
    return digest_of(body_bytes(body))


def body_bytes(body: Message) -> bytes:
    """Return the encoded message, for `digest_of`. Equal messages give equal bytes."""
    return body.SerializeToString(deterministic=True)


def digest_of(data: bytes) -> bytes:
    """Return the hash of an encoded message, which `body_bytes` returned."""
    return hashlib.sha256(data).digest()


def withheld_digest(indexes: Iterable[int]) -> bytes:
    """Return the hash of the indexes of the denied inputs of a bulk call; empty when no input was denied."""
    text = ",".join(map(str, sorted(indexes)))
    return hashlib.sha256(text.encode()).digest() if text else b""


def _hash(parts: Iterable[bytes]) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(4, "big"))
        whole.update(part)
    return whole.digest()
