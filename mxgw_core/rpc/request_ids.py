"""Request ids: what a caller repeats a call by, and what of it is remembered.

Nothing but hashes is kept, sent to a worker or written down; neither stands in a log, because what was written could be
guessed from the hash over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.types import Identity

SHORTEST, LONGEST = 16, 64


def request_key(identity: Identity, request_id: bytes) -> bytes:
    """Return the name of a caller's request: every identity has names of its own. Empty without an id.

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
    """Return a hash over a message: equal for equal messages, whoever encoded them."""
    return digest_of(body_bytes(body))


def body_bytes(body: Message) -> bytes:
    """Return the bytes of a message that its hash is over."""
    return body.SerializeToString(deterministic=True)


def digest_of(data: bytes) -> bytes:
    """Return the hash over `body_bytes`."""
    return hashlib.sha256(data).digest()


def withheld_digest(indexes: Iterable[int]) -> bytes:
    """Return a hash over the inputs that are withheld from a bulk call; empty for none."""
    text = ",".join(map(str, sorted(indexes)))
    return hashlib.sha256(text.encode()).digest() if text else b""


def _hash(parts: Iterable[bytes]) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(4, "big"))
        whole.update(part)
    return whole.digest()
