"""Write the pages that follow from the code: docs/configuration.md, from the settings models of mxgw and its built-in
plugins, and the pages of reference, from the docstrings of what plugins and backends import.

With --check nothing is written, and the exit code is 1 when a page is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
import typing
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath
from typing import Any

import api_reference
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from mxgw_core.config import schema
from mxgw_core.config.models import BackendSettings, Settings

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = PurePosixPath("docs/configuration.md")

INTRO = """\
# Configuration

<!-- Generated from the settings models by `python scripts/generate_docs.py`. Do not edit. -->

mxgw runs without any settings. A site starts from [settings.toml](../settings.toml), which shows every setting with
its default, and changes what it needs. `mxgw config check` says whether the settings are valid, `mxgw config show`
lists every value in effect and its origin, with secrets masked.

## Layers

Later layers win. Tables merge key by key; anything else, lists included, is replaced as a whole.

| layer | what it is for |
|---|---|
| defaults | the tables below |
| `settings.toml` in the working directory | the site's settings; it need not exist |
| the file named with `--settings` | one gateway's settings; it must exist |
| `.secrets.toml` beside each of these files | passwords and tokens; must be private: `chmod 600 .secrets.toml` |
| environment variables `MXGW_...` | containers and service units |
| options on the command line | one run |

An unknown key, a value out of range, a wrong type, a missing file or a `.secrets.toml` that others may read stops the
start. All problems are reported at once, each with its file, line and key and the nearest valid key:

```text
settings.toml:2: limits.sesions: unknown key; did you mean 'sessions'?
environment MXGW_EVENTS__QUEUE_BYTES: events.queue_bytes: must be a valid integer (is "many")
```

### Files

```toml
# settings.toml
[limits]
sessions = 16

[backends]
default = "line4"

[backends.line4]
kind = "opcua"
url = "opc.tcp://line4.example:4840"
user = "mxgw"

[plugins]
enabled = ["replay", "acl"]
required = ["replay"]
```

```toml
# .secrets.toml, mode 0600
[backends.line4]
password = "..."
```

Relative paths count from the working directory, those of plugins from `gateway.data_dir`. Values are what TOML says
they are: `"5"` is text and no number, and no text is a template.

### Environment

`MXGW_` and the key in capitals; two underscores step into a table, and `-` in a name becomes `_`:

```sh
export MXGW_LIMITS__SESSIONS=16                      # [limits] sessions
export MXGW_GATEWAY__LISTEN=127.0.0.1:50051,unix:/run/mxgw.sock
export MXGW_PLUGINS__ENABLED='["replay", "acl"]'     # a TOML list, or names separated by commas
export MXGW_BACKENDS__LINE4__PASSWORD=...            # [backends.line4] password
```

Text and paths are taken unchanged, other values are read as TOML. Options of backends and plugins are read as TOML
too, and taken as text when they are not TOML; write `'"5"'` for a text that looks like a number. An empty value unsets
a setting that may be unset. A variable whose name is no setting is an error, except `MXGW_CLIENT_...`, which belong to
the client library.

### Secrets

Values of backends and plugins count as secrets when their key ends in a word such as `password`, `secret`, `token` or
`private_key`. They are shown as `***`, in `mxgw config show` and in logs alike.
"""

AFTER: dict[str, str] = {
    "workers": """\
### Another Python for the workers

MXAccess is a 32-bit component, so its workers need a 32-bit Python; the gateway is better off with 64 bits. With
`python`, each worker runs in the Python that it names:

```toml
[workers]
python = 'C:\\Program Files\\mxgw\\workers\\Scripts\\python.exe'   # single quotes: a backslash is a backslash
```

It must be Python 3.11 or newer with the same version of mxgw as the gateway's (`mxgw --version`), and protobuf. A
worker needs nothing else of what the gateway needs, not even grpcio, so two packages without what they depend on are
enough:

```powershell
& "C:\\Program Files\\mxgw\\workers\\Scripts\\python.exe" -m pip install --no-deps mxgw==0.1.0 protobuf
```

After an upgrade of the gateway, run it again with the new version. What a backend needs is installed there too
(`pip install asyncua` for `opcua`, and backends of your own), because the worker imports it, not the gateway. What
`pip install --user` has installed is not seen: workers are isolated from the user's own packages, from `PYTHONPATH` and
from the working directory. The "embeddable package" of Python has no pip and ignores what is installed beside it until
`import site` in its `python311._pth` is no comment any more; the usual installer is simpler. A virtual environment is
fine, on Windows too, where its `python.exe` only starts that of the installation: the gateway starts the latter
directly. Programs that start a Python in another process, such as `py.exe`, are refused.

`mxgw serve`, `mxgw config check` and `mxgw doctor` start the Python once and ask it. They refuse one that does not
exist, does not answer within 60 s, is too old, has no mxgw or another version of it, and say what to do. That takes as
long as this Python takes to start, at each start of the gateway. A gateway that takes workers of an earlier one back
([reattach](reattach.md)) takes them whatever Python they run in; new ones run in the Python of the present settings.
""",
    "backends": """\
Each backend is a table `[backends.<name>]`. `sim` exists as long as no other table does. Keys other than `kind` are
options of that kind; the worker checks them as it starts, and `mxgw doctor` asks it to.
""",
    "plugins": """\
Each plugin's settings are in `[plugins.<name>]`; those of the plugins that come with mxgw follow. A section of a
plugin that is not enabled is ignored; one that belongs to no installed plugin causes a warning.
""",
}

HEAD = "| key | type | default | range | meaning |\n|---|---|---|---|---|"


def page() -> str:
    """Return the page of settings."""
    parts = [INTRO]
    for name in schema.SECTIONS:
        parts.append(f"## [{name}]\n\n{_summary(name)}\n")
        parts.append(_table((name,), schema.fields_of((name,)) or {}))
        if name == "backends":
            parts.append("### [backends.\\<name\\>]\n")
            parts.append(_table(("backends", "<name>"), dict(BackendSettings.model_fields)))
        if name in AFTER:
            parts.append(AFTER[name])
    for name, model in _plugin_models():
        parts += _plugin_tables(("plugins", name), model)
    return "\n".join(parts).rstrip() + "\n"


def _summary(section: str) -> str:
    if section == "backends":
        return "What sessions talk to."
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return (model.__doc__ or "").strip()


def _plugin_models() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name and the settings model of each built-in plugin that has settings."""
    for entry in sorted(distribution("mxgw").entry_points.select(group="mxgw.plugins"), key=lambda found: found.name):
        declare = getattr(entry.load()(), "mxgw_settings", None)
        if declare is not None:
            yield entry.name, declare().model


def _plugin_tables(table: tuple[str, ...], model: type[BaseModel]) -> Iterator[str]:
    """Yield a table with the keys of the model, and then a section for each model inside it."""
    inner = {name: schema.model_in(field.annotation) for name, field in model.model_fields.items()}
    yield f"### [{'.'.join(table)}]\n\n{(model.__doc__ or '').strip()}\n"
    yield _table(table, {name: field for name, field in model.model_fields.items() if inner[name] is None})
    for name, found in inner.items():
        if found is not None:
            yield from _plugin_tables((*table, name), found)


def _table(table: tuple[str, ...], fields: dict[str, FieldInfo]) -> str:
    rows = [HEAD]
    for name, field in fields.items():
        key = f"`{name}`<br>`{schema.environment_name((*table, name))}`"
        cells = (key, _type(field.annotation), _default(field), _range(field), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _type(annotation: Any) -> str:
    words = []
    for kind in schema.alternatives(annotation):
        if typing.get_origin(kind) is typing.Literal:
            words.append(" or ".join(f"`{json.dumps(value)}`" for value in typing.get_args(kind)))
        elif typing.get_origin(kind) in (tuple, list):
            choices = schema.alternatives(typing.get_args(kind)[0])
            words.append("list of text" if str in choices else f"list of {_type(choices[0])}")
        elif typing.get_origin(kind) is dict:
            words.append(f"table: {_type(typing.get_args(kind)[1])} by name")
        elif kind is not type(None):
            words.append({bool: "true or false", int: "whole number", float: "number", Path: "path",
                          str: "text", SecretStr: "secret text"}[kind])  # fmt: skip
    return " or ".join(words)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "unset"
    return f"`{json.dumps(default, default=str)}`"


def _range(field: FieldInfo) -> str:
    words = []
    for attribute, word in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        bounds = [getattr(item, attribute) for item in field.metadata if hasattr(item, attribute)]
        words += [f"{word} {bound:,}" for bound in bounds]
    words += [f"at least {item.min_length}" for item in field.metadata if hasattr(item, "min_length")]
    return ", ".join(words)


def main() -> int:
    """Write the pages; with --check, compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the directory that has docs/ (default: %(default)s)")
    arguments = parser.parse_args()
    old: list[Path] = []
    for name, text in {CONFIGURATION: page(), **api_reference.pages()}.items():
        path = arguments.root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments.check:
            old.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in old:
        sys.stderr.write(f"{path} is out of date; run: python scripts/generate_docs.py\n")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
