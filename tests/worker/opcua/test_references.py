"""References: node ids and browse paths, and that browse names survive being written into a path."""

from __future__ import annotations

import pytest
from asyncua import ua
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mxgw_worker.backends.opcua.references import OBJECTS, ROOT, BadReference, Segment, escape, parse

NAMESPACES = ["http://opcfoundation.org/UA/", "urn:server", "http://example.org/plant"]


@pytest.mark.parametrize(
    ("text", "node_id"),
    [
        ("ns=2;s=Tag", ua.NodeId("Tag", 2)),
        ("i=2258", ua.NodeId(2258, 0)),
        ("ns=2;s=a;b=c", ua.NodeId("a;b=c", 2)),
        ("nsu=http://example.org/plant;s=Tag", ua.NodeId("Tag", 2)),
        ("nsu=http://example.org/plant;i=7", ua.NodeId(7, 2)),
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
    assume(text == text.strip())  # surrounding blanks are no part of a reference

    assert [(s.index, s.name) for s in parse(text, "", NAMESPACES).path] == names
