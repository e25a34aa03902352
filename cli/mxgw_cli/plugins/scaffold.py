"""`mxgw plugins new`: writes a new plugin or backend from templates, as a Python distribution with tests that pass."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from mxgw_cli.plugins.descriptors import descriptor_code
from mxgw_cli.plugins.kinds import PluginKind
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure
from mxgw_core.config.models import PluginsSettings
from mxgw_core.plugins.discovery import installed, origin_of
from mxgw_worker.platform import quoted

_NAME = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")
_LONGEST_NAME = 40
_SUFFIX = ".template"
# The same as in `mxgw_worker.backends.registry`, which the command line does not import.
BACKENDS_GROUP = "mxgw.backends"
BUILT_IN_KINDS = frozenset({"mxaccess", "opcua", "sim"})


@dataclass(frozen=True, slots=True)
class PluginNames:
    """The names of one plugin: in the settings, of its distribution, of its module, and the prefix of its classes."""

    name: str
    distribution: str
    module: str
    class_prefix: str

    @classmethod
    def of(cls, name: str, kind: PluginKind = PluginKind.POLICY) -> PluginNames:
        """Return all names for the plugin `name`.

        Raises:
            CliFailure: the name is not allowed (the hint has a similar name that is allowed), or a plugin of this name
                exists already.
        """
        what = "backend" if kind.is_backend else "plugin"
        if not _NAME.fullmatch(name) or "__" in name or keyword.iskeyword(name) or len(name) > _LONGEST_NAME:
            better = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_0123456789")[:_LONGEST_NAME]
            hint = f"For example: {better}" if _NAME.fullmatch(better) and not keyword.iskeyword(better) else ""
            raise CliFailure(
                f"{name!r} is no name for a {what}: 2 to {_LONGEST_NAME} small letters, digits and single underscores, "
                "a letter first, no word of Python",
                hint=hint,
            )
        if not kind.is_backend and name in PluginsSettings.model_fields:
            raise CliFailure(
                f"{name!r} is no name for a plugin: the settings of a plugin are the section [plugins.{name}], and "
                f"plugins.{name} is a setting of the gateway"
            )
        if owner := _owner_of(name, kind):
            raise CliFailure(f"there is a {what} {name!r} already, of {owner}: a gateway refuses a second one")
        words = name.split("_")
        prefix = "".join(word.capitalize() for word in words)
        return cls(name, f"mxgw-{what}-{'-'.join(words)}", f"mxgw_{what}_{name}", prefix)


def _owner_of(name: str, kind: PluginKind) -> str:
    """Return the distribution that has a plugin or backend of this name already; "" when none has."""
    if not kind.is_backend:
        entries = installed().entries
        return " ".join(origin_of(entries[name][0])).strip() if name in entries else ""
    if name in BUILT_IN_KINDS:
        return "mxgw"
    found = [entry for entry in entry_points(group=BACKENDS_GROUP) if entry.name == name]
    return " ".join(origin_of(found[0])).strip() if found else ""


def new_plugin(name: str, kind: PluginKind, directory: Path, *, as_json: bool) -> None:
    """Write a plugin of this name and kind below `directory`, and print what to do next.

    Raises:
        CliFailure: the name is not allowed or exists already, or the files cannot be written.
    """
    root, written = write_plugin(PluginNames.of(name, kind), kind, directory)
    if as_json:
        relative = [path.relative_to(root).as_posix() for path in written]
        write_json({"directory": str(root), "kind": kind.value, "files": relative})
        return
    click.echo(f"{root}:")
    for path in written:
        click.echo(f"  {path.relative_to(root)}")
    use = f"use the kind {name!r} for a backend" if kind.is_backend else f"enable {name!r}"
    install = quoted(("pip", "install", "-e", f"{root}[test]"))
    click.echo(f"Next: {install}, run pytest there, and {use} in settings.toml. README.md says how.")


def write_plugin(names: PluginNames, kind: PluginKind, directory: Path) -> tuple[Path, list[Path]]:
    """Write the distribution into a new directory below `directory`; return the new directory and the sorted files.

    Raises:
        CliFailure: the new directory exists already (its files are not changed), or a file cannot be written.
    """
    root = directory / names.distribution
    try:
        directory.mkdir(parents=True, exist_ok=True)
        root.mkdir()
        return root, sorted(_write(files("mxgw_cli.plugins") / "templates" / kind.value, root, names))
    except FileExistsError:
        raise CliFailure(
            f"{root} exists, and nothing is overwritten", hint="Choose another name, or another --directory."
        ) from None
    except OSError as error:
        raise CliFailure(f"{error.filename or root} cannot be written: {error.strerror}") from error


def _write(template: Traversable, target: Path, names: PluginNames) -> list[Path]:
    written: list[Path] = []
    for entry in template.iterdir():
        if entry.is_dir():
            folder = target / (names.module if entry.name == "module" else entry.name)
            folder.mkdir()
            written += _write(entry, folder, names)
        elif entry.name.endswith(_SUFFIX):
            path = target / entry.name.removesuffix(_SUFFIX)
            text = _filled(entry.read_text("utf-8"), names)
            if path.suffix == ".json":
                # The description of a gRPC service. The code for it has the lengths of all names in it, so it cannot be
                # a template.
                path = path.with_suffix(".py")
                text = descriptor_code(text)
            path.write_text(text, "utf-8")
            written.append(path)
    return written


def _filled(text: str, names: PluginNames) -> str:
    for word, value in (
        ("@name@", names.name),
        ("@distribution@", names.distribution),
        ("@module@", names.module),
        ("@class@", names.class_prefix),
        ("@command@", names.name.replace("_", "-")),
    ):
        text = text.replace(word, value)
    return text
