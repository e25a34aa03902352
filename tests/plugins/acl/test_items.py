"""Patterns, and what a handle stands for at which place of the stream."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import EventKind
from mxgw.v1.session_service_pb2 import ItemState
from mxgw_acl.guard import ItemFilter, ItemGuard, ItemRights
from mxgw_acl.items import ItemMap
from mxgw_acl.keys import Constraints
from mxgw_acl.patterns import ItemPatterns, reference_of
from mxgw_core.api import StandingAnswer, StandingFilter

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
    assert reference_of(c.ItemReference(item_definition=definition, item_context=context)) == meaning


# handles


class Session:
    """Commands and answers of one session, as they pass."""

    def __init__(self) -> None:
        self.items = ItemMap()

    def adding(self, reference: str, server_handle: int = 1) -> c.MxCommand:
        command = c.MxCommand(add_item=c.AddItemCommand(server_handle=server_handle, item_definition=reference))
        self.items.started(command)
        return command

    def added(self, command: c.MxCommand, handle: int, head: int = 0) -> None:
        self.items.finished(command, c.MxReply(item_handle=handle), head)

    def add(self, reference: str, handle: int, head: int = 0) -> None:
        self.added(self.adding(reference), handle, head)

    def removing(self, handle: int) -> c.MxCommand:
        command = c.MxCommand(remove_item=c.RemoveItemCommand(server_handle=1, item_handle=handle))
        self.items.started(command)
        return command

    def remove(self, handle: int, head: int, hresult: int = 0) -> None:
        self.items.finished(self.removing(handle), c.MxReply(hresult=hresult), head)

    def filter(self, **constraints: ItemPatterns) -> ItemFilter:
        return ItemFilter(self.items, ItemRights(Constraints(**constraints), writes="writable" in constraints))

    def guard(self, **constraints: ItemPatterns) -> ItemGuard:
        return ItemGuard(self.items, ItemRights(Constraints(**constraints), writes="writable" in constraints))


ONLY_TANKS = {"readable": ItemPatterns(("Tank_*",))}


def test_events_pass_by_what_their_handle_stands_for() -> None:
    session = Session()
    session.add("Tank_001.Level", 1)
    session.add("Secret.Level", 2)
    judged = session.filter(**ONLY_TANKS)

    assert judged.keep(1, 1, VALUE, 10) is True
    assert judged.keep(1, 2, VALUE, 11) is False
    assert judged.keep(2, 1, VALUE, 12) is False  # handles are unique within their server handle only
    assert judged.keep(1, 3, VALUE, 13) is False


def test_an_event_waits_while_its_item_may_be_one_that_is_being_added() -> None:
    session = Session()
    command = session.adding("Tank_001.Level")
    judged = session.filter(**ONLY_TANKS)

    assert judged.keep(1, 1, VALUE, 5) is None

    session.added(command, 1)

    assert judged.keep(1, 1, VALUE, 5) is True
    assert judged.keep(1, 2, VALUE, 6) is False


def test_an_add_that_failed_leaves_nobody_waiting() -> None:
    session = Session()
    command = session.adding("Tank_001.Level")
    session.items.finished(command, None, 0)

    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 5) is False


def test_a_handle_that_came_back_shows_each_event_to_whom_it_belongs() -> None:
    session = Session()
    session.add("Secret.Level", 1)
    session.remove(1, head=100)
    session.add("Tank_001.Level", 1)
    judged = session.filter(**ONLY_TANKS)

    assert judged.keep(1, 1, VALUE, 100) is False
    assert judged.keep(1, 1, VALUE, 101) is True

    session.remove(1, head=200)
    session.add("Secret.Level", 1)

    assert judged.keep(1, 1, VALUE, 200) is True
    assert judged.keep(1, 1, VALUE, 201) is False
    assert judged.keep(1, 1, VALUE, 100) is False


def test_where_two_items_may_be_meant_both_must_be_allowed() -> None:
    session = Session()
    session.add("Secret.Level", 1)
    removing = session.removing(1)
    adding = session.adding("Tank_001.Level")  # under way at the same time
    judged = session.filter(**ONLY_TANKS)

    assert judged.keep(1, 1, VALUE, 50) is None

    session.items.finished(removing, c.MxReply(), 100)
    session.added(adding, 1)

    assert judged.keep(1, 1, VALUE, 100) is False
    assert judged.keep(1, 1, VALUE, 101) is True


def test_an_allowed_item_that_is_being_removed_does_not_vouch_for_what_gets_its_handle() -> None:
    session = Session()
    session.add("Tank_001.Level", 1)
    removing, adding = session.removing(1), session.adding("Secret.Level")
    judged = session.filter(**ONLY_TANKS)

    assert judged.keep(1, 1, VALUE, 50) is None

    session.added(adding, 1)

    assert judged.keep(1, 1, VALUE, 50) is False

    session.items.finished(removing, c.MxReply(), 49)

    assert judged.keep(1, 1, VALUE, 50) is False


def test_after_a_removal_of_unknown_outcome_nothing_is_said_of_the_handle() -> None:
    session = Session()
    session.add("Tank_001.Level", 1)
    session.items.finished(session.removing(1), None, 0)

    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 1) is False


def test_a_removal_that_failed_changes_nothing() -> None:
    session = Session()
    session.add("Tank_001.Level", 1)
    session.remove(1, head=5, hresult=-2147024809)

    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 6) is True


def test_unregistering_ends_all_items_of_the_server_handle() -> None:
    session = Session()
    session.add("Tank_001.Level", 1)
    command = c.MxCommand(unregister=c.UnregisterCommand(server_handle=1))
    session.items.started(command)
    session.items.finished(command, c.MxReply(), 10)

    assert session.items.current((1, 1)) is None
    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 10) is True
    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 11) is False


def test_a_handle_remembers_a_bounded_number_of_items() -> None:
    session = Session()
    for number in range(100):
        session.add(f"Tank_{number}.Level", 1)
        session.remove(1, head=number * 10)

    assert len(session.items._items[1, 1]) == 16
    assert session.filter(**ONLY_TANKS).keep(1, 1, VALUE, 5) is False


def test_bulk_subscriptions_are_learnt_by_index_and_failed_ones_are_not() -> None:
    session = Session()
    references = ["Tank_001.Level", "Nonsense", "Tank_002.Level"]
    command = c.MxCommand(
        subscribe_bulk=c.SubscribeBulkCommand(
            server_handle=1, items=[c.ItemReference(item_definition=r) for r in references]
        )
    )
    session.items.started(command)
    results = [c.BulkItemResult(item_handle=h) for h in (7, 0, 8)]
    session.items.finished(command, c.MxReply(bulk=c.BulkResult(items=results)), 0)

    for handle, reference in ((7, "Tank_001.Level"), (8, "Tank_002.Level")):
        item = session.items.current((1, handle))

        assert item is not None
        assert (item.reference, item.until) == (reference, inf)


def test_completions_are_seen_by_whoever_may_write_the_item() -> None:
    session = Session()
    session.add("Tank_001.SP", 1)
    session.add("Secret.SP", 2)
    judged = session.filter(readable=ItemPatterns(("Other",)), writable=ItemPatterns(("Tank_*",)))

    assert judged.keep(1, 1, WRITTEN, 1) is True
    assert judged.keep(1, 1, VALUE, 2) is False
    assert judged.keep(1, 2, WRITTEN, 3) is False


def test_what_the_worker_of_a_session_taken_over_has_is_learnt_and_events_wait_for_it() -> None:
    session = Session()
    judged = session.filter(**ONLY_TANKS)
    session.items.learning()

    assert judged.keep(1, 1, VALUE, 5) is None

    session.add("Secret.Level", 3)
    session.items.learnt(
        ItemState(server_handle=1, item_handle=handle, item_definition=reference)
        for handle, reference in ((1, "Tank_001.Level"), (2, "Secret.Level"), (3, "Tank_001.Level"))
    )

    assert [judged.keep(1, handle, VALUE, 5) for handle in (1, 2, 3, 4)] == [True, False, False, False]


# commands


def test_each_input_of_a_bulk_call_is_judged_at_its_index() -> None:
    session = Session()
    session.add("Tank_001.SP", 1)
    session.add("Tank_001.Level", 2)
    guard = session.guard(readable=ItemPatterns(("Tank_*",)), writable=ItemPatterns(("*.SP",)))
    items = [c.ItemReference(item_definition=r) for r in ("Tank_001.Level", "Secret.Level", "Secret.SP")]

    assert set(guard.denied(c.MxCommand(read_bulk=c.ReadBulkCommand(items=items)))) == {1, 2}
    # What may be written may be subscribed to, so that its completions are seen.
    assert set(guard.denied(c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(items=items)))) == {1}

    writes = [c.BulkWrite(item_handle=h) for h in (1, 2, 3)]

    assert set(guard.denied(c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes)))) == {1, 2}
    assert not guard.denied(c.MxCommand(write=c.WriteCommand(server_handle=1, item_handle=1)))
    assert guard.denied(c.MxCommand(write=c.WriteCommand(server_handle=1, item_handle=2)))
    assert guard.denied(c.MxCommand(write_secured2=c.WriteSecured2Command(server_handle=1, item_handle=3)))


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
    session = Session()
    session.add("Secret.Level", 9)

    assert set(session.guard(**ONLY_TANKS).denied(command)) == {0}


def test_browsing_shows_places_and_permitted_items() -> None:
    guard = Session().guard(**ONLY_TANKS)

    assert guard.shows(c.BrowseNode(name="Area", path="Area"))
    assert guard.shows(c.BrowseNode(name="Level", reference="Tank_001.Level"))
    assert not guard.shows(c.BrowseNode(name="Level", reference="Secret.Level"))


# answers that stand

HANDLES, LAST = (1, 2), 12
REFERENCES = ("Tank_001.Level", "Secret.Level")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(REFERENCES)),
        st.tuples(st.just("remove"), st.sampled_from(HANDLES)),
        st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from(HANDLES), st.booleans()),
        st.tuples(st.just("learning")),
        st.tuples(st.just("learnt"), st.sampled_from(REFERENCES)),
        st.tuples(st.just("pass"), st.integers(1, 4)),
    ),
    max_size=14,
)


def everything_said(judged: ItemFilter) -> list[bool | None]:
    return [judged.keep(1, h, kind, s) for h in HANDLES for kind in (VALUE, WRITTEN) for s in range(1, LAST)]


@given(steps)
def test_what_stands_is_what_is_said_of_each_event_and_the_revision_tells_of_every_change(
    made: list[tuple[Any, ...]],
) -> None:
    session = Session()
    judged = session.filter(readable=ItemPatterns(("Tank_*",)))
    under_way: list[tuple[c.MxCommand, bool]] = []
    head = 0
    revision, said = judged.revision, everything_said(judged)
    for kind, *arguments in made:
        match kind, arguments:
            case "add", [reference]:
                under_way.append((session.adding(reference), True))
            case "remove", [handle]:
                under_way.append((session.removing(handle), False))
            case "answer", [which, handle, is_known] if under_way:
                command, is_add = under_way.pop(which % len(under_way))
                reply = c.MxReply(item_handle=handle) if is_add else c.MxReply()
                session.items.finished(command, reply if is_known else None, head)
            case "learning", _:
                session.items.learning()
            case "learnt", [reference]:
                session.items.learnt([ItemState(server_handle=1, item_handle=1, item_definition=reference)])
            case "pass", [events]:
                head = min(head + events, LAST)
        now = everything_said(judged)

        assert now == said or judged.revision != revision

        revision, said = judged.revision, now
        for handle in HANDLES:
            for event_kind in (VALUE, WRITTEN):
                standing = judged.standing(1, handle, event_kind)
                if standing is not None:
                    for sequence in range(standing.after + 1, LAST + 5):
                        assert judged.keep(1, handle, event_kind, sequence) is standing.keep


def test_of_a_handle_in_use_the_answer_stands_and_of_one_that_came_back_from_there_on() -> None:
    session = Session()
    session.add("Secret.Level", 1)
    judged = session.filter(**ONLY_TANKS)

    assert judged.standing(1, 1, VALUE) == StandingAnswer(False)

    session.remove(1, head=100)

    assert judged.standing(1, 1, VALUE) is None

    session.add("Tank_001.Level", 1)

    assert judged.standing(1, 1, VALUE) == StandingAnswer(True, after=100)
    assert judged.standing(1, 2, VALUE) == StandingAnswer(False)


def test_where_two_items_may_be_meant_the_answer_for_the_newer_stands_behind_the_older_one() -> None:
    session = Session()
    session.add("Secret.Level", 1)
    removing, adding = session.removing(1), session.adding("Tank_001.Level")
    judged = session.filter(**ONLY_TANKS)

    assert judged.standing(1, 1, VALUE) is None

    session.items.finished(removing, c.MxReply(), 100)
    session.added(adding, 1)

    assert judged.standing(1, 1, VALUE) == StandingAnswer(True, after=100)


def test_filters_of_one_key_on_one_session_are_equal_and_no_others() -> None:
    session, other = Session(), Session()
    rights = ItemRights(Constraints(**ONLY_TANKS), writes=False)
    same = ItemRights(Constraints(**ONLY_TANKS), writes=False)
    one = ItemFilter(session.items, rights)

    assert one == ItemFilter(session.items, rights)
    assert hash(one) == hash(ItemFilter(session.items, rights))
    assert one != ItemFilter(other.items, rights)
    assert one != ItemFilter(session.items, same)
    assert isinstance(one, StandingFilter)
