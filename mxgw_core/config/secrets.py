"""Recognises secrets by the name of their key or by their text, and masks them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import SecretStr

MASK = "***"

# A key is a secret when its name ends like this: `password` and `bindPassword` are secrets, but `password_file` and
# `token_lifetime_s` are no secrets.
_SECRET_KEY = re.compile(
    r"(pass(word|wd|phrase)|pwd|secret|token|pepper|credential"
    r"|(api|private|access|signing|encryption|shared|client)[_-]?key)s?$",
    re.IGNORECASE,
)
_KEY_TEXT = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]*@")


def is_secret_key(key: str) -> bool:
    """Return whether values of this key are secrets. Only the last part of the dotted name matters."""
    return _SECRET_KEY.search(key.rpartition(".")[2]) is not None


def masked_tree(value: Any, key: str = "") -> Any:
    """Return plain data in which `***` replaces all secrets: values of secret keys, texts of private keys, and
    passwords in URLs.

    `key` is the key of `value` itself.
    """
    if isinstance(value, SecretStr) or (is_secret_key(key) and value not in (None, "")):
        return MASK
    if isinstance(value, dict):
        return {name: masked_tree(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_tree(item) for item in value]
    if isinstance(value, str):
        return MASK if _KEY_TEXT.search(value) else _URL_PASSWORD.sub(rf"\1{MASK}@", value)
    return value
