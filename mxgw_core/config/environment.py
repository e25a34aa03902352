"""Reads settings from environment variables. Texts on the command line are converted to values by the same rules."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from mxgw_core.config import schema
from mxgw_core.config.files import ENVIRONMENT_PREFIX, Path
from mxgw_core.config.secrets import is_secret_key

# The gateway ignores variables with these prefixes, which belong to the client library.
FOREIGN_PREFIXES = ("MXGW_CLIENT_",)


def value_of(path: Path, text: str) -> Any:
    """Return the value of this key that `text` means.

    For keys whose values are texts, paths or secrets, the value is the text itself. For a list, the text is a TOML
    array or has commas between the entries. For any other key, the text is read as TOML; a text that is not valid TOML
    is the value itself. An empty text for a key that can be None means None.
    """
    field = schema.field_of(path)
    if field is not None:
        if schema.is_optional(field) and not text:
            return None
        if schema.takes_text(field):
            return text
        if schema.takes_list(field) and not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
    elif is_secret_key(path[-1]):
        return text
    return _toml_value(text)


def environment_layers(environ: Mapping[str, str], known: Iterable[Path]) -> list[tuple[str, Path, Any]]:
    """Return the name, the key and the value of each variable that begins with `MXGW_`, sorted by name.

    The name of a variable has capital letters only, and no `-`. So the keys in `known` tell how the name of a backend
    or plugin is really spelled.
    """
    spelled = {schema.environment_name(path): path for path in known}
    found = []
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(FOREIGN_PREFIXES):
            continue
        parts = tuple(name.removeprefix(ENVIRONMENT_PREFIX).split("__"))
        path: Path = tuple(part.lower() for part in parts)
        for length in range(len(parts), 0, -1):
            if known_path := spelled.get(ENVIRONMENT_PREFIX + "__".join(parts[:length])):
                path = (*known_path, *path[length:])
                break
        found.append((name, path, value_of(path, environ[name])))
    return found


def _toml_value(text: str) -> Any:
    stripped = text.strip()
    if stripped in ("True", "False", "TRUE", "FALSE"):
        return stripped.lower() == "true"
    try:
        document = tomllib.loads(f"value = {stripped}")
    except tomllib.TOMLDecodeError:
        return text
    # A text with line breaks can be TOML that defines further keys. Such a text is not read as TOML.
    return document["value"] if document.keys() == {"value"} else text
