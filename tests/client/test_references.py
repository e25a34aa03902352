"""A handle that is given out again never lends its new name to events of the old item."""

from __future__ import annotations

import pytest
from client.scripted import Refusal, Scripted, batch, change, opened, read_until
from grpc import StatusCode

from mxgw.v1 import commands_pb2
from mxgw_client import DataChange, Session, errors
from mxgw_client.references import ENDED_NAMES_KEPT, ReferenceMap


def test_a_name_is_true_between_its_item_and_the_next() -> None:
    names = ReferenceMap()
    names.add(1, 7, "Old")
    names.remove(1, 7)

    assert names.has_unsettled
    assert names.lookup(1, 7, 40) == "Old"

    names.settle(50)
    names.add(1, 7, "New")

    assert not names.has_unsettled
    assert [names.lookup(1, 7, sequence) for sequence in (1, 50, 51, 99)] == ["Old", "Old", "New", "New"]
    assert names.lookup(1, 8, 1) == ""
    assert names.handle_of("New") == (1, 7)
    assert names.handle_of("Old") is None


def test_an_ended_name_is_not_given_to_what_came_later() -> None:
    names = ReferenceMap()
    names.add(1, 7, "Old")
    names.remove(1, 7)
    names.settle(50)

    assert names.lookup(1, 7, 51) == ""


def test_unregister_ends_all_names_under_it() -> None:
    names = ReferenceMap()
    names.add(1, 1, "A")
    names.add(2, 1, "B")
    names.remove_server(1)
    names.settle(5)

    assert names.lookup(1, 1, 6) == ""
    assert names.lookup(2, 1, 6) == "B"


def test_names_of_removed_items_do_not_pile_up() -> None:
    names = ReferenceMap()
    for handle in range(ENDED_NAMES_KEPT + 500):
        names.add(1, handle, "A")
        names.remove(1, handle)
        names.settle(handle)

    assert len(names) == ENDED_NAMES_KEPT


@pytest.mark.asyncio
async def test_a_bulk_call_asks_where_the_removed_items_end_before_it_adds(
    scripted: Scripted, session: Session
) -> None:
    result = commands_pb2.BulkItemResult(item_handle=7)
    scripted.script.replies["subscribe_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[result])
    )
    first = await session.subscribe("Old.Name")
    await first.close()
    scripted.script.head_sequence = 2
    await session.subscribe("New.Name")
    await session.subscribe("New.Name")
    order = [name for name, _ in scripted.script.calls if name not in ("GetGatewayInfo", "OpenSession", "register")]

    assert order == ["subscribe_bulk", "unsubscribe_bulk", "GetSessionState", "subscribe_bulk", "subscribe_bulk"]


@pytest.mark.asyncio
async def test_events_on_their_way_keep_the_name_of_their_item(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["add_item"] = lambda command: commands_pb2.MxReply(item_handle=7)
    first = await session.add_item("Old.Name")
    await session.remove_item(first)
    scripted.script.head_sequence = 2
    await session.add_item("New.Name")

    async def stream(request, context):
        yield opened()
        yield batch(*(change(sequence, item=7) for sequence in (1, 2, 3)))
        raise Refusal(StatusCode.ABORTED, "SESSION_CLOSED")

    scripted.script.stream = stream
    names, _ = await read_until(
        errors.SessionClosed, session.events(), lambda item: item.reference if isinstance(item, DataChange) else None
    )

    assert names[1:] == ["Old.Name", "Old.Name", "New.Name"]
    assert len(scripted.script.called("GetSessionState")) == 1
