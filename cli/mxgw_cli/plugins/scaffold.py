"""`mxgw plugins new`: writes a new plugin from templates. It is a Python distribution with tests that pass."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure
from mxgw_core.plugins.discovery import installed_entries, origin_of

_NAME = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")
_LONGEST_NAME = 40
_SUFFIX = ".template"


@dataclass(frozen=True, slots=True)
class PluginNames:
    """The names of one plugin: in the settings, of its distribution, of its module, and the prefix of its classes."""

    name: str
    distribution: str
    module: str
    class_prefix: str

    @classmethod
    def of(cls, name: str) -> PluginNames:
        """Return all names for the plugin `name`.

        Raises:
            CliFailure: the name is not allowed (the hint has a similar name that is allowed), or a plugin of this name
                exists already.
        """
        if not _NAME.fullmatch(name) or "__" in name or keyword.iskeyword(name) or len(name) > _LONGEST_NAME:
            better = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_0123456789")[:_LONGEST_NAME]
            hint = f"For example: {better}" if _NAME.fullmatch(better) and not keyword.iskeyword(better) else ""
            raise CliFailure(
                f"{name!r} is no name for a plugin: 2 to {_LONGEST_NAME} small letters, digits and single underscores, "
                "a letter first, no word of Python",
                hint=hint,
            )
        if name in (installed := installed_entries()):
            origin = " ".join(origin_of(installed[name][0])).strip()
            raise CliFailure(f"there is a plugin {name!r} already, of {origin}: a gateway refuses a second one")
        words = name.split("_")
        prefix = "".join(word.capitalize() for word in words)
        return cls(name, f"mxgw-plugin-{'-'.join(words)}", f"mxgw_plugin_{name}", prefix)


def new_plugin(name: str, directory: Path, *, as_json: bool) -> None:
    """Write a plugin of this name below `directory`, and print what to do next.

    Raises:
        CliFailure: the name is not allowed or exists already, or the files cannot be written.
    """
    root, written = write_plugin(PluginNames.of(name), directory)
    if as_json:
        write_json({"directory": str(root), "files": [str(path.relative_to(root)) for path in written]})
        return
    click.echo(f"{root}:")
    for path in written:
        click.echo(f"  {path.relative_to(root)}")
    click.echo(f"Next: pip install -e '{root}[test]', run pytest there, and enable {name!r} in settings.toml.")


def write_plugin(names: PluginNames, directory: Path) -> tuple[Path, list[Path]]:
    """Write the distribution into a new directory below `directory`; return the new directory and the sorted files.

    Raises:
        CliFailure: the new directory exists already (its files are not changed), or a file cannot be written.
    """
    root = directory / names.distribution
    try:
        directory.mkdir(parents=True, exist_ok=True)
        root.mkdir()
        return root, sorted(_write(files("mxgw_cli.plugins") / "templates" / "overflow_policy", root, names))
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
            path.write_text(_filled(entry.read_text("utf-8"), names), "utf-8")
            written.append(path)
    return written


def _filled(text: str, names: PluginNames) -> str:
    for word, value in (
        ("@name@", names.name),
        ("@distribution@", names.distribution),
        ("@module@", names.module),
        ("@class@", names.class_prefix),
    ):
        text = text.replace(word, value)
    return text
