"""Writes with a request key: one call of the backend, however often and whenever they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from mxgw.convert import ok_status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest
from mxgw_worker.backends.base import E_INVALIDARG
from mxgw_worker.calls import Call
from mxgw_worker.remembered_writes import REMEMBERED_S, RememberedWrites

pytestmark = pytest.mark.asyncio

KEY, DIGEST = b"k" * 32, b"d" * 32
STAMP = {"seconds": 3, "nanos": 4}


def remembered(
    command: c.MxCommand, *, key: bytes = KEY, digest: bytes = DIGEST, withheld: bytes = b""
) -> CommandRequest:
    return CommandRequest(mx=command, request_key=key, request_digest=digest, withheld_digest=withheld)


def write(server: int, item: int, value: float = 1.0, *, wait: bool = False) -> c.MxCommand:
    return c.MxCommand(
        write=c.WriteCommand(server_handle=server, item_handle=item, value=to_value(value), wait_for_completion=wait)
    )


def bulk(server: int, *entries: tuple[int, float], wait: bool = False) -> c.MxCommand:
    writes = [c.BulkWrite(item_handle=item, value=to_value(value)) for item, value in entries]
    return c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=server, writes=writes, wait_for_completion=wait))


def written(worker) -> list[tuple[str, int]]:
    """Return method and item of every write that reached the backend."""
    return [(call[0], call[2]) for call in worker.backend.calls if str(call[0]).startswith("write")]


def every_write(server: int, item: int) -> list[c.MxCommand]:
    single = {"server_handle": server, "item_handle": item, "value": to_value(1.0)}
    users = {"current_user_id": 1, "verifier_user_id": 2}
    return [
        c.MxCommand(write=single),
        c.MxCommand(write2={**single, "time": STAMP}),
        c.MxCommand(write_secured={**single, **users}),
        c.MxCommand(write_secured2={**single, **users, "time": STAMP}),
        bulk(server, (item, 1.0)),
    ]


async def test_a_repeat_of_every_kind_of_write_has_the_first_outcome_and_writes_nothing(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        i = await worker.add(h, "A")
        for number, command in enumerate(every_write(h, i)):
            request = remembered(command, key=bytes([number]) * 32)
            first = await worker.submit(request)
            again = await worker.submit(request)

            assert first == again
            assert (first.mx.write.write_id or first.mx.bulk.items[0].write.write_id) == number + 1

        assert [method for method, _ in written(worker)] == [
            "write",
            "write2",
            "write_secured",
            "write_secured2",
            "write",
        ]


async def test_a_repeat_while_the_first_is_under_way_waits_for_it(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        request = remembered(write(h, i, wait=True))
        first, second = worker.submit(request), worker.submit(request)
        await worker.backend.reached["write"].wait()
        assert not second.done()
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert await first == await second
        assert (await first).mx.write.completed
        assert written(worker) == [("write", i)]


async def test_a_repeat_gives_up_at_its_own_deadline_and_takes_nothing_with_it(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        first = worker.submit(remembered(write(h, i, wait=True)))
        impatient = await worker.submit(remembered(write(h, i, wait=True)), timeout_ms=20)
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert impatient.failure.reason == "COMMAND_TIMED_OUT"
        assert (await first).mx.write.completed
        assert written(worker) == [("write", i)]


async def test_after_a_timeout_the_repeat_has_the_outcome_that_came_later(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        late = await worker.submit(remembered(write(h, i, wait=True)), timeout_ms=20)
        repeat = worker.submit(remembered(write(h, i, wait=True)))
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert (await repeat).mx.write.completed
        assert (await worker.submit(remembered(write(h, i, wait=True)))).mx.write.completed
        assert written(worker) == [("write", i)]


async def test_a_missing_completion_is_the_outcome_of_a_repeat_too(inside) -> None:
    async with inside(completion_timeout_s=0.02) as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        replies = [await worker.submit(remembered(write(h, i, wait=True))) for _ in range(2)]

        assert [reply.mx.reason for reply in replies] == ["WRITE_COMPLETION_MISSING"] * 2
        assert written(worker) == [("write", i)]


async def test_a_failure_of_the_backend_is_remembered(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        replies = [await worker.submit(remembered(write(h, 99))) for _ in range(2)]

        assert [reply.mx.hresult for reply in replies] == [E_INVALIDARG] * 2
        assert written(worker) == [("write", 99)]


async def test_what_never_reached_the_backend_runs_when_it_is_repeated(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i, 1.0))
        late = await worker.submit(remembered(write(h, i, 2.0)), timeout_ms=20)
        worker.backend.sink.write_complete(h, i, [ok_status()])
        repeat = await worker.submit(remembered(write(h, i, 2.0)))

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert repeat.mx.write.write_id
        assert written(worker) == [("write", i)] * 2


async def test_a_repeat_that_waited_for_a_first_that_came_to_nothing_runs(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.mx(write(h, i, 1.0))
        late = worker.submit(remembered(write(h, i, 2.0)), timeout_ms=20)
        repeat = worker.submit(remembered(write(h, i, 2.0)))
        assert (await late).failure.reason == "COMMAND_TIMED_OUT"
        worker.backend.sink.write_complete(h, i, [ok_status()])

        assert (await repeat).mx.write.write_id
        assert written(worker) == [("write", i)] * 2


async def test_a_bulk_call_past_its_deadline_says_later_what_became_of_each_entry(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        await worker.mx(write(h, b, 9.0))  # b is busy from here on
        request = remembered(bulk(h, (a, 1.0), (b, 2.0), wait=True))
        late = await worker.submit(request, timeout_ms=20)
        worker.backend.sink.write_complete(h, a, [ok_status()])
        worker.backend.sink.write_complete(h, b, [ok_status()])
        request.ClearField("timeout_ms")
        repeat = await worker.submit(request)

        assert late.failure.reason == "COMMAND_TIMED_OUT"
        assert [(r.item_handle, r.reason, r.write.completed) for r in repeat.mx.bulk.items] == [
            (a, "", True),
            (b, "WRITE_NOT_ISSUED", False),
        ]
        assert written(worker) == [("write", b), ("write", a)]


async def test_another_body_under_the_same_key_is_refused(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        i = await worker.add(h, "A")
        await worker.submit(remembered(write(h, i, 1.0)))
        other = await worker.submit(remembered(write(h, i, 2.0), digest=b"e" * 32))

        assert other.failure.reason == "REQUEST_ID_REUSED"
        assert written(worker) == [("write", i)]


async def test_a_reply_is_not_told_where_other_inputs_were_withheld(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        await worker.submit(remembered(bulk(h, (a, 1.0), (b, 1.0))))
        other = await worker.submit(remembered(bulk(h, (a, 1.0)), withheld=b"w" * 32))

        assert other.failure.reason == "REQUEST_JUDGED_OTHERWISE"
        assert written(worker) == [("write", a), ("write", b)]


async def test_another_key_is_another_write(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        i = await worker.add(h, "A")
        for key in (b"1" * 32, b"2" * 32):
            await worker.submit(remembered(write(h, i), key=key))

        assert written(worker) == [("write", i)] * 2


class Ran:
    """Counts the runs of requests; `reply` is their outcome."""

    def __init__(self, call: Call, reply_bytes: int = 0) -> None:
        self.runs = 0
        self._call = call
        self._reply = CommandReply(mx=c.MxReply(message="x" * reply_bytes))

    async def __call__(self) -> CommandReply:
        self.runs += 1
        self._call.has_issued = True
        return self._reply


async def _ask(requests: RememberedWrites, number: int, reply_bytes: int = 0) -> tuple[CommandReply, int]:
    answers: list[CommandReply] = []
    call = Call(answers.append, 0)
    run = Ran(call, reply_bytes)
    request = CommandRequest(request_key=number.to_bytes(32, "big"), request_digest=DIGEST)
    return await requests.once(call, request, run), run.runs


@pytest.mark.parametrize(("limits", "reply_bytes"), [({"limit": 3}, 0), ({"limit_bytes": 2400}, 400)])
async def test_while_there_is_no_room_new_keys_are_refused_and_old_ones_keep_their_word(
    limits: dict[str, int], reply_bytes: int
) -> None:
    now = 1000.0
    requests = RememberedWrites(**limits, clock=lambda: now)
    for number in range(3):
        await _ask(requests, number, reply_bytes)
        now += 1
    with pytest.raises(Exception, match="no room for more") as refused:
        await _ask(requests, 3)

    assert refused.value.reason == "REQUEST_ID_LIMIT_REACHED"
    assert [(await _ask(requests, number))[1] for number in range(3)] == [0, 0, 0]

    now = 1000.0 + REMEMBERED_S

    assert [(await _ask(requests, number))[1] for number in (1, 2, 3)] == [0, 0, 1]
    assert len(requests) == 3


async def test_a_request_is_remembered_for_its_time_and_no_longer() -> None:
    now = 0.0
    requests = RememberedWrites(clock=lambda: now)
    await _ask(requests, 1)
    now = REMEMBERED_S - 1

    assert (await _ask(requests, 1))[1] == 0

    now = REMEMBERED_S

    assert (await _ask(requests, 1))[1] == 1


async def test_who_stops_waiting_ends_neither_the_first_nor_the_others() -> None:
    requests = RememberedWrites()
    finish = asyncio.Event()
    call = Call(lambda _: None, 0)
    request = CommandRequest(request_key=KEY, request_digest=DIGEST)
    run = Ran(call)

    async def slowly() -> CommandReply:
        reply = await run()
        await finish.wait()
        return reply

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(requests.once(call, request, slowly))
        waiting = [tasks.create_task(requests.once(call, request, slowly)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        finish.set()

    assert first.result() == waiting[1].result()
    assert run.runs == 1
