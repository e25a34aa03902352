"""Options of items, and what the source says about items: optional abilities of a backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from google.protobuf.duration_pb2 import Duration

from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetState
from mxgw_worker.backends import E_FAIL, E_INVALIDARG, E_NOTIMPL, Describable, MxError, Tunable
from mxgw_worker.testing import ScriptedBackend

pytestmark = pytest.mark.asyncio

HALF = c.ItemOptions(absolute_deadband=0.5, sampling_interval=Duration(nanos=250_000_000))


class TunableBackend(ScriptedBackend):
    """A scripted backend that notes the options of its items."""

    async def set_item_options(self, server_handle: int, item_handle: int, options: c.ItemOptions) -> None:
        self.calls.append(("set_item_options", server_handle, item_handle, options))
        if self.failures["set_item_options"]:
            raise self.failures["set_item_options"].pop(0)


class DescribableBackend(ScriptedBackend):
    """A scripted backend that describes items by their own names; those that begin with `No` it does not have."""

    async def describe_items(self, items: Sequence[c.ItemReference]) -> Sequence[c.ItemMetadata | MxError]:
        self.calls.append(("describe_items", len(items)))
        if self.failures["describe_items"]:
            raise self.failures["describe_items"].pop(0)
        return [
            MxError(E_INVALIDARG, "no item")
            if item.item_definition.startswith("No")
            else c.ItemMetadata(description=f"{item.item_context}/{item.item_definition}")
            for item in items
        ]


def adding(server: int, options: c.ItemOptions) -> list[c.MxCommand]:
    return [
        c.MxCommand(add_item=c.AddItemCommand(server_handle=server, item_definition="A", options=options)),
        c.MxCommand(
            add_item2=c.AddItem2Command(server_handle=server, item_definition="A", item_context="X", options=options)
        ),
        c.MxCommand(
            add_buffered_item=c.AddBufferedItemCommand(server_handle=server, item_definition="A", options=options)
        ),
    ]


async def test_every_way_to_add_an_item_hands_its_options_to_the_backend_before_any_advise(inside) -> None:
    async with inside(TunableBackend()) as worker:
        assert isinstance(worker.backend, Tunable)
        h = await worker.register()
        replies = [await worker.mx(command) for command in adding(h, HALF)]
        bulk = c.SubscribeBulkCommand(
            server_handle=h, items=[c.ItemReference(item_definition="B", options=HALF), {"item_definition": "C"}]
        )
        await worker.mx(c.MxCommand(subscribe_bulk=bulk))
        noted = [call for call in worker.backend.calls if call[0] == "set_item_options"]

        assert [reply.hresult for reply in replies] == [0, 0, 0]
        assert noted == [("set_item_options", h, handle, HALF) for handle in (1, 2, 3, 4)]
        names = worker.backend.names()
        assert names[names.index("advise") - 1] == "set_item_options"
        state = await worker.submit(CommandRequest(get_state=GetState()))
        assert [item.HasField("options") for item in state.state.items] == [True, True, True, True, False]
        assert state.state.items[0].options == HALF


async def test_an_item_whose_options_are_refused_is_not_added(inside) -> None:
    async with inside(TunableBackend()) as worker:
        h = await worker.register()
        for command in adding(h, HALF):
            worker.backend.failures["set_item_options"].append(MxError(E_FAIL, "no percent here"))
            reply = await worker.mx(command)

            assert (reply.hresult, reply.message) == (E_FAIL, "no percent here")
            assert not worker.items.items
            assert not worker.backend.items


async def test_a_backend_without_options_refuses_them_in_words_and_adds_nothing(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        for command in adding(h, HALF):
            reply = await worker.mx(command)

            assert (reply.hresult, reply.reason) == (E_NOTIMPL, "ITEM_OPTIONS_NOT_SUPPORTED")
            assert "no deadband" in reply.message
        bulk = c.SubscribeBulkCommand(
            server_handle=h, items=[c.ItemReference(item_definition="A", options=HALF), {"item_definition": "B"}]
        )
        results = (await worker.mx(c.MxCommand(subscribe_bulk=bulk))).bulk.items
        assert [result.hresult for result in results] == [E_NOTIMPL, 0]
        assert [item.reference for item in worker.backend.items.values()] == ["B"]
        # Options in which nothing is set ask for nothing.
        assert (await worker.mx(adding(h, c.ItemOptions())[0])).hresult == 0


@pytest.mark.parametrize(
    "options",
    [
        c.ItemOptions(absolute_deadband=-1),
        c.ItemOptions(absolute_deadband=math.nan),
        c.ItemOptions(absolute_deadband=math.inf),
        c.ItemOptions(percent_deadband=100.5),
        c.ItemOptions(percent_deadband=math.nan),
        c.ItemOptions(sampling_interval=Duration(seconds=-1)),
        c.ItemOptions(sampling_interval=Duration(seconds=3601)),
        c.ItemOptions(sampling_interval=Duration(seconds=1, nanos=-5)),
    ],
)
async def test_numbers_out_of_range_never_reach_the_backend(inside, options: c.ItemOptions) -> None:
    async with inside(TunableBackend()) as worker:
        h = await worker.register()
        for command in adding(h, options):
            assert (await worker.mx(command)).hresult == E_INVALIDARG
        assert worker.backend.names() == ["register"]


async def test_a_read_neither_takes_options_nor_the_last_value_of_an_item_that_has_them(inside) -> None:
    async with inside(TunableBackend()) as worker:
        h = await worker.register()
        bulk = c.SubscribeBulkCommand(server_handle=h, items=[c.ItemReference(item_definition="A", options=HALF)])
        await worker.mx(c.MxCommand(subscribe_bulk=bulk))
        worker.backend.emit(h, 1, 1.0)
        read = c.ReadBulkCommand(
            server_handle=h, items=[c.ItemReference(item_definition="B", options=HALF), {"item_definition": "A"}]
        )
        reply = worker.submit(c.MxCommand(read_bulk=read))
        await worker.backend.reached["advise"].wait()
        while (h, 2) not in worker.items.hidden:
            worker.backend.reached["advise"].clear()
            await worker.backend.reached["advise"].wait()
        worker.backend.emit(h, 2, 1.25)
        refused, fresh = (await reply).mx.bulk.items

        assert refused.hresult == E_INVALIDARG
        assert (fresh.value.value.double, fresh.was_cached) == (1.25, False)


def asking(*names: str) -> c.MxCommand:
    return c.MxCommand(get_item_metadata=c.GetItemMetadataCommand(items=[{"item_definition": n} for n in names]))


async def test_metadata_comes_in_the_order_of_the_references_and_one_failure_is_its_own(inside) -> None:
    async with inside(DescribableBackend()) as worker:
        assert isinstance(worker.backend, Describable)
        command = asking("A", "", "Nowhere", "B", "C")
        command.get_item_metadata.items[3].item_context = "X"
        command.get_item_metadata.items[4].options.CopyFrom(HALF)
        results = (await worker.mx(command)).bulk.items

        assert [(r.hresult, r.metadata.description) for r in results] == [
            (0, "/A"),
            (E_INVALIDARG, ""),
            (E_INVALIDARG, ""),
            (0, "X/B"),
            (E_INVALIDARG, ""),
        ]
        assert worker.backend.names() == ["describe_items"]


async def test_many_references_are_described_in_portions_and_a_failed_portion_fails_alone(inside) -> None:
    async with inside(DescribableBackend()) as worker:
        worker.backend.failures["describe_items"].append(MxError(E_FAIL, "no answer"))
        results = (await worker.mx(asking(*[f"A{n}" for n in range(1001)]))).bulk.items

        assert [call[1] for call in worker.backend.calls if call[0] == "describe_items"] == [500, 500, 1]
        assert [r.hresult for r in results] == [E_FAIL] * 500 + [0] * 501


async def test_a_backend_that_describes_nothing_says_so_for_each(inside) -> None:
    async with inside() as worker:
        results = (await worker.mx(asking("A", "B"))).bulk.items

        assert [(r.hresult, r.reason) for r in results] == [(E_NOTIMPL, "METADATA_NOT_SUPPORTED")] * 2
