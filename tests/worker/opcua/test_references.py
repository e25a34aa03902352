"""References: node ids and browse paths, and that browse names survive being written into a path."""

from __future__ import annotations

import uuid

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from mxgw_worker.backends.opcua.references import (
    OBJECTS,
    ROOT,
    BadReference,
    Segment,
    UnknownNamespace,
    durable,
    escape,
    local_node_id,
    parse,
)

NAMESPACES = ["http://opcfoundation.org/UA/", "urn:server", "http://example.org/plant"]


@pytest.mark.parametrize(
    ("text", "node_id"),
    [
        ("ns=2;s=Tag", ua.NodeId("Tag", 2)),
        ("i=2258", ua.NodeId(2258, 0)),
        ("ns=2;s=a;b=c", ua.NodeId("a;b=c", 2)),
        ("nsu=http://example.org/plant;s=Tag", ua.NodeId("Tag", 2)),
        ("nsu=http://example.org/plant;i=7", ua.NodeId(7, 2)),
        ("nsu=http%3A%2F%2Fexample.org/plant;i=7", ua.NodeId(7, 2)),
        ("svr=0;ns=65535;i=4294967295", ua.NodeId(4294967295, 65535)),
        ("ns=2;g=72962B91-FA75-4ae6-8D28-B404DC7DAF63", ua.NodeId(uuid.UUID("72962b91fa754ae68d28b404dc7daf63"), 2)),
        # Not hexadecimal, as the library reads it: `0x` is as good base64 as any other.
        ("ns=2;b=0xAB", ua.NodeId(b"\xd3\x10\x01", 2)),
        ("ns=2;s= a ", ua.NodeId(" a ", 2)),
        ("ns=2;i=7\n", ua.NodeId(7, 2)),
    ],
)
def test_node_ids_are_taken_as_such(text: str, node_id: ua.NodeId) -> None:
    reference = parse(text, "/ignored", NAMESPACES)

    assert (reference.start, reference.path) == (node_id, ())


def test_paths_start_at_the_root_at_the_context_or_at_the_objects_folder() -> None:
    speed = (Segment(2, "Line1"), Segment(None, "Speed"))

    assert parse("/2:Line1/Speed", "", NAMESPACES).start == ROOT
    assert parse("/2:Line1/Speed", "", NAMESPACES).path == speed
    assert parse("2:Line1/Speed", "", NAMESPACES).start == OBJECTS
    below = parse("Speed", "ns=2;s=Line1", NAMESPACES)
    assert (below.start, below.path) == (ua.NodeId("Line1", 2), speed[1:])
    assert parse("Speed", "/2:Line1", NAMESPACES).path == speed


@pytest.mark.parametrize(
    "text", ["//a", "/a//b", "/a/", "2:", "/a&", "ns=2;i=x", "g=zz", "nsu=urn:unknown;s=T", "/" + "a/" * 64 + "a"]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadReference):
        parse(text, "", NAMESPACES)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 65_535), st.text(min_size=1)), min_size=1, max_size=5))
def test_an_escaped_path_reads_back_as_it_was(names: list[tuple[int, str]]) -> None:
    text = "".join(f"/{index}:{escape(name)}" for index, name in names)

    assert [(s.index, s.name) for s in parse(text, "", NAMESPACES).path] == names


@pytest.mark.parametrize("text", ["nsu=urn:unknown;s=T", "nsu=urn%3Aunknown;s=T"])
def test_a_namespace_that_is_not_there_is_told_apart_from_nonsense(text: str) -> None:
    with pytest.raises(UnknownNamespace):
        parse(text, "", NAMESPACES)
    with pytest.raises(UnknownNamespace):
        parse("X", text, NAMESPACES)


def test_a_hundred_thousand_characters_are_refused_and_not_computed_with() -> None:
    for text in ("ns=" + "9" * 100_000 + ";i=1", "i=" + "9" * 100_000, "/" + "9" * 100_000 + ":a", "&" * 99_999):
        with pytest.raises(BadReference):
            parse(text, "", NAMESPACES)


@given(st.text(min_size=1).filter(lambda uri: uri.isprintable()), st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_durable_node_id_finds_its_node_among_other_namespaces(uri: str, identifier: str) -> None:
    node_id = ua.NodeId(identifier, 1)
    text = durable(node_id, ["http://opcfoundation.org/UA/", uri])

    assert parse(text, "", ["urn:other", "urn:another", uri]).start == ua.NodeId(identifier, 2)


def test_a_durable_node_id_without_a_known_namespace_keeps_its_index() -> None:
    assert durable(ua.NodeId(5, 0), NAMESPACES) == "i=5"
    assert durable(ua.NodeId("a", 9), NAMESPACES) == "ns=9;s=a"


def test_node_ids_of_other_servers_and_unknown_namespaces_are_no_node_ids_here() -> None:
    def expanded(**parts: object) -> ua.ExpandedNodeId:
        return ua.ExpandedNodeId(7, 2, **parts)

    assert local_node_id(expanded(), NAMESPACES) == ua.NodeId(7, 2)
    assert local_node_id(expanded(NamespaceUri="urn:server"), NAMESPACES) == ua.NodeId(7, 1)
    assert local_node_id(expanded(NamespaceUri="urn:unknown"), NAMESPACES) is None
    assert local_node_id(expanded(ServerIndex=1), NAMESPACES) is None
