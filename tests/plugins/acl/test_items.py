"""Patterns, and what follows of them for items: events, and the inputs of commands."""

from __future__ import annotations

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import EventKind
from mxgw_acl import audit_records
from mxgw_acl.audit_records import references_of
from mxgw_acl.item_rights import REMEMBERED_BYTES, ItemFilter, ItemGuard, ItemRights
from mxgw_acl.keys import Constraints
from mxgw_acl.patterns import ItemPatterns
from mxgw_core.api import ItemRecord, StandingFilter, full_reference, used_handles

VALUE, WRITTEN = int(EventKind.EVENT_KIND_DATA_CHANGE), int(EventKind.EVENT_KIND_WRITE_COMPLETE)


@pytest.mark.parametrize(
    ("patterns", "reference", "permitted"),
    [
        (ItemPatterns(("Tank_*.Level",)), "Tank_001.Level", True),
        (ItemPatterns(("tank_*.LEVEL",)), " Tank_001.Level ", True),
        (ItemPatterns(("Tank_*.Level",)), "Tank_001.Level2", False),
        (ItemPatterns(("Tank_00?.Level",)), "Tank_0010.Level", False),
        (ItemPatterns(("Arr[1]",)), "Arr[1]", True),
        (ItemPatterns(("Arr[1]",)), "Arr1", False),
        (ItemPatterns(("Tank.Level",)), "TankXLevel", False),
        (ItemPatterns(subtrees=("Tank_001",)), "tank_001", True),
        (ItemPatterns(subtrees=("Tank_001",)), "Tank_001.Level.InAlarm", True),
        (ItemPatterns(subtrees=("Tank_001",)), "Tank_001[]", True),
        (ItemPatterns(subtrees=("Plant/Tank_001",)), "Plant/Tank_001/Level", True),
        (ItemPatterns(subtrees=("Tank_001",)), "Tank_0011.Level", False),
        (ItemPatterns(subtrees=("Tank_001",)), "Other.Tank_001.Level", False),
        (ItemPatterns(("*",)), "anything at all", True),
        (ItemPatterns(), "anything at all", False),
    ],
)
def test_a_pattern_permits_what_it_names(patterns: ItemPatterns, reference: str, permitted: bool) -> None:
    assert patterns.permit(reference) is permitted


@pytest.mark.parametrize(
    ("definition", "context", "meaning"),
    [
        ("Tank_001.Level", "", "Tank_001.Level"),
        ("Level", "Tank_001", "Tank_001.Level"),
        (" Levels[2] ", " Tank_001 ", "Tank_001.Levels[2]"),
        # These may mean something outside of their context.
        ("Tank_002.Level", "Tank_001", None),
        ("me.Level", "Tank_001", None),
        ("MyContainer.Level", "Tank_001", None),
        (".Level", "Tank_001", None),
        ("/Objects/Secret", "Plant", None),
        ("ns=2;s=Secret", "Plant", None),
        ("", "Tank_001", None),
    ],
)
def test_a_relative_reference_is_taken_for_what_it_can_only_mean(
    definition: str, context: str, meaning: str | None
) -> None:
    assert full_reference(c.ItemReference(item_definition=definition, item_context=context)) == meaning


# items


def item(reference: str, handle: int = 1, *, context: str = "") -> ItemRecord:
    return ItemRecord(handle + 100, 1, handle, reference, context)


def rights(**constraints: ItemPatterns) -> ItemRights:
    return ItemRights(Constraints(**constraints), writes="writable" in constraints)


class Session:
    """Some items, and a guard that is asked as the gateway asks it."""

    def __init__(self, *items: ItemRecord, **constraints: ItemPatterns) -> None:
        self._items = {(item.server_handle, item.item_handle): item for item in items}
        self.guard = ItemGuard(rights(**constraints))

    def denied(self, command: c.MxCommand) -> set[int]:
        items = [self._items.get(handle) for handle in used_handles(command)]
        return set(self.guard.denied(command, items))

    def named(self, command: c.MxCommand) -> list[str]:
        count, reference = references_of(
            command, [self._items.get(handle) for handle in used_handles(command)], are_checked=True
        )
        return [reference(index) for index in range(count)]


ONLY_TANKS = {"readable": ItemPatterns(("Tank_*",))}


def test_events_pass_by_the_reference_of_their_item() -> None:
    judged = ItemFilter(rights(**ONLY_TANKS))

    assert judged.keep(item("Tank_001.Level"), VALUE)
    assert judged.keep(item("Level", context="Tank_001"), VALUE)
    assert not judged.keep(item("Secret.Level"), VALUE)
    assert not judged.keep(item("me.Level", context="Tank_001"), VALUE)  # may be something else


def test_completions_are_seen_by_whoever_may_write_the_item() -> None:
    judged = ItemFilter(rights(readable=ItemPatterns(("Other",)), writable=ItemPatterns(("Tank_*",))))

    assert judged.keep(item("Tank_001.SP"), WRITTEN)
    assert not judged.keep(item("Tank_001.SP"), VALUE)
    assert not judged.keep(item("Secret.SP"), WRITTEN)


def test_filters_of_one_key_are_equal_and_no_others() -> None:
    of_one, of_other = rights(**ONLY_TANKS), rights(**ONLY_TANKS)

    assert ItemFilter(of_one) == ItemFilter(of_one)
    assert hash(ItemFilter(of_one)) == hash(ItemFilter(of_one))
    assert ItemFilter(of_one) != ItemFilter(of_other)
    assert isinstance(ItemFilter(of_one), StandingFilter)


def test_what_is_remembered_of_references_is_bounded_in_bytes_and_stays_right() -> None:
    judged, most_bytes = rights(**ONLY_TANKS), 0
    for number in range(2_000):
        name = f"{number}" + "\N{GRINNING FACE}" * 1_000

        assert judged.may_read(f"Tank_{name}")
        assert not judged.may_read(name)
        most_bytes = max(most_bytes, judged.may_read.size_bytes)

    assert REMEMBERED_BYTES // 2 < most_bytes <= REMEMBERED_BYTES


# commands


def test_each_input_of_a_bulk_call_is_judged_at_its_index() -> None:
    session = Session(
        item("Tank_001.SP", 1),
        item("Tank_001.Level", 2),
        readable=ItemPatterns(("Tank_*",)),
        writable=ItemPatterns(("*.SP",)),
    )
    items = [c.ItemReference(item_definition=r) for r in ("Tank_001.Level", "Secret.Level", "Secret.SP")]

    assert session.denied(c.MxCommand(read_bulk=c.ReadBulkCommand(items=items))) == {1, 2}
    # What may be written may be subscribed to, so that its completions are seen.
    assert session.denied(c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(items=items))) == {1}

    writes = [c.BulkWrite(item_handle=h) for h in (1, 2, 3)]

    assert session.denied(c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes))) == {1, 2}
    assert not session.denied(c.MxCommand(write=c.WriteCommand(server_handle=1, item_handle=1)))
    assert session.denied(c.MxCommand(write=c.WriteCommand(server_handle=1, item_handle=2)))
    assert session.denied(c.MxCommand(write_secured2=c.WriteSecured2Command(server_handle=1, item_handle=3)))


@pytest.mark.parametrize(
    "command",
    [
        c.MxCommand(advise=c.AdviseCommand(server_handle=1, item_handle=9)),
        c.MxCommand(remove_item=c.RemoveItemCommand(server_handle=1, item_handle=9)),
        c.MxCommand(suspend=c.SuspendCommand(server_handle=1, item_handle=9)),
        c.MxCommand(unsubscribe_bulk=c.UnsubscribeBulkCommand(server_handle=1, item_handles=[9])),
        c.MxCommand(add_item2=c.AddItem2Command(item_definition="Secret.Level", item_context="Tank_001")),
        c.MxCommand(add_buffered_item=c.AddBufferedItemCommand(item_definition="Secret.Level")),
    ],
)
def test_what_belongs_to_others_cannot_be_used_by_its_handle(command: c.MxCommand) -> None:
    session = Session(item("Secret.Level", 9), **ONLY_TANKS)

    assert session.denied(command) == {0}


def test_browsing_shows_places_and_permitted_items() -> None:
    guard = Session(**ONLY_TANKS).guard

    assert guard.shows(c.BrowseNode(name="Area", path="Area"))
    assert guard.shows(c.BrowseNode(name="Level", reference="Tank_001.Level"))
    assert not guard.shows(c.BrowseNode(name="Level", reference="Secret.Level"))


def test_what_a_command_is_about_is_told_by_reference_and_by_handle_where_there_is_no_item() -> None:
    session = Session(item("Secret.SP", 1), item("Tank_001.SP", 2), **ONLY_TANKS)
    writes = [c.BulkWrite(item_handle=h) for h in (1, 2, 3)]
    write = c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes))
    read = c.MxCommand(read_bulk=c.ReadBulkCommand(items=[c.ItemReference(item_definition="Other.PV")]))

    assert session.named(write) == ["Secret.SP", "Tank_001.SP", "handle 3"]
    assert session.named(read) == ["Other.PV"]


def test_of_the_largest_call_only_the_references_that_a_record_has_room_for_are_put_together() -> None:
    asked: list[int] = []

    def reference(index: int) -> str:
        asked.append(index)
        return f"Tank_{index:05d}.Level"

    *named, rest = audit_records._listed(range(20_000), reference).split(", ")

    assert len(asked) == len(named) + 1
    assert rest == f"and {20_000 - len(named)} more"
    assert 100 < len(named) < 1000
