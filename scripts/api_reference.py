"""Write the reference pages of the names that plugins and backends are allowed to import, from their docstrings."""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import griffe
from api_source import (
    Found,
    Section,
    anchor_of,
    api_sections,
    attributes_of,
    comment_above,
    docstring_of,
    in_table,
    is_named_tuple,
    kind_of,
    public_members,
    types_in,
    whole,
)

ROOT = Path(__file__).resolve().parent.parent
# The directories of import packages, from which griffe reads the source without importing it.
SEARCH_PATHS = [ROOT, ROOT / "worker", ROOT / "protos"]
HOOKS_PAGE = PurePosixPath("docs/plugins/hooks.md")

PLUGINS = """\
# Reference of the plugin API

<!-- Generated from docstrings and signatures by `python scripts/generate_docs.py`. Do not edit. -->

Every type and function that a plugin is allowed to import: the names in `mxgw_core.api`, the errors in
`mxgw_core.api.errors`, the helpers for commands in `mxgw_core.api.cli`, and `mxgw_core.testing` for tests.
[Hooks](hooks.md) has the hooks that use them, [Writing a plugin](writing-a-plugin.md) begins with a whole plugin.

```python
from mxgw_core.api import Identity, SessionInfo, hookimpl
from mxgw_core.api.errors import AccessDenied
```

A *protocol* is a list of methods: an object that has them can be used, and no class has to be derived from it. A
*value* is a frozen dataclass: make it with its fields as arguments, compare it, and do not change it. Messages of the
contract (`mxgw.v1`) are explained in [protos/mxgw/v1](../../protos/mxgw/v1).
"""

BACKENDS = """\
# Reference of the backend API

<!-- Generated from docstrings and signatures by `python scripts/generate_docs.py`. Do not edit. -->

Every type and function that a backend is allowed to import. [Writing a backend](writing-a-backend.md) begins with a
whole backend, and says what the rules are.
"""


@dataclass
class Page:
    """One page of the reference.

    `hooks` has the full paths of the types in the signature of each hook. `targets` has every name that can be linked
    to. Key: a name. Value: its anchor on this page. `paths` has the same for the full path of a definition.
    """

    path: PurePosixPath
    intro: str
    sections: Sequence[Section]
    hooks: Mapping[str, Sequence[str]]
    targets: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in self.sections:
            for name in section.names:
                found = section.module[name]
                anchor = anchor_of(section.heading) if in_table(found) else anchor_of(name)
                self.targets[name] = self.paths[found.canonical_path] = anchor

    @cached_property
    def hooks_with(self) -> Mapping[str, Sequence[str]]:
        """The hooks that get or return a type. Key: the full path of the type."""
        return {path: [hook for hook, used in self.hooks.items() if path in used] for path in self.paths}

    def relative(self, target: PurePosixPath) -> str:
        """Return the path of another file of the repository as a link on this page has it."""
        return posixpath.relpath(target, self.path.parent)

    def text(self) -> str:
        parts = [self.intro, table(("module", "what it has", "names"), [self.summary(one) for one in self.sections])]
        for section in self.sections:
            parts.append(f"\n## {section.heading}\n")
            if section.module.name == "hookspecs":
                parts.append(f"All hooks are on the page [Hooks]({self.relative(HOOKS_PAGE)}).\n")
            else:
                parts.append(self.prose(inspect.cleandoc(docstring_of(section.module)), section.module.path) + "\n")
            rows = [self.error_row(section.module[name]) for name in section.names if in_table(section.module[name])]
            parts += [part for name in section.names for part in self.entry(name, section.module[name])]
            if rows:
                parts.append("| error | is a | reason | when |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
        return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"

    def summary(self, section: Section) -> Sequence[str]:
        """Return the cells about a module in the table at the top of the page."""
        own = [name for name in section.names if not in_table(section.module[name])]
        names = ", ".join(f"[{name}](#{self.targets[name]})" for name in own)
        more = f", and {len(section.names) - len(own)} others" if len(own) < len(section.names) else ""
        return f"[{section.module.path}](#{anchor_of(section.heading)})", section.title, names + more

    def entry(self, name: str, found: Found) -> Iterator[str]:
        """Yield the paragraphs about one public name."""
        if in_table(found):
            return
        yield f"### {name}\n"
        if found.is_class:
            yield from self.class_entry(found)
        elif found.is_function:
            yield self.signature(found) + "\n"
            yield from self.described(found, name)
        else:
            yield f"{self.constant(found)}\n"
            if meaning := comment_above(found):
                yield self.prose(meaning, name) + "\n"
        if hooks := self.hooks_with.get(found.canonical_path):
            yield "Hooks: " + ", ".join(self.linked(hook, name) for hook in hooks) + "\n"

    def class_entry(self, found: Found) -> Iterator[str]:
        name = found.name
        kind = kind_of(found)
        bases = [self.type(base) for base in found.bases if str(base) in self.targets]
        yield f"*{kind}*{', also a ' + ' and '.join(bases) if bases else ''}\n"
        if kind in ("class", "error") and "__init__" in found.members:
            yield self.signature(found.members["__init__"], name) + "\n"
        yield from self.described(found, name)
        fields = [one for one in public_members(found) if one.is_attribute and "property" not in one.labels]
        if fields:
            yield self.fields(found, fields) + "\n"
        known: dict[str, list[str]] = {}
        for member in public_members(found):
            if seen := re.search(rf"\bsee `(\w+)\.{member.name}`\.$", docstring_of(member)):
                known.setdefault(seen[1], []).append(f"`{member.name}`")
                continue
            if member.is_attribute and "property" in member.labels:
                yield f"- <code>**{member.name}**: {self.type(member.annotation)}</code>\n"
            elif member.is_function and docstring_of(member):
                yield f"- {self.signature(member)}\n"
            else:
                continue
            yield from (indented(part) for part in self.described(member, name))
        for other, methods in known.items():
            yield f"As in {self.linked(other, name)}: {', '.join(methods)}.\n"

    def fields(self, found: Found, fields: Sequence[Found]) -> str:
        """Return a table of the fields of a value, or of the members of an enum."""
        meanings = attributes_of(found) | {one.name: text for one in fields if (text := comment_above(one))}
        if kind_of(found) == "enum":
            if not meanings:
                return "Members: " + ", ".join(f"`{one.name}`" for one in fields) + "."
            return table(
                ("member", "meaning"),
                [(f"`{one.name}`", self.prose(meanings.get(one.name, ""), found.name)) for one in fields],
            )
        types = {one.name: one.annotation for one in found.parameters}
        defaults = {one.name: one.default for one in found.parameters if one.default is not None}
        if is_named_tuple(found):
            defaults = {one.name: one.value for one in fields if one.value is not None}
        elif kind_of(found) != "value":  # the signature shows the defaults
            defaults = {}
        rows = []
        for one in fields:
            default = self.value(defaults[one.name]) if one.name in defaults else ""
            meaning = self.prose(meanings.get(one.name, ""), found.name)
            kind = one.annotation or types.get(one.name)
            annotation = f"<code>{self.type(kind)}</code>" if kind is not None else ""
            rows.append((f"`{one.name}`", annotation, default, meaning))
        keep = [
            0,
            1,
            *(2 for _ in [0] if any(row[2] for row in rows)),
            *(3 for _ in [0] if any(row[3] for row in rows)),
        ]
        head = ("field", "type", "default", "meaning")
        return table([head[column] for column in keep], [[row[column] for column in keep] for row in rows])

    def error_row(self, found: Found) -> str:
        base = self.type(found.bases[0])
        reason = found.members["reason"].value if "reason" in found.members else ""
        meaning = self.prose(" ".join(inspect.cleandoc(docstring_of(found)).split()), found.name)
        code = f"`{str(reason).strip(chr(34) + chr(39))}`" if reason else ""
        return row((f"`{found.name}`", base, code, meaning))

    def signature(self, function: Found, name: str = "") -> str:
        """Return the signature of a function or method, with links. `name` is another name to show."""
        parts: list[str] = []
        keyword_only = False
        for one in function.parameters:
            if one.name in ("self", "cls") and one is next(iter(function.parameters)):
                continue
            stars = {"variadic positional": r"\*", "variadic keyword": r"\*\*"}.get(one.kind.value, "")
            if one.kind.value == "keyword-only" and not keyword_only:
                parts.append(r"\*")
            keyword_only = keyword_only or one.kind.value in ("keyword-only", "variadic positional")
            default = "" if one.default is None or stars else f" = {escaped(str(one.default))}"
            kind = f": {self.type(one.annotation)}" if one.annotation is not None else ""
            parts.append(f"{stars}{one.name}{kind}{default}")
        before = "async " if "async" in function.labels else ""
        returns = f" → {self.type(function.returns)}" if function.returns is not None and not name else ""
        return f"<code>{before}**{name or function.name}**({', '.join(parts)}){returns}</code>"

    def described(self, found: Found, inside: str) -> Iterator[str]:
        """Yield what a docstring says, without its attributes."""
        if found.docstring is None:
            if meaning := comment_above(found):
                yield self.prose(meaning, inside) + "\n"
            return
        for section in found.docstring.parse("google", warnings=False):
            match section.kind.value:
                case "text":
                    yield self.prose(str(section.value), inside) + "\n"
                case "parameters":
                    lines = [
                        f"- `{one.name}`: {self.prose(' '.join(one.description.split()), inside)}"
                        for one in section.value
                    ]
                    yield "Arguments:\n\n" + "\n".join(lines) + "\n"
                case "raises":
                    lines = [f"- {self.raised(one, inside)}" for one in section.value]
                    yield "Raises:\n\n" + "\n".join(lines) + "\n"
                case "admonition" if section.title == "Example":
                    yield f"```python\n{section.value.description}\n```\n"
                case "admonition":
                    yield self.prose(f"{section.title}: {section.value.description}", inside) + "\n"
                case "attributes":
                    pass
                case other:
                    raise ValueError(f"{found.path}: no rule for the section {other!r} of a docstring")

    def raised(self, one: griffe.DocstringRaise, inside: str) -> str:
        names = ", ".join(self.linked(name.strip(), inside) for name in str(one.annotation).strip("()").split(","))
        return f"{names}: {self.prose(' '.join(one.description.split()), inside)}"

    def constant(self, found: Found) -> str:
        return f"<code>{found.name} = {self.type(found.value)}</code>"

    def value(self, default: str | griffe.Expr) -> str:
        text = {"dict()": "{}", "list()": "[]", "tuple()": "()"}.get(str(default), str(default))
        return "optional" if text.startswith("_") else f"`{text}`"

    def type(self, expression: str | griffe.Expr | None) -> str:
        """Return an expression with links, for use between `<code>` and `</code>`."""
        if expression is None:
            return ""
        if isinstance(expression, str):
            return escaped(expression)
        parts: list[str] = []
        for one in expression.iterate(flat=True):
            if not isinstance(one, griffe.ExprName):
                parts.append(escaped(str(one)))
            elif one.name == "ValueType":  # how generated code writes a member of an enum
                parts[-1:] = []
            elif one.canonical_path in self.paths:
                drop_module(parts)
                parts.append(f"[{one.name}](#{self.paths[one.canonical_path]})")
            elif message := re.fullmatch(r"(mxgw(?:\.\w+)*)\.(\w+)_pb2\.\w+", one.canonical_path):
                drop_module(parts)
                proto = PurePosixPath("protos", *message[1].split("."), f"{message[2]}.proto")
                parts.append(f"[{one.name}]({self.relative(proto)})")
            else:
                parts.append(one.name)
        return "".join(parts)

    def prose(self, text: str, inside: str) -> str:
        """Return a text with links from names between backticks, and from the names of pages."""
        if "\n├" in text:  # a tree, which only a fixed font can show
            head, _, tree = text.partition("\n\n")
            tree, _, rest = tree.partition("\n\n")
            return f"{self.prose(head, inside)}\n\n```text\n{tree}\n```\n\n{self.prose(rest, inside)}"
        parts = re.split(r"(`[^`\n]+`)", text)
        for index, part in enumerate(parts):
            if index % 2:
                parts[index] = self.linked(part[1:-1], inside)
            else:
                part = re.sub(r"([<*])", r"\\\1", part)
                parts[index] = re.sub(r"\b(docs/[\w/-]+\.md)(#[\w-]+)?", self._page_link, part)
        return "".join(parts)

    def linked(self, code: str, inside: str) -> str:
        """Return a name as code, with a link when this page or the page of hooks explains it."""
        if code in self.hooks:
            return f"[`{code}`]({self.relative(HOOKS_PAGE)}#{code})"
        name = code.partition(".")[0]
        if re.fullmatch(r"[\w.]+", code) and name != inside and (anchor := self.targets.get(name)):
            return f"[`{code}`](#{anchor})"
        return f"`{code}`"

    def _page_link(self, match: re.Match[str]) -> str:
        return f"[{match[1]}]({self.relative(PurePosixPath(match[1]))}{match[2] or ''})"


def pages() -> dict[PurePosixPath, str]:
    """Return the text of each page of the reference. Key: its path in the repository."""
    loader = griffe.GriffeLoader(search_paths=SEARCH_PATHS, docstring_parser=None, allow_inspection=False)
    loaded = {name: loader.load(name) for name in ("mxgw_core", "mxgw_worker", "mxgw")}
    loader.resolve_aliases(external=False)
    api, testing = loaded["mxgw_core"]["api"], loaded["mxgw_core"]["testing"]
    hooks = {hook.name: types_in(hook) for hook in public_members(api["hookspecs.Hooks"])}
    backends = loaded["mxgw_worker"]["backends"]
    made = (
        Page(
            PurePosixPath("docs/plugins/reference.md"),
            PLUGINS,
            [*api_sections(api), whole(testing), whole(testing["checker"])],
            hooks,
        ),
        Page(
            PurePosixPath("docs/backends/reference.md"),
            BACKENDS,
            [whole(backends), whole(loaded["mxgw_worker"]["testing"]), whole(loaded["mxgw"]["convert"])],
            hooks,
        ),
    )
    return {page.path: page.text() for page in made}


def drop_module(parts: list[str]) -> None:
    """Remove the module before a name, for example "v." """
    if len(parts) > 1 and parts[-1] == ".":
        del parts[-2:]


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("*", r"\*")


def indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.split("\n"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([row(head), "|" + "---|" * len(head), *map(row, rows)])


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
