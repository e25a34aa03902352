"""Request ids: a caller sends the same id again to repeat a call. Here they become the hashes that are remembered.

Only hashes are kept, sent to a worker or written to disk. None is logged: a written value could be guessed from its
hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.types import Identity

SHORTEST, LONGEST = 16, 64


def request_key(identity: Identity, request_id: bytes) -> bytes:
    """Return the key of a caller's request; empty without an id. The same id of another caller has another key.

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
    """Return the hash of a message: equal for equal messages."""
    return digest_of(body_bytes(body))


def body_bytes(body: Message) -> bytes:
    """Return the encoded message that is hashed: equal for equal messages."""
    return body.SerializeToString(deterministic=True)


def digest_of(data: bytes) -> bytes:
    """Return the hash of `body_bytes`."""
    return hashlib.sha256(data).digest()


def withheld_digest(indexes: Iterable[int]) -> bytes:
    """Return the hash of the indexes of inputs that were denied in a bulk call; empty when none was."""
    text = ",".join(map(str, sorted(indexes)))
    return hashlib.sha256(text.encode()).digest() if text else b""


def _hash(parts: Iterable[bytes]) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(4, "big"))
        whole.update(part)
    return whole.digest()
