"""Reads what griffe finds in the source of a package: the public names of its modules, and what is said about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import griffe

# A definition, or a name in a package that stands for a definition in one of its modules.
Found: TypeAlias = griffe.Object | griffe.Alias


@dataclass(frozen=True)
class Section:
    """One module on a page, with the names that it defines for others. `title` is what the module is about."""

    module: griffe.Module
    title: str
    names: Sequence[str]

    @property
    def heading(self) -> str:
        return f"Module {self.module.path}"


def api_sections(api: griffe.Module) -> Iterator[Section]:
    """Yield the modules of `mxgw_core.api` in the order in which its docstring lists them."""
    exported = {str(name).strip("'\"") for name in api.exports or ()}
    assert api.docstring is not None
    for name, title in re.findall(r"^ {4}(\w+) +(.+)$", api.docstring.value, re.MULTILINE):
        module = api[name]
        # These modules have all their names for others, and define none of them.
        passes_on = name in ("cli", "files", "machine")
        own = {str(one).strip("'\"") for one in module.exports or ()} if passes_on else exported
        found = [
            member.name
            for member in module.members.values()
            if member.name in own or (name == "errors" and not member.is_alias and member.is_class)
        ]
        if not passes_on:
            found = [one for one in found if not module.members[one].is_alias and one != "Hooks"]
        yield Section(module, title, found)


def whole(module: griffe.Module) -> Section:
    """Return a section with all names that a module or package offers, in the order of their definition."""
    exported = {str(name).strip("'\"") for name in module.exports or ()}
    if exported:
        order = sorted(exported, key=lambda name: (module[name].canonical_path.rpartition(".")[0], module[name].lineno))
    else:
        own = [one for one in public_members(module) if not one.is_alias and (one.is_function or one.is_class)]
        order = [one.name for one in own]
    text = inspect.cleandoc(module.docstring.value) if module.docstring is not None else ""
    title = text.partition("\n")[0].partition(". ")[0].rstrip(".")
    return Section(module, title[:1].lower() + title[1:], order)


def types_in(function: Found) -> frozenset[str]:
    """Return the full paths of all names in the signature of a function."""
    expressions = [function.returns, *(one.annotation for one in function.parameters)]
    return frozenset(
        one.canonical_path
        for expression in expressions
        if isinstance(expression, griffe.Expr)
        for one in expression.iterate(flat=True)
        if isinstance(one, griffe.ExprName)
    )


def kind_of(found: Found) -> str:
    bases = {str(base) for base in found.bases}
    if "Protocol" in bases:
        return "protocol"
    if any(base.startswith("enum.") for base in bases):
        return "enum"
    if "dataclass" in found.labels or is_named_tuple(found):
        return "value"
    if any(base.endswith(("Error", "Exception")) for base in bases):
        return "error"
    return "class"


def is_named_tuple(found: Found) -> bool:
    """Return whether a class is a value that is a tuple with names for its items."""
    return any(str(base) == "NamedTuple" for base in found.bases)


def in_table(found: Found) -> bool:
    """Return whether a class is an error without methods, so that one row of a table says all about it."""
    return (
        found.is_class and found.canonical_path.startswith("mxgw_core.api.errors.") and "__init__" not in found.members
    )


def public_members(found: Found) -> list[Found]:
    return [one for one in found.members.values() if not one.name.startswith("_")]


def attributes_of(found: Found) -> dict[str, str]:
    """Return what a docstring says about attributes in its section "Attributes"."""
    if found.docstring is None:
        return {}
    sections = found.docstring.parse("google", warnings=False)
    return {
        one.name: " ".join(one.description.split())
        for section in sections
        if section.kind.value == "attributes"
        for one in section.value
    }


def comment_above(found: Found) -> str:
    """Return the comment in the lines before a definition; "" when there is none."""
    target = found.final_target if isinstance(found, griffe.Alias) else found
    if target.lineno is None or not isinstance(target.filepath, Path):
        return ""
    comment: list[str] = []
    for line in reversed(lines_of(target.filepath)[: target.lineno - 1]):
        if not line.strip().startswith("# "):
            break
        comment.insert(0, line.strip().removeprefix("# "))
    return " ".join(comment)


@cache
def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def docstring_of(found: Found) -> str:
    return found.docstring.value if found.docstring is not None else ""


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
