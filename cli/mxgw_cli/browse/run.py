"""`mxgw browse`: prints the address space of a backend as a tree."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.text import Text
from rich.tree import Tree

import mxgw_client
from mxgw_cli.gateway import connected, session_of, walk
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import enum_key, write_json
from mxgw_cli.shell import CliFailure, SilentFailure, console
from mxgw_client import BrowseNode, BrowseNodeKind, ItemMetadata, errors
from mxgw_core.printable import printable

# The most nodes in a printed tree, because nobody reads a longer one. With --json there is no limit.
NODES_SHOWN = 2000
# The most names of an enumeration in a line.
NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class BrowseRequest:
    """The arguments of `mxgw browse`."""

    path: str
    depth: int
    name_contains: str
    backend: str
    session_id: str
    as_json: bool
    metadata: bool = False


@dataclass(slots=True)
class Branch:
    """A node with its children. At the requested depth `children` is empty, even if the node has children."""

    node: BrowseNode
    children: list[Branch]


async def browse_tree(where: GatewayTarget, request: BrowseRequest) -> None:
    """Print the tree, or the nodes as JSON lines.

    Raises:
        CliFailure: the backend cannot be browsed.
        SilentFailure: no node was found.
    """
    async with (
        connected(where) as gateway,
        session_of(gateway, command="browse", backend=request.backend, session_id=request.session_id) as session,
    ):
        try:
            if request.as_json:
                shown = 0
                async for node in walk(session, request.path, request.depth, include_metadata=request.metadata):
                    if not request.name_contains or matches(node, request.name_contains):
                        write_json(node_document(node))
                        shown += 1
            else:
                branches, shown = await _branches(session, request)
                _print_tree(request, branches, shown)
        except errors.CommandFailed as error:
            if error.metadata.get("worker_reason") == "BROWSE_NOT_SUPPORTED":
                raise CliFailure("this backend cannot be browsed", hint="Ask for its tags by name.") from None
            raise
    if not shown:
        raise SilentFailure


def matches(node: BrowseNode, text: str) -> bool:
    """Return whether a node is a tag with `text` in its name. A node that only groups other nodes never matches."""
    return bool(node.reference) and text.casefold() in node.name.casefold()


async def _branches(session: mxgw_client.Session, request: BrowseRequest) -> tuple[list[Branch], int]:
    shown = 0

    async def below(path: str, level: int) -> list[Branch]:
        nonlocal shown
        found = []
        async for node in session.browse(path, include_metadata=request.metadata):
            children = await below(node.path, level + 1) if node.has_children and level < request.depth else []
            if request.name_contains and not children and not matches(node, request.name_contains):
                continue
            shown += 1
            found.append(Branch(node, children))
            if shown >= NODES_SHOWN:
                break
        return found

    return await below(request.path, 1), shown


def _print_tree(request: BrowseRequest, branches: list[Branch], shown: int) -> None:
    out = console()
    if not branches:
        what = f" with {request.name_contains!r} in its name" if request.name_contains else ""
        out.print(f"Nothing{what} at depth {request.depth} below {printable(request.path, 200) or 'the top'}.")
        return
    out.print(browse_renderable(request.path, branches))
    if shown >= NODES_SHOWN:
        out.print(f"Only the first {NODES_SHOWN:,} nodes are shown: name a path, use --filter, or --json.")
    elif request.depth == 1 and any(branch.node.has_children for branch in branches):
        out.print(Text("▸ has more below: --depth, or name a path.", style="dim"))


def browse_renderable(path: str, branches: list[Branch]) -> Tree:
    """Return the tree below `path` in rich's form, to print it on a console."""
    tree = Tree(Text(printable(path, 200) or "(top)", style="bold"), guide_style="dim")
    _add(tree, branches)
    return tree


def _add(tree: Tree, branches: list[Branch]) -> None:
    for branch in branches:
        _add(tree.add(node_line(branch)), branch.children)


def node_line(branch: Branch) -> Text:
    """Return one node as a line: its name, type, access, description, and its reference if that is not the name."""
    node = branch.node
    is_tag = node.kind is BrowseNodeKind.ATTRIBUTE
    line = Text(printable(node.name, 200), style="" if is_tag else "bold", no_wrap=True, overflow="ellipsis")
    if node.has_children and not branch.children:
        line.append(" ▸", style="dim")
    if node.data_type is not None:
        array = "[]" if node.is_array else ""
        line.append(f"  {node.data_type.name.lower()}{array}", style="cyan")
    if is_tag and not node.writeable:
        line.append("  read only", style="dim")
    if node.reference and node.reference != node.name:
        line.append(f"  {printable(node.reference, 1024)}", style="green")
    if node.metadata is not None:
        line.append(metadata_text(node.metadata), style="magenta")
    if node.description and node.description != node.name:
        line.append(f"  {printable(node.description, 200)}", style="dim")
    return line


def metadata_text(metadata: ItemMetadata) -> str:
    """Return what a line shows of an item's metadata, with two spaces before each part; "" when that is nothing."""
    parts = []
    if metadata.range is not None:
        parts.append(f"{metadata.range.low:g} … {metadata.range.high:g}")
    if metadata.engineering_units is not None:
        parts.append(printable(metadata.engineering_units.symbol, 40))
    if metadata.array_dimensions:
        parts.append(" x ".join(str(length or "any") for length in metadata.array_dimensions))
    if metadata.enumeration:
        names = [f"{value}={printable(name, 40)}" for value, name in metadata.enumeration.items()]
        parts.append(", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else ""))
    if metadata.data_type is None and metadata.source_data_type:
        parts.append(printable(metadata.source_data_type, 80))
    return "".join(f"  {part}" for part in parts)


def node_document(node: BrowseNode) -> dict[str, object]:
    """Return one node for JSON."""
    return {
        "name": node.name,
        "path": node.path,
        "reference": node.reference,
        "kind": enum_key(node.kind),
        "data_type": node.data_type.name.lower() if node.data_type is not None else None,
        "is_array": node.is_array,
        "writeable": node.writeable,
        "security_classification": node.security_classification.lower(),
        "has_children": node.has_children,
        "description": node.description,
        **({} if node.metadata is None else {"metadata": metadata_document(node.metadata)}),
    }


def metadata_document(metadata: ItemMetadata) -> dict[str, object]:
    """Return metadata for JSON, without what the source does not say."""
    document = {name: value for name, value in asdict(metadata).items() if value not in (None, "", (), {})}
    if metadata.data_type is not None:
        document["data_type"] = metadata.data_type.name.lower()
    if metadata.security_classification:
        document["security_classification"] = metadata.security_classification.lower()
    return document
