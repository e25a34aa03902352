"""Parses item references (node ids and browse paths), and resolves many of them to node ids at once.

    ns=2;s=Line1.Speed        nsu=http://example.org/plant;i=1001        i=2258
    /Objects/2:Line1/2:Speed  /Objects/Line1/Speed                       Line1/Speed

A path that starts with `/` starts at the Root folder. Any other path starts at the item context, or at the Objects
folder when there is no context. `2:` is the namespace index of a browse name; a name without an index can be in any
namespace. In a name, `&` makes the next character an ordinary one (`&/`, `&:`, `&&`), as in OPC UA's relative paths.
Spaces belong to names and to string identifiers, because servers have such nodes.

All paths are sent to TranslateBrowsePathsToNodeIds in bulk. In this request a name without a namespace index has index
0, as in OPC UA. A path with such a name that is not found is then searched level by level, and each parent is browsed
once for all items below it.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from asyncua import ua

from .batches import Refused, in_batches
from .browsing import HIERARCHICAL, browse
from .link import Link

ROOT = ua.NodeId(84, 0)
OBJECTS = ua.NodeId(85, 0)

# Node ids as text. Source: OPC 10000-6, 5.1.12. `svu` names a server by its URI.
_NODE_ID = re.compile(
    r"(?:svr=(?P<server>\d+);|svu=(?P<server_uri>[^;]*);)?(?:ns=(?P<index>\d+);|nsu=(?P<uri>[^;]*);)?(?P<kind>[isgb])=",
    re.ASCII,
)
_NUMBER = re.compile(r"\d+", re.ASCII)
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_INDEX = re.compile(r"^(\d+):", re.ASCII)
_PART = re.compile(r"(?:[^/&]|&.)+", re.DOTALL)
_PATH = re.compile(r"(?:[^/&]|&.)+(?:/(?:[^/&]|&.)+)*", re.DOTALL)
MAX_DEPTH = 64
# The largest namespace index and numeric identifier that OPC UA can encode. Source: OPC 10000-6, 5.2.2.9.
_MAX_INDEX, _MAX_NUMBER = 2**16 - 1, 2**32 - 1
# The longest identifier. Source: OPC 10000-3, 8.2.4.
_MAX_IDENTIFIER_CHARACTERS = 4096


class BadReference(ValueError):
    """The text is neither a node id nor a browse path, or it names what no node of this server can have."""


class UnknownNamespace(BadReference):
    """The server does not have the namespace that the reference names. It can get this namespace later."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One browse name. When `index` is None, the name can be in any namespace."""

    index: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A node to start at, and the path from there. An empty path means the node itself."""

    start: ua.NodeId
    path: tuple[Segment, ...] = ()


def parse(definition: str, context: str, namespaces: Sequence[str]) -> Reference:
    """Return what `definition` means below `context`. `namespaces` is the server's list of namespaces.

    Raises:
        BadReference: `definition` or `context` is no valid reference.
    """
    _check_text(definition)
    definition = _trimmed(definition)
    if is_node_id(definition):
        return Reference(parse_node_id(definition, namespaces))
    if definition.startswith("/"):
        return Reference(ROOT, _segments(definition[1:]))
    below = parse(context, "", namespaces) if context.strip() else Reference(OBJECTS)
    return Reference(below.start, below.path + _segments(definition))


def is_node_id(text: str) -> bool:
    """Return True when `text` is read as a node id, and not as a path."""
    return _NODE_ID.match(text) is not None


def is_path(definition: str) -> bool:
    """Return True when `definition` is read as a path, absolute or below its context."""
    return not is_node_id(_trimmed(definition))


def parse_node_id(text: str, namespaces: Sequence[str]) -> ua.NodeId:
    """Return the node id that `text` names. `namespaces` is the server's list of namespaces.

    Raises:
        BadReference: `text` is no node id that OPC UA can encode, or it belongs to another server.
    """
    match = _NODE_ID.match(text)
    if match is None:
        raise BadReference("not a node id")
    _check_text(text)
    if match["server_uri"] is not None or _number(match["server"] or "0", _MAX_NUMBER) != 0:
        raise BadReference("the node id names a node of another server")
    uri = match["uri"]
    index = _number(match["index"] or "0", _MAX_INDEX) if uri is None else _index_of(uri, namespaces)
    identifier = text[match.end() :]
    if len(identifier) > _MAX_IDENTIFIER_CHARACTERS:
        raise BadReference(f"an identifier has more than {_MAX_IDENTIFIER_CHARACTERS} characters")
    match match["kind"]:
        case "i":
            return ua.NodeId(_number(identifier.rstrip(), _MAX_NUMBER), index)
        case "s":
            return ua.NodeId(identifier, index)
        case "g":
            if not _GUID.fullmatch(identifier.rstrip()):
                raise BadReference("the identifier is not a GUID")
            return ua.NodeId(uuid.UUID(identifier.rstrip()), index)
        case _:
            return ua.NodeId(_opaque(identifier.rstrip()), index)


def escape(name: str) -> str:
    """Return a browse name, with its special characters escaped for a path."""
    return re.sub(r"([&/:])", r"&\1", name)


def durable(node_id: ua.NodeId, namespaces: Sequence[str]) -> str:
    """Return a node id as text with the URI of its namespace. It stays valid when the server numbers its namespaces
    differently.
    """
    index = node_id.NamespaceIndex
    plain = str(ua.NodeId(node_id.Identifier, 0, node_id.NodeIdType).to_string())
    if index == 0:
        return plain
    if index >= len(namespaces) or not namespaces[index]:
        return f"ns={index};{plain}"
    uri = namespaces[index].replace("%", "%25").replace(";", "%3B")
    return f"nsu={uri};{plain}"


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadReference("the reference has characters that no text can have") from None


def _trimmed(text: str) -> str:
    """Return the text without spaces in front of a node id or of an absolute path, where they mean nothing."""
    start = text.lstrip()
    return start if not start or start.startswith("/") or is_node_id(start) else text


def _number(digits: str, largest: int) -> int:
    # The number of digits is limited, because Python needs quadratic time for long numbers.
    if not _NUMBER.fullmatch(digits) or len(digits.lstrip("0")) > len(str(largest)) or int(digits) > largest:
        raise BadReference(f"not a number up to {largest}")
    return int(digits)


def _opaque(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise BadReference("the identifier is not in base64") from None


def _index_of(uri: str, namespaces: Sequence[str]) -> int:
    """Return the index of a namespace. In a reference, `;` and `%` of its URI are written as `%3B` and `%25`. Other
    characters can be, and a URI that was not encoded is understood too.
    """
    for candidate in (unquote(uri, errors="surrogateescape"), uri):
        if candidate and candidate in namespaces:
            return namespaces.index(candidate)
    raise UnknownNamespace("the server has no such namespace")


def _segments(text: str) -> tuple[Segment, ...]:
    if not text:
        return ()
    if not _PATH.fullmatch(text):
        raise BadReference("a browse path has an empty name")
    parts = _PART.findall(text)
    if len(parts) > MAX_DEPTH:
        raise BadReference(f"a browse path has more than {MAX_DEPTH} names")
    return tuple(_segment(part) for part in parts)


def _segment(part: str) -> Segment:
    match = _INDEX.match(part)
    name = re.sub(r"&(.)", r"\1", part[match.end() :] if match else part, flags=re.DOTALL)
    if not name:
        raise BadReference("a browse path has an empty name")
    return Segment(_number(match.group(1), _MAX_INDEX) if match else None, name)


_codes = ua.StatusCodes
_NO_MATCH = _codes.BadNoMatch


async def locate(link: Link, wanted: Sequence[tuple[str, str]]) -> list[ua.NodeId | int]:
    """Return the node id of each reference, or the StatusCode that says why there is none. A reference is a definition
    and its context. The server's namespaces are read again when a reference names one that is not known.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    references = [_parsed(definition, context, link.namespaces) for definition, context in wanted]
    if _codes.BadNodeIdUnknown in references:
        await link.read_namespaces()
        references = [
            _parsed(*wanted[place], link.namespaces) if reference == _codes.BadNodeIdUnknown else reference
            for place, reference in enumerate(references)
        ]
    usable = list(dict.fromkeys(r for r in references if isinstance(r, Reference)))
    found = dict(zip(usable, await resolve(link, usable), strict=True))
    return [found[r] if isinstance(r, Reference) else r for r in references]


def _parsed(definition: str, context: str, namespaces: Sequence[str]) -> Reference | int:
    try:
        return parse(definition, context, namespaces)
    except UnknownNamespace:
        return int(_codes.BadNodeIdUnknown)
    except BadReference:
        return int(_codes.BadNodeIdInvalid)


async def resolve(link: Link, references: Sequence[Reference]) -> list[ua.NodeId | int]:
    """Return one result per reference: its node id, or the StatusCode of the failure.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    found: dict[Reference, ua.NodeId | int] = {r: r.start for r in references if not r.path}
    paths = list(dict.fromkeys(r for r in references if r.path))

    async def translate(some: Sequence[Reference]) -> Sequence[Any]:
        answers: Sequence[Any] = await link.session.translate_browsepaths_to_nodeids([_browse_path(r) for r in some])
        return answers

    for reference, answer in zip(paths, await in_batches(link, "translate", paths, translate), strict=True):
        found[reference] = answer.code if isinstance(answer, Refused) else _target(reference, answer, link)
    loose = [r for r in paths if isinstance(found[r], int) and any(s.index is None for s in r.path)]
    if loose:
        found.update(await _walk(link, loose))
    return [found[r] for r in references]


def _browse_path(reference: Reference) -> ua.BrowsePath:
    path = ua.BrowsePath()
    path.StartingNode = reference.start
    for segment in reference.path:
        element = ua.RelativePathElement()
        element.ReferenceTypeId = HIERARCHICAL
        element.IsInverse = False
        element.IncludeSubtypes = True
        element.TargetName = ua.QualifiedName(segment.name, segment.index or 0)
        path.RelativePath.Elements.append(element)
    return path


def _target(reference: Reference, answer: Any, link: Link) -> ua.NodeId | int:
    if not answer.StatusCode.is_good():
        return int(answer.StatusCode.value)
    for target in answer.Targets or ():
        node_id = local_node_id(target.TargetId, link.namespaces)
        # When names of the path are left over, the target is not the node that the path means: the path goes on at
        # another server.
        if node_id is not None and target.RemainingPathIndex not in range(1, len(reference.path)):
            return node_id
    return int(_NO_MATCH)


def local_node_id(node_id: ua.NodeId, namespaces: Sequence[str]) -> ua.NodeId | None:
    """Return an expanded node id as a plain one; None when it is the id of a node of another server, or in a namespace
    that is not known.
    """
    if not isinstance(node_id, ua.ExpandedNodeId):
        return node_id
    if node_id.ServerIndex:
        return None
    index = node_id.NamespaceIndex
    if node_id.NamespaceUri:
        if node_id.NamespaceUri not in namespaces:
            return None
        index = namespaces.index(node_id.NamespaceUri)
    return ua.NodeId(node_id.Identifier, index)


def plain_node_id(node_id: ua.NodeId) -> ua.NodeId:
    """Return an expanded node id as a plain one. An id of a node on the same server has no namespace URI that could be
    lost.
    """
    if isinstance(node_id, ua.ExpandedNodeId):
        return ua.NodeId(node_id.Identifier, node_id.NamespaceIndex, node_id.NodeIdType)
    return node_id


async def _walk(link: Link, references: Iterable[Reference]) -> dict[Reference, ua.NodeId | int]:
    found: dict[Reference, ua.NodeId | int] = {}
    places: dict[Reference, tuple[ua.NodeId, tuple[Segment, ...]]] = {r: (r.start, r.path) for r in references}
    while places:
        parents = list(dict.fromkeys(node for node, _ in places.values()))
        children = dict(zip(parents, await browse(link, parents, 0), strict=True))
        following: dict[Reference, tuple[ua.NodeId, tuple[Segment, ...]]] = {}
        indexes = {parent: _by_name(answer) for parent, answer in children.items() if not isinstance(answer, int)}
        for reference, (node, path) in places.items():
            answer = children[node]
            if isinstance(answer, int):
                found[reference] = answer
                continue
            child = _match(indexes[node].get(path[0].name, ()), path[0], link.namespaces)
            if child is None:
                found[reference] = int(_NO_MATCH)
            elif len(path) == 1:
                found[reference] = child
            else:
                following[reference] = (child, path[1:])
        places = following
    return found


def _by_name(children: Sequence[Any]) -> dict[str, list[Any]]:
    index: dict[str, list[Any]] = {}
    for child in children:
        index.setdefault(child.BrowseName.Name, []).append(child)
    return index


def _match(children: Sequence[Any], segment: Segment, namespaces: Sequence[str]) -> ua.NodeId | None:
    for child in children:
        if segment.index is None or segment.index == child.BrowseName.NamespaceIndex:
            node_id = local_node_id(child.NodeId, namespaces)
            if node_id is not None:
                return node_id
    return None
