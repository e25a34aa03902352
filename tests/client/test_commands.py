"""The 18 MXAccess methods and the bulk calls: what they send, return and raise."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from client.scripted import Scripted, change
from google.protobuf.duration_pb2 import Duration

from mxgw import convert
from mxgw.v1 import commands_pb2, values_pb2
from mxgw_client import (
    BulkWrite,
    DataType,
    Item,
    ItemOptions,
    MxAccessError,
    Quality,
    Session,
    ValueRange,
    WriteFailed,
    errors,
)

pytestmark = pytest.mark.asyncio

E_INVALIDARG = -2147024809
MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def sent(scripted: Scripted, name: str) -> object:
    """Return the body of the last command of this name."""
    return getattr(scripted.script.called(name)[-1].command, name)


async def test_a_session_registers_once_on_first_use(scripted: Scripted, session: Session) -> None:
    assert session.server_handle is None

    async with asyncio.TaskGroup() as tasks:
        for n in range(10):
            tasks.create_task(session.add_item(f"A{n}"))

    assert session.server_handle == 1
    assert [request.command.register.client_name for request in scripted.script.called("register")] == ["test"]


async def test_more_registrations_are_there_for_who_wants_them(scripted: Scripted, session: Session) -> None:
    handles = iter([1, 2])
    scripted.script.replies["register"] = lambda command: commands_pb2.MxReply(server_handle=next(handles))
    first, second = await session.register(), await session.register("other")
    item = await session.add_item("A.B", server_handle=second)
    await session.advise(item)
    await session.unregister(second)

    assert (first, second, session.server_handle) == (1, 2, 1)
    assert sent(scripted, "advise").server_handle == 2
    assert sent(scripted, "unregister").server_handle == 2

    await session.unregister()

    assert session.server_handle is None


async def test_every_method_sends_its_arguments(scripted: Scripted, session: Session) -> None:
    item = await session.add_item("A.B")
    second = await session.add_item2("B", "A")
    buffered = await session.add_buffered_item("A.C", "ctx")
    await session.advise(item)
    await session.advise_supervisory(second.handle)
    await session.un_advise(item)
    await session.remove_item(item)
    await session.set_buffered_update_interval(250)

    assert item == Item(1, "A.B", 1, serial=1)
    assert second == Item(2, "B", 1, "A", 2)
    assert sent(scripted, "add_item2").item_context == "A"
    assert sent(scripted, "add_buffered_item").item_context == "ctx"
    assert buffered.handle == 3
    assert sent(scripted, "advise").item_handle == 1
    assert sent(scripted, "advise_supervisory").item_handle == 2
    assert sent(scripted, "un_advise").item_handle == 1
    assert sent(scripted, "remove_item").item_handle == 1
    assert sent(scripted, "set_buffered_update_interval").interval_ms == 250
    assert (await session.suspend(second)).ok
    assert (await session.activate(second)).ok
    assert await session.authenticate_user("anna", "s3cret") == 42
    assert sent(scripted, "authenticate_user").password == "s3cret"
    assert await session.archestra_user_to_id("guid") == 42


async def test_writes_send_value_user_and_time(scripted: Scripted, session: Session) -> None:
    item = await session.add_item("A.B")
    result = await session.write(item, 1.5, user_id=3, data_type=DataType.FLOAT)
    write = sent(scripted, "write")

    assert (result.write_id, result.completed, result.item_handle) == (7, False, item.handle)
    assert (write.value.float, write.user_id, write.wait_for_completion) == (1.5, 3, False)
    assert write.value.data_type == values_pb2.MX_DATA_TYPE_FLOAT

    done = await session.write2(item, "x", MOMENT, wait=True)

    assert done.completed
    assert convert.timestamp_to_datetime(sent(scripted, "write2").time) == MOMENT

    await session.write_secured(item, True, user_id=4, verifier_id=5)
    secured = sent(scripted, "write_secured")

    assert (secured.current_user_id, secured.verifier_user_id, secured.value.boolean) == (4, 5, True)

    await session.write_secured2(item, 9, MOMENT, user_id=4)

    assert sent(scripted, "write_secured2").value.integer == 9
    assert convert.timestamp_to_datetime(sent(scripted, "write_secured2").time) == MOMENT


async def test_an_hresult_raises_with_everything_that_came(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["advise"] = lambda command: commands_pb2.MxReply(
        hresult=E_INVALIDARG,
        message="value does not fall within the expected range",
        statuses=[convert.status(0, 5, 0, 6)],
    )
    with pytest.raises(MxAccessError) as raised:
        await session.advise(3)
    error = raised.value

    assert (error.hresult, error.method) == (E_INVALIDARG, "advise")
    assert error.statuses[0].detail_name == "INVALID_REFERENCE"
    assert "advise failed: value does not fall within the expected range (HRESULT 0x80070057)" in str(error)


async def test_a_write_that_is_waited_for_raises_when_it_failed(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["write"] = lambda command: commands_pb2.MxReply(
        write=commands_pb2.WriteResult(write_id=7, completed=True), statuses=[convert.status(0, 6, 4, 1012)]
    )
    with pytest.raises(WriteFailed, match=r"SECURED_WRITE 1012.*needs write_secured with a user"):
        await session.write(1, 5, wait=True)


async def test_a_missing_completion_counts_as_a_failed_write(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["write"] = lambda command: commands_pb2.MxReply(
        write=commands_pb2.WriteResult(write_id=7, completed=False), reason="WRITE_COMPLETION_MISSING"
    )
    with pytest.raises(WriteFailed) as raised:
        await session.write(1, 5, wait=True)

    assert raised.value.reason == "WRITE_COMPLETION_MISSING"

    scripted.script.replies["write"] = lambda command: commands_pb2.MxReply(write=commands_pb2.WriteResult(write_id=7))
    with pytest.raises(WriteFailed, match="read the item back"):
        await session.write(1, 5, wait=True)


async def test_a_login_that_answers_zero_raises(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["authenticate_user"] = lambda command: commands_pb2.MxReply(user_id=0)
    with pytest.raises(errors.LoginFailed) as raised:
        await session.authenticate_user("anna", "s3cret")

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("name", ["register", "add_item", "write", "suspend", "archestra_user_to_id"])
async def test_a_reply_without_its_result_is_refused(scripted: Scripted, session: Session, name: str) -> None:
    await session.register()
    scripted.script.replies[name] = lambda command: commands_pb2.MxReply()
    arguments = {"register": ("x",), "add_item": ("A",), "write": (1, 2)}.get(
        name, (1,) if name == "suspend" else ("g",)
    )
    with pytest.raises(errors.ProtocolViolation):
        await getattr(session, name)(*arguments)


async def test_a_value_that_no_type_can_hold_is_refused_here(session: Session) -> None:
    with pytest.raises(OverflowError):
        await session.write(1, 2**40, data_type=DataType.INTEGER)


async def test_bulk_results_come_per_item_in_input_order(scripted: Scripted, session: Session) -> None:
    result = commands_pb2.BulkItemResult
    scripted.script.replies["subscribe_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(
            items=[result(item_handle=5), result(hresult=E_INVALIDARG, message="no"), result(item_handle=6)]
        )
    )
    first, second, third = await session.subscribe_bulk(["A", "B", ("C", "Obj")], supervisory=True)
    command = sent(scripted, "subscribe_bulk")

    assert first.ok
    assert first.item == Item(5, "A", 1)
    assert not second.ok
    assert second.item is None
    assert third.item == Item(6, "C", 1, "Obj")
    assert command.supervisory
    assert [entry.item_context for entry in command.items] == ["", "", "Obj"]
    with pytest.raises(MxAccessError, match="B failed: no"):
        second.raise_if_failed()


async def test_bulk_writes_and_reads(scripted: Scripted, session: Session) -> None:
    result, bulk = commands_pb2.BulkItemResult, commands_pb2.BulkResult
    scripted.script.replies["write_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=bulk(items=[result(item_handle=5, write=commands_pb2.WriteResult(write_id=1, completed=True))] * 2)
    )
    item = Item(5, "A.B", 1)
    outcomes = await session.write_bulk([BulkWrite(item, 1.5, MOMENT, user_id=2), BulkWrite(6, True)], wait=True)
    writes = sent(scripted, "write_bulk").writes

    assert [outcome.reference for outcome in outcomes] == ["A.B", ""]
    assert all(outcome.ok and outcome.completed for outcome in outcomes)
    assert (writes[0].value.double, writes[0].user_id, writes[0].HasField("time")) == (1.5, 2, True)
    assert not writes[1].HasField("time")

    scripted.script.replies["read_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=bulk(
            items=[
                result(item_handle=5, value=change(1, 7.5).data_change, was_cached=True),
                result(reason="READ_TIMED_OUT", message="no value within 1 s"),
            ]
        )
    )
    good, bad = await session.read_bulk(["A.B", "A.C"], wait_s=1)

    assert (good.value, good.quality, good.was_cached, good.reference) == (7.5, Quality.GOOD, True, "A.B")
    assert good.is_good
    assert not bad.ok
    assert not bad.is_good
    assert bad.value is None
    assert sent(scripted, "read_bulk").timeout.seconds == 1


async def test_a_mapping_is_written_in_its_order(scripted: Scripted, session: Session) -> None:
    result = commands_pb2.BulkItemResult
    scripted.script.replies["write_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[result(item_handle=w.item_handle) for w in command.write_bulk.writes])
    )
    outcomes = await session.write_bulk({Item(5, "A", 1): 1, Item(4, "B", 1): 2})

    assert [(o.reference, o.item_handle) for o in outcomes] == [("A", 5), ("B", 4)]


async def test_items_of_two_registrations_do_not_go_into_one_bulk_call(session: Session) -> None:
    with pytest.raises(ValueError, match="2 registrations"):
        await session.unsubscribe_bulk([Item(1, "A", 1), Item(1, "B", 2)])


async def test_a_bulk_reply_of_another_length_is_refused(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["subscribe_bulk"] = lambda command: commands_pb2.MxReply()
    with pytest.raises(errors.ProtocolViolation, match="2 inputs, but 0 results"):
        await session.subscribe_bulk(["A", "B"])


async def test_a_single_read_raises_what_failed_and_returns_what_is_bad(scripted: Scripted, session: Session) -> None:
    result = commands_pb2.BulkItemResult(reason="READ_TIMED_OUT", message="no value within 10 s")
    scripted.script.replies["read_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[result])
    )
    with pytest.raises(MxAccessError, match="no value within 10 s") as raised:
        await session.read("A.B")

    assert raised.value.reason == "READ_TIMED_OUT"

    result = commands_pb2.BulkItemResult(value=change(1, 0.0, ok=False).data_change)
    reading = await session.read("A.B")

    assert not reading.ok


async def test_a_subscription_looks_up_by_reference_and_takes_everything_back(
    scripted: Scripted, session: Session
) -> None:
    async with await session.subscribe("A", "B") as subscription:
        assert len(subscription) == 2
        assert subscription["B"].handle == 2
        assert [item.reference for item in subscription] == ["A", "B"]
        with pytest.raises(KeyError):
            subscription["C"]

    assert list(sent(scripted, "unsubscribe_bulk").item_handles) == [1, 2]

    await subscription.close()

    assert len(scripted.script.called("unsubscribe_bulk")) == 1


async def test_a_subscription_is_all_or_nothing(scripted: Scripted, session: Session) -> None:
    result = commands_pb2.BulkItemResult
    scripted.script.replies["subscribe_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[result(item_handle=5), result(hresult=E_INVALIDARG, message="denied")])
    )
    with pytest.raises(errors.SubscribeFailed, match="B: denied") as raised:
        await session.subscribe("A", "B")

    assert raised.value.failed == {"B": "denied"}
    assert list(sent(scripted, "unsubscribe_bulk").item_handles) == [5]


async def test_write_once_waits_for_the_type_and_the_completion(scripted: Scripted, session: Session) -> None:
    scripted.script.replies["read_bulk"] = lambda command: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[commands_pb2.BulkItemResult(value=change(1).data_change)])
    )
    await session.write_once("A.B", 5.0, user_id=2)
    order = [name for name, _ in scripted.script.calls if name not in ("GetGatewayInfo", "OpenSession", "register")]

    assert order == ["subscribe_bulk", "read_bulk", "write", "unsubscribe_bulk"]
    assert sent(scripted, "subscribe_bulk").supervisory
    assert sent(scripted, "write").wait_for_completion


async def test_browse_goes_through_the_pages_as_they_are_taken(scripted: Scripted, session: Session) -> None:
    node = commands_pb2.BrowseNode
    scripted.script.nodes = [
        [node(name="Tank01", path="/Tank01", kind=commands_pb2.BROWSE_NODE_KIND_OBJECT, has_children=True)],
        [
            node(
                name="Level",
                reference="Tank01.Level",
                data_type=values_pb2.MX_DATA_TYPE_FLOAT,
                security_classification=values_pb2.MX_SECURITY_CLASSIFICATION_OPERATE,
            )
        ],
    ]
    nodes = [node async for node in session.browse("/", name_contains="x")]

    assert [n.name for n in nodes] == ["Tank01", "Level"]
    assert nodes[0].data_type is None
    assert nodes[1].data_type is DataType.FLOAT
    assert nodes[1].security_classification == "OPERATE"
    assert scripted.script.called("Browse")[1].page_token == "1"


async def test_metadata_is_what_the_source_says_and_nothing_else(scripted: Scripted, session: Session) -> None:
    full = commands_pb2.ItemMetadata(
        data_type=values_pb2.MX_DATA_TYPE_DOUBLE,
        source_data_type="Double",
        is_array=False,
        readable=True,
        writeable=False,
        engineering_units=commands_pb2.EngineeringUnits(symbol="\u00b0C", unit_id=4408652),
        range=commands_pb2.ValueRange(low=-10, high=50),
        enumeration=[commands_pb2.EnumerationName(value=1, name="On")],
        minimum_sampling_interval=Duration(nanos=250_000_000),
    )
    results = [
        commands_pb2.BulkItemResult(metadata=full),
        commands_pb2.BulkItemResult(metadata=commands_pb2.ItemMetadata()),
        commands_pb2.BulkItemResult(hresult=-1, message="no item"),
    ]
    scripted.script.replies["get_item_metadata"] = lambda _: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=results)
    )
    told, empty, failed = await session.item_metadata(["A", ("B", "X"), "C"])

    assert [i.item_context for i in sent(scripted, "get_item_metadata").items] == ["", "X", ""]
    assert told.metadata is not None
    assert (told.reference, told.metadata.data_type, told.metadata.is_array) == ("A", DataType.DOUBLE, False)
    assert told.metadata.engineering_units is not None
    assert told.metadata.engineering_units.symbol == "\u00b0C"
    assert (told.metadata.range, told.metadata.instrument_range) == (ValueRange(-10, 50), None)
    assert (told.metadata.enumeration, told.metadata.minimum_sampling_interval_s) == ({1: "On"}, 0.25)
    assert empty.metadata is not None
    assert (empty.metadata.data_type, empty.metadata.readable, empty.metadata.range) == (None, None, None)
    assert (failed.metadata, failed.ok, failed.message) == (None, False, "no item")


async def test_items_are_added_with_options(scripted: Scripted, session: Session) -> None:
    options = ItemOptions(percent_deadband=2.5, sampling_interval_s=0.5)
    await session.add_item("A", options=options)
    await session.add_item2("A", "X", options=ItemOptions(absolute_deadband=0.0))
    await session.add_buffered_item("A", options=options)
    await session.subscribe_bulk(["A", "B"])
    await session.add_item("A")

    assert sent(scripted, "add_item2").options.WhichOneof("deadband") == "absolute_deadband"
    assert sent(scripted, "add_buffered_item").options == commands_pb2.ItemOptions(
        percent_deadband=2.5, sampling_interval=Duration(nanos=500_000_000)
    )
    assert not any(item.HasField("options") for item in sent(scripted, "subscribe_bulk").items)
    assert not sent(scripted, "add_item").HasField("options")
    await session.subscribe("A", "B", options=options)
    assert [item.options.percent_deadband for item in sent(scripted, "subscribe_bulk").items] == [2.5, 2.5]
    with pytest.raises(ValueError, match="not both"):
        ItemOptions(absolute_deadband=1.0, percent_deadband=1.0)
