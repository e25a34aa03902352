"""Settings from the environment, and the meaning of their texts, which is the same on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from mxgw_core.config import schema
from mxgw_core.config.files import ENVIRONMENT_PREFIX, Path
from mxgw_core.config.secrets import is_secret_key

# Variables of the client library; the gateway ignores them.
FOREIGN_PREFIXES = ("MXGW_CLIENT_",)


def value_of(path: Path, text: str) -> Any:
    """Return the value that `text` means for this key.

    Texts, paths and secrets are taken literally. A list is a TOML array, or has commas between its entries. Any other
    value is read as TOML, or taken as text when it is not valid TOML.
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
    """Return name, key and value of each `MXGW_` variable, in the order of their names.

    The name of a variable has no `-` and no small letters. So the names of backends and plugins in `known` are
    recognised in their capital form.
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
    # With line breaks the text could define more keys: then it is no single value.
    return document["value"] if document.keys() == {"value"} else text
