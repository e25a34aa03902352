"""Commands against a backend: order, deadlines, failures, limits, arguments."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.clock import advance

from mxgw.convert import to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, ADVISE_KIND_PLAIN, ADVISE_KIND_SUPERVISORY
from mxgw.v1.values_pb2 import MxArray, MxValue, ValueArray
from mxgw.worker.v1.worker_pb2 import CommandRequest
from mxgw_worker.backends.base import E_ACCESSDENIED, E_FAIL, E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio


def write(server: int, item: int, value: float = 1.0, *, wait: bool = False) -> c.MxCommand:
    return c.MxCommand(
        write=c.WriteCommand(server_handle=server, item_handle=item, value=to_value(value), wait_for_completion=wait)
    )


async def test_all_18_methods_reach_the_backend_with_their_arguments_in_its_order(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        v, stamp = to_value(2.5), {"seconds": 3, "nanos": 4}
        i = (await worker.mx(c.MxCommand(add_item={"server_handle": h, "item_definition": "A.B"}))).item_handle
        commands = [
            c.MxCommand(add_item2={"server_handle": h, "item_definition": "B", "item_context": "A"}),
            c.MxCommand(add_buffered_item={"server_handle": h, "item_definition": "C", "item_context": "D"}),
            c.MxCommand(set_buffered_update_interval={"server_handle": h, "interval_ms": 500}),
            c.MxCommand(advise={"server_handle": h, "item_handle": i}),
            c.MxCommand(advise_supervisory={"server_handle": h, "item_handle": i}),
            c.MxCommand(write={"server_handle": h, "item_handle": i, "value": v, "user_id": 8}),
            c.MxCommand(write2={"server_handle": h, "item_handle": i, "value": v, "user_id": 8, "time": stamp}),
            c.MxCommand(
                write_secured={
                    "server_handle": h, "item_handle": i, "value": v, "current_user_id": 1, "verifier_user_id": 2,
                }
            ),
            c.MxCommand(
                write_secured2={
                    "server_handle": h, "item_handle": i, "value": v, "current_user_id": 1, "verifier_user_id": 2,
                    "time": stamp,
                }
            ),
            c.MxCommand(authenticate_user={"server_handle": h, "user": "u", "password": "p"}),
            c.MxCommand(archestra_user_to_id={"server_handle": h, "user_guid": "{g}"}),
            c.MxCommand(suspend={"server_handle": h, "item_handle": i}),
            c.MxCommand(activate={"server_handle": h, "item_handle": i}),
            c.MxCommand(un_advise={"server_handle": h, "item_handle": i}),
            c.MxCommand(remove_item={"server_handle": h, "item_handle": i}),
            c.MxCommand(unregister={"server_handle": h}),
        ]  # fmt: skip
        replies = [await worker.mx(command) for command in commands]
        ns = 3_000_000_004

        assert [reply.hresult for reply in replies] == [0] * len(commands)
        assert worker.backend.calls[1:] == [
            ("register", "test"),
            ("add_item", h, "A.B"),
            ("add_item2", h, "B", "A"),
            ("add_buffered_item", h, "C", "D"),
            ("set_buffered_update_interval", h, 500),
            ("advise", h, i),
            ("advise_supervisory", h, i),
            ("write", h, i, v, 8),
            ("write2", h, i, v, ns, 8),
            ("write_secured", h, i, 1, 2, v),
            ("write_secured2", h, i, 1, 2, v, ns),
            ("authenticate_user", h, "u"),
            ("archestra_user_to_id", h, "{g}"),
            ("suspend", h, i),
            ("activate", h, i),
            ("un_advise", h, i),
            ("remove_item", h, i),
            ("unregister", h),
        ]
        assert [reply.item_handle for reply in replies[:2]] == [2, 3]
        assert [reply.write.write_id for reply in replies[5:9]] == [1, 2, 3, 4]
        assert [reply.user_id for reply in replies[9:11]] == [1, 9]
        assert [len(reply.statuses) for reply in replies[11:13]] == [1, 1]
        assert not worker.items.items
        assert not worker.items.registrations


async def test_the_item_table_follows_the_methods(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A", advise=False)
        item = worker.items.get(h, i)
        seen = [item.advise]
        for command in (
            c.MxCommand(advise={"server_handle": h, "item_handle": i}),
            c.MxCommand(advise_supervisory={"server_handle": h, "item_handle": i}),
            c.MxCommand(un_advise={"server_handle": h, "item_handle": i}),
        ):
            await worker.mx(command)
            seen.append(item.advise)
        await worker.mx(c.MxCommand(suspend={"server_handle": h, "item_handle": i}))
        suspended = item.suspended
        await worker.mx(c.MxCommand(activate={"server_handle": h, "item_handle": i}))

        assert seen == [ADVISE_KIND_NONE, ADVISE_KIND_PLAIN, ADVISE_KIND_SUPERVISORY, ADVISE_KIND_NONE]
        assert suspended
        assert not item.suspended


async def test_a_failed_method_leaves_the_table_alone(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A", advise=False)
        for method in ("advise", "remove_item", "unregister"):
            worker.backend.failures[method].append(MxError(E_FAIL, "no"))
        await worker.mx(c.MxCommand(advise={"server_handle": h, "item_handle": i}))
        await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": i}))
        await worker.mx(c.MxCommand(unregister={"server_handle": h}))

        assert worker.items.get(h, i).advise == ADVISE_KIND_NONE
        assert h in worker.items.registrations


async def test_an_error_of_the_backend_is_an_ordinary_reply(inside) -> None:
    async with inside() as worker:
        worker.backend.failures["register"].append(MxError(E_ACCESSDENIED, "no licence"))
        reply = await worker.mx(c.MxCommand(register={"client_name": "x"}))

        assert (reply.hresult, reply.message, reply.reason) == (E_ACCESSDENIED, "no licence", "")


async def test_a_bug_of_the_backend_is_internal_and_the_worker_lives(inside, caplog) -> None:
    async with inside() as worker:
        worker.backend.failures["register"].append(KeyError("inner detail"))
        with caplog.at_level(logging.ERROR):
            reply = await worker.submit(c.MxCommand(register={"client_name": "x"}))
        correlation = reply.failure.detail.rpartition(" ")[2]

        assert reply.failure.reason == "INTERNAL"
        assert "inner detail" not in reply.failure.detail
        assert correlation in caplog.text
        assert "inner detail" in caplog.text
        assert await worker.register() == 1


async def test_backend_calls_come_in_the_order_of_the_commands(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        hold = worker.backend.holds["add_item"] = asyncio.Event()
        first = worker.submit(c.MxCommand(add_item={"server_handle": h, "item_definition": "A"}))
        rest = [
            worker.submit(c.MxCommand(add_item2={"server_handle": h, "item_definition": f"B{n}", "item_context": "C"}))
            for n in range(20)
        ]
        await worker.backend.reached["add_item"].wait()
        assert worker.backend.names() == ["register", "add_item"]
        hold.set()
        await first
        for reply in rest:
            await reply

        assert [call[2] for call in worker.backend.calls if call[0] == "add_item2"] == [f"B{n}" for n in range(20)]


async def test_a_command_that_only_waits_lets_others_pass(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        waiting = worker.submit(write(h, i, wait=True))
        await worker.add(h, "B")

        assert not waiting.done()
        worker.backend.sink.write_complete(h, i, [])
        assert (await waiting).mx.write.completed


async def test_a_command_past_its_deadline_gets_one_answer_and_issues_nothing_more(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        hold = worker.backend.holds["add_item"] = asyncio.Event()
        slow = worker.submit(c.MxCommand(add_item={"server_handle": h, "item_definition": "A"}))
        queued = worker.submit(c.MxCommand(register={"client_name": "late"}))
        await worker.backend.reached["add_item"].wait()
        advance(61)
        replies = [await slow, await queued]
        hold.set()
        handle = await worker.add(h, "B", advise=False)

        assert [reply.failure.reason for reply in replies] == ["COMMAND_TIMED_OUT"] * 2
        # The call that was under way happened and is known; the one that waited was never made.
        assert worker.items.get(h, 1).definition == "A"
        assert handle == 2
        assert worker.backend.names().count("register") == 1


async def test_a_bulk_call_past_its_deadline_stops(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        hold = worker.backend.holds["advise"] = asyncio.Event()
        bulk = c.SubscribeBulkCommand(server_handle=h, items=[{"item_definition": f"T{n}"} for n in range(5)])
        late = worker.submit(c.MxCommand(subscribe_bulk=bulk))
        await worker.backend.reached["advise"].wait()
        advance(61)
        reply = await late
        hold.set()
        await worker.register()

        assert reply.failure.reason == "COMMAND_TIMED_OUT"
        assert worker.backend.names().count("add_item") == 1


async def test_the_item_limit_refuses_with_its_setting(inside) -> None:
    async with inside(maximum_items=2) as worker:
        h = await worker.register()
        await worker.add(h, "A")
        await worker.add(h, "B")
        replies = [
            await worker.mx(c.MxCommand(add_item={"server_handle": h, "item_definition": "C"})),
            await worker.mx(c.MxCommand(add_item2={"server_handle": h, "item_definition": "C", "item_context": "D"})),
            await worker.mx(c.MxCommand(add_buffered_item={"server_handle": h, "item_definition": "C"})),
        ]
        bulk = await worker.mx(c.MxCommand(subscribe_bulk={"server_handle": h, "items": [{"item_definition": "C"}]}))
        read = await worker.mx(c.MxCommand(read_bulk={"server_handle": h, "items": [{"item_definition": "C"}]}))

        for result in (*replies, bulk.bulk.items[0], read.bulk.items[0]):
            assert (result.hresult, result.reason) == (E_FAIL, "ITEM_LIMIT_REACHED")
            assert "workers.items" in result.message
        await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": 1}))
        assert await worker.add(h, "C") == 1


@pytest.mark.parametrize("reference", ["x" * 1000, "\N{GREEK SMALL LETTER ALPHA}" * 500, "\N{GRINNING FACE}" * 250])
async def test_the_limit_of_references_refuses_with_its_setting_and_the_figures(inside, reference: str) -> None:
    async with inside(maximum_reference_bytes=1000) as worker:
        h = await worker.register()
        item = await worker.add(h, reference)
        replies = [
            await worker.mx(c.MxCommand(add_item={"server_handle": h, "item_definition": "C"})),
            await worker.mx(c.MxCommand(add_item2={"server_handle": h, "item_definition": "C", "item_context": "D"})),
            await worker.mx(c.MxCommand(add_buffered_item={"server_handle": h, "item_definition": "C"})),
        ]
        bulk = await worker.mx(c.MxCommand(subscribe_bulk={"server_handle": h, "items": [{"item_definition": "C"}]}))
        read = await worker.mx(c.MxCommand(read_bulk={"server_handle": h, "items": [{"item_definition": "C"}]}))

        for result in (*replies, bulk.bulk.items[0], read.bulk.items[0]):
            assert (result.hresult, result.reason) == (E_FAIL, "ITEM_LIMIT_REACHED")
            assert "limits.reference_bytes" in result.message
            assert "1000 bytes" in result.message
        for _ in range(3):
            await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": item}))
            item = await worker.add(h, reference)
        await worker.mx(c.MxCommand(unregister={"server_handle": h}))
        h = await worker.register()

        assert await worker.add(h, reference)


@pytest.mark.parametrize(
    "value",
    [
        None,
        MxValue(),
        MxValue(array=MxArray()),
        MxValue(time={"seconds": 0, "nanos": -1}),
        MxValue(time={"seconds": 2**60}),
        MxValue(elapsed_time={"seconds": 1, "nanos": -1}),
        MxValue(array=MxArray(times={"elements": [{"nanos": 10**9}]})),
        MxValue(array=MxArray(elapsed_times={"elements": [{"seconds": 2**60}]})),
        MxValue(array=MxArray(values=ValueArray(elements=[MxValue()]))),
    ],
)
async def test_a_missing_or_malformed_value_is_an_invalid_argument(inside, value) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        single = await worker.mx(c.MxCommand(write={"server_handle": h, "item_handle": i, "value": value}))
        bulk = await worker.mx(
            c.MxCommand(write_bulk={"server_handle": h, "writes": [{"item_handle": i, "value": value}]})
        )

        assert single.hresult == E_INVALIDARG
        assert bulk.bulk.items[0].hresult == E_INVALIDARG
        assert "write" not in worker.backend.names()


async def test_deeply_nested_arrays_are_refused(inside) -> None:
    value = to_value(1)
    for _ in range(20):
        value = MxValue(array=MxArray(values=ValueArray(elements=[value])))
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        reply = await worker.mx(c.MxCommand(write={"server_handle": h, "item_handle": i, "value": value}))

        assert (reply.hresult, "nested" in reply.message) == (E_INVALIDARG, True)


@pytest.mark.parametrize(
    "command",
    [
        c.MxCommand(),
        c.MxCommand(add_item={"server_handle": 1}),
        c.MxCommand(add_buffered_item={"server_handle": 1}),
        c.MxCommand(set_buffered_update_interval={"server_handle": 1, "interval_ms": 0}),
        c.MxCommand(
            write2={"server_handle": 1, "item_handle": 1, "value": to_value(1), "time": {"seconds": 0, "nanos": -5}}
        ),
    ],
)
async def test_bad_arguments_are_refused_before_the_backend_sees_them(inside, command) -> None:
    async with inside() as worker:
        await worker.register()
        reply = await worker.mx(command)

        assert reply.hresult == E_INVALIDARG
        assert worker.backend.names() == ["register"]


async def test_unknown_handles_are_the_backends_to_judge(inside) -> None:
    async with inside() as worker:
        replies = [
            await worker.mx(write(9, 9)),
            await worker.mx(c.MxCommand(remove_item={"server_handle": 9, "item_handle": 9})),
            await worker.mx(c.MxCommand(un_advise={"server_handle": 9, "item_handle": 9})),
            await worker.mx(c.MxCommand(unregister={"server_handle": 9})),
        ]

        assert [(reply.hresult, reply.message) for reply in replies] == [(E_INVALIDARG, "no server handle 9")] * 4


async def test_a_request_without_content_fails_in_words(inside) -> None:
    async with inside() as worker:
        reply = await worker.submit(CommandRequest())

        assert reply.failure.reason == "UNKNOWN_COMMAND"


async def test_an_answer_larger_than_a_frame_is_replaced_by_a_failure(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, "x" * 40_000)
        read = c.ReadBulkCommand(server_handle=h, items=[{"item_definition": "A"}] * 3)
        reply = await worker.submit(c.MxCommand(read_bulk=read))

        assert reply.failure.reason == "REPLY_TOO_LARGE"
        assert "workers.frame_bytes" in reply.failure.detail


async def test_a_closed_dispatcher_refuses(inside) -> None:
    async with inside() as worker:
        worker.dispatcher.close("going home")
        reply = await worker.submit(c.MxCommand(register={"client_name": "x"}))

        assert (reply.failure.reason, reply.failure.detail) == ("WORKER_STOPPING", "going home")


async def test_a_long_bulk_call_lets_the_event_loop_run(inside) -> None:
    async with inside(maximum_items=20_000) as worker:
        h = await worker.register()
        turns = 0
        bulk = c.SubscribeBulkCommand(server_handle=h, items=[{"item_definition": f"T{n}"} for n in range(3000)])
        reply = worker.submit(c.MxCommand(subscribe_bulk=bulk))
        while not reply.done():
            turns += 1
            await asyncio.sleep(0)

        assert turns > 5
