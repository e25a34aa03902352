"""The format of an API key: `mxgw_<environment>_<key id>_<secret>_<checksum>`. A double click selects all of it.

With the checksum, the gateway and scanners for secrets can recognise a well-formed key without a lookup.
Source: the token formats of GitHub, docs/reference/security.md#key-format.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY_ID_CHARACTERS = 12
# Enough characters for 256 bits, because 62^43 > 2^256.
SECRET_CHARACTERS = 43
SECRET_BYTES = 32
CHECKSUM_CHARACTERS = 6

# The pattern for secret scanners. docs/securing.md shows the same pattern; a test compares the two texts.
KEY_REGEX = r"mxgw_[a-z0-9]{1,16}_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}"
_KEY = re.compile(KEY_REGEX)
ENVIRONMENT = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class KeyText:
    """The parts of a well-formed key."""

    environment: str
    key_id: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """Return the complete key, as a client sends it. The text is a secret."""
        body = f"mxgw_{self.environment}_{self.key_id}_{self.secret}"
        return f"{body}_{_checksum(body)}"


def new_key_id() -> str:
    """Return a random key id."""
    return "".join(secrets.choice(ALPHABET) for _ in range(KEY_ID_CHARACTERS))


def new_secret() -> str:
    """Return a random 256-bit secret."""
    return _base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES), "big"), SECRET_CHARACTERS)


def parse_key(text: str) -> KeyText | None:
    """Return the parts of a key; None when the text does not have the form of a key, or its checksum is wrong."""
    if _KEY.fullmatch(text) is None:
        return None
    body, _, checksum = text.rpartition("_")
    if checksum != _checksum(body):
        return None
    _, environment, key_id, secret = body.split("_")
    return KeyText(environment, key_id, secret)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
