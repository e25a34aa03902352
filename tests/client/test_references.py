"""MXAccess reuses handles: events of a removed item never get the reference of the item that has its handle now."""

from __future__ import annotations

import pytest
from client.scripted import Refusal, Scripted, batch, change, opened, read_until
from grpc import StatusCode

from mxgw.v1 import commands_pb2
from mxgw_client import DataChange, Session, errors
from mxgw_client.references import ENDED_NAMES_KEPT, ReferenceMap


def test_a_reused_handle_keeps_the_names_of_both_items_apart() -> None:
    names = ReferenceMap()
    names.add(11, 1, 7, "Old")
    names.remove(11, 1, 7)
    names.add(12, 1, 7, "New")

    assert [names.lookup(serial) for serial in (11, 12, 13)] == ["Old", "New", ""]
    assert names.handle_of("New") == (1, 7)
    assert names.handle_of("Old") is None


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_answers_may_come_in_another_order_than_what_they_tell(order: tuple[int, ...]) -> None:
    names = ReferenceMap()
    steps = [
        lambda: names.add(11, 1, 7, "Old"),
        lambda: names.remove(11, 1, 7),
        lambda: names.add(12, 1, 7, "New"),
    ]
    for index in order:
        steps[index]()

    assert [names.lookup(serial) for serial in (11, 12)] == ["Old", "New"]
    assert names.serial_of(1, 7) == 12


def test_unregister_ends_all_items_under_it() -> None:
    names = ReferenceMap()
    names.add(1, 1, 1, "A")
    names.add(2, 2, 1, "B")
    names.remove_server(1)

    assert (names.handle_of("A"), names.handle_of("B")) == (None, (2, 1))
    assert names.lookup(1) == "A"  # events of it may be on their way


def test_names_of_removed_items_do_not_pile_up() -> None:
    names = ReferenceMap()
    for serial in range(1, ENDED_NAMES_KEPT + 500):
        names.add(serial, 1, 7, "A")
        names.remove(serial, 1, 7)

    assert len(names) == ENDED_NAMES_KEPT


@pytest.mark.asyncio
async def test_events_on_their_way_keep_the_name_of_their_item(scripted: Scripted, session: Session) -> None:
    serials = iter((11, 12))
    scripted.script.replies["add_item"] = lambda command: commands_pb2.MxReply(item_handle=7, item_serial=next(serials))
    first = await session.add_item("Old.Name")
    await session.remove_item(first)
    second = await session.add_item("New.Name")

    assert (first.handle, first.serial, second.handle, second.serial) == (7, 11, 7, 12)

    async def stream(request, context):
        yield opened()
        yield batch(*(change(sequence, item=7, serial=serial) for sequence, serial in ((1, 11), (2, 12), (3, 11))))
        raise Refusal(StatusCode.ABORTED, "SESSION_CLOSED")

    scripted.script.stream = stream
    names, _ = await read_until(
        errors.SessionClosed, session.events(), lambda item: item.reference if isinstance(item, DataChange) else None
    )

    assert names[1:] == ["Old.Name", "New.Name", "Old.Name"]
    assert scripted.script.called("GetSessionState") == []
