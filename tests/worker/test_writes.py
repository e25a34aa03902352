"""Writes: pairing with completions, one in flight per item, missing completions, teardown that waits."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import advance

from mxgw.convert import ok_status, status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import EVENT_KIND_WRITE_COMPLETE
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest, GetInfo
from mxgw_worker.backends.base import E_FAIL, MxError
from mxgw_worker.calls import Call
from mxgw_worker.turns import TURN_QUEUE_LIMIT, Turns

pytestmark = pytest.mark.asyncio


def write(server: int, item: int, value: float = 1.0, *, wait: bool = False) -> c.MxCommand:
    return c.MxCommand(
        write=c.WriteCommand(server_handle=server, item_handle=item, value=to_value(value), wait_for_completion=wait)
    )


def completions(worker) -> list[tuple[int, bool, bool]]:
    return [
        (e.write_complete.write_id, e.write_complete.missing, e.write_complete.pairing_uncertain)
        for e in worker.events()
        if e.kind == EVENT_KIND_WRITE_COMPLETE
    ]


def written_values(worker) -> list[float]:
    return [call[3].double for call in worker.backend.calls if call[0] == "write"]


async def test_a_completion_carries_the_id_of_its_write(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        first, second = await worker.mx(write(h, a)), await worker.mx(write(h, b))
        worker.backend.sink.write_complete(h, b, [ok_status()])
        worker.backend.sink.write_complete(h, a, [ok_status()])

        assert (first.write.write_id, second.write.write_id) == (1, 2)
        assert not first.write.completed
        assert completions(worker) == [(2, False, False), (1, False, False)]


async def test_a_completion_nobody_waits_for_has_no_id(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.sink.write_complete(h, i, [ok_status()])
        worker.backend.sink.write_complete(h, 99, [ok_status()])

        assert completions(worker) == [(0, False, False)] * 2


async def test_a_reply_held_until_completion_has_its_statuses(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        reply = worker.submit(write(h, i, wait=True))
        await worker.backend.reached["write"].wait()
        refused = status(0, 6, 5, 1012)
        worker.backend.sink.write_complete(h, i, [refused])
        answer = (await reply).mx

        assert (answer.hresult, list(answer.statuses), answer.write.completed) == (0, [refused], True)
        assert completions(worker) == [(1, False, False)]


async def test_a_completion_during_the_call_itself_is_paired(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        i = await worker.add(h, "A")
        for expected in (1, 2):
            answer = await worker.mx(write(h, i, wait=True))
            assert (answer.write.write_id, answer.write.completed) == (expected, True)

        assert completions(worker) == [(1, False, False), (2, False, False)]
        assert len(worker.writes) == 0


async def test_a_second_write_to_an_item_waits_for_the_first_and_order_is_kept(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        replies = [worker.submit(write(h, i, value)) for value in (1.0, 2.0, 3.0)]
        other = await worker.add(h, "B")
        await worker.mx(write(h, other, 9.0))
        assert written_values(worker) == [1.0, 9.0]
        assert not replies[1].done()

        worker.backend.sink.write_complete(h, i, [ok_status()])
        await replies[1]
        assert not replies[2].done()
        worker.backend.sink.write_complete(h, i, [ok_status()])
        await replies[2]

        assert written_values(worker) == [1.0, 9.0, 2.0, 3.0]


async def test_a_success_that_is_still_pending_does_not_complete_the_write(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        reply = worker.submit(write(h, i, wait=True))
        await worker.backend.reached["write"].wait()
        worker.backend.sink.write_complete(h, i, [status(-1, 1, 1, 0)])
        await worker.register()
        assert not reply.done()
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert (await reply).mx.write.completed
        assert completions(worker) == [(1, False, False), (1, False, False)]


async def past_its_deadline(worker, command: c.MxCommand) -> CommandReply:
    """Return the answer to a command whose time passes while it waits."""
    reply = worker.submit(command, timeout_ms=10_000)
    await worker.submit(CommandRequest(get_info=GetInfo()))  # it has begun to wait
    advance(11)  # and a completion has 30 s
    return await reply


async def test_a_missing_completion_is_a_failure_for_everyone(inside) -> None:
    async with inside(completion_timeout_s=0.02) as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        answer = await worker.mx(write(h, i, wait=True))

        assert (answer.hresult, answer.reason) == (E_FAIL, "WRITE_COMPLETION_MISSING")
        assert (answer.write.write_id, answer.write.completed) == (1, False)
        assert completions(worker) == [(1, True, False)]


async def test_after_a_missing_completion_pairing_is_uncertain_until_the_item_is_removed(inside) -> None:
    async with inside(completion_timeout_s=0.02) as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i, wait=True))
        worker.backend.completes_writes = True
        await worker.mx(write(h, i, wait=True))
        await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": i}))
        assert await worker.add(h, "A") == i
        await worker.mx(write(h, i, wait=True))

        assert completions(worker) == [(1, True, False), (2, False, True), (3, False, False)]


async def test_a_write_waiting_behind_a_missing_completion_is_issued_then(inside) -> None:
    async with inside(completion_timeout_s=0.02) as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.submit(write(h, i, 1.0))
        await worker.mx(write(h, i, 2.0))

        assert written_values(worker) == [1.0, 2.0]


async def test_a_write_that_waited_past_its_deadline_is_never_issued(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i, 1.0))
        late = await past_its_deadline(worker, write(h, i, 2.0))
        after = worker.submit(write(h, i, 3.0))
        worker.backend.sink.write_complete(h, i, [ok_status()])
        await after

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert written_values(worker) == [1.0, 3.0]


async def test_a_held_reply_past_its_deadline_fails_but_the_completion_is_still_paired(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        late = await past_its_deadline(worker, write(h, i, wait=True))
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert completions(worker) == [(1, False, False)]


async def test_a_write_the_backend_refuses_frees_the_item(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.failures["write"].append(MxError(E_FAIL, "not now"))
        refused = await worker.mx(write(h, i, 1.0))
        accepted = await worker.mx(write(h, i, 2.0))

        assert (refused.message, refused.HasField("write")) == ("not now", False)
        assert accepted.hresult == 0
        assert len(worker.writes) == 1


async def test_too_many_writes_in_line_are_refused(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i))
        for _ in range(TURN_QUEUE_LIMIT):
            worker.submit(write(h, i))
        reply = await worker.mx(write(h, i))

        assert (reply.hresult, reply.reason) == (E_FAIL, "WRITE_QUEUE_FULL")


@pytest.mark.parametrize("kind", ["un_advise", "remove_item", "unregister", "unsubscribe_bulk"])
async def test_teardown_waits_for_the_write_in_flight(inside, kind: str) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i))
        fields = {
            "unregister": {"server_handle": h},
            "unsubscribe_bulk": {"server_handle": h, "item_handles": [i]},
        }.get(kind, {"server_handle": h, "item_handle": i})
        teardown = worker.submit(c.MxCommand(**{kind: fields}))
        await worker.register()
        assert not {"un_advise", "remove_item", "unregister"} & set(worker.backend.names())
        worker.backend.sink.write_complete(h, i, [ok_status()])
        reply = (await teardown).mx

        assert reply.hresult == 0
        assert {"un_advise", "remove_item", "unregister"} & set(worker.backend.names())
        assert completions(worker) == [(1, False, False)]


async def test_a_teardown_past_its_deadline_gives_up_without_touching_the_item(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i))
        remove = c.MxCommand(remove_item={"server_handle": h, "item_handle": i})
        late = await past_its_deadline(worker, remove)
        worker.backend.sink.write_complete(h, i, [ok_status()])
        again = await worker.mx(remove)

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert again.hresult == 0
        assert worker.backend.names().count("remove_item") == 1


async def test_a_write_behind_a_removal_never_reaches_an_item_that_reused_the_handle(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i, 1.0))
        remove = worker.submit(c.MxCommand(remove_item={"server_handle": h, "item_handle": i}))
        behind = worker.submit(write(h, i, 2.0))
        await worker.register()
        worker.backend.sink.write_complete(h, i, [ok_status()])
        await remove
        assert await worker.add(h, "B") == i

        assert (await behind).mx.reason == "ITEM_REMOVED"
        assert written_values(worker) == [1.0]


async def test_a_turn_handed_over_in_the_moment_a_wait_ends_is_not_lost() -> None:
    turns = Turns()
    turns.line_up()
    call = Call(lambda _reply: None, 0)

    async def wait_in_line() -> None:
        with turns.line_up() as ticket:
            await ticket.wait(call)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait_in_line())
        await asyncio.sleep(0)
        turns.release()
        waiting.cancel()
    assert waiting.cancelled()

    assert turns.line_up().has_turn


async def test_a_place_that_was_left_is_passed_over() -> None:
    turns = Turns()
    turns.line_up()
    turns.line_up().leave()
    third = turns.line_up()
    assert not third.has_turn
    turns.release()

    assert third.has_turn
