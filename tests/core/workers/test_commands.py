"""Commands on their way: bounded, with deadlines, and abandoned ones keep their place."""

from __future__ import annotations

import asyncio

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import CommandTimedOut, PendingCommandsExceeded, SessionEnded
from mxgw_core.workers.commands import EncodedCommand, PendingCommands

pytestmark = pytest.mark.asyncio

GONE = SessionEnded("the session ended", close_reason="WORKER_EXITED")


class Sent:
    """A connection, and what was sent on it to the worker."""

    def __init__(self, limit: int = 2, frame_bytes: int = 1_000_000) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.commands = PendingCommands(limit, frame_bytes)
        self.commands.connection = self

    def send_encoded(self, *parts: bytes) -> None:
        envelope = w.WorkerEnvelope.FromString(b"".join(parts))
        self.requests.append((envelope.correlation_id, envelope.command.SerializeToString()))

    def call(self, tasks: asyncio.TaskGroup, timeout_s: float = 5.0) -> asyncio.Task[w.CommandReply]:
        return tasks.create_task(self.commands.call(w.CommandRequest(get_info=w.GetInfo()), timeout_s))


def reply(items: int) -> w.CommandReply:
    return w.CommandReply(info=w.WorkerInfo(items=items))


async def test_answers_find_their_callers_in_any_order() -> None:
    sent = Sent()
    async with asyncio.TaskGroup() as tasks:
        first, second = sent.call(tasks), sent.call(tasks)
        await asyncio.sleep(0)
        (one, _), (two, _) = sent.requests

        assert one != two
        assert sent.commands.answered(two, reply(2))
        assert sent.commands.answered(one, reply(1))

    assert (first.result().info.items, second.result().info.items) == (1, 2)
    assert len(sent.commands) == 0


async def test_more_than_the_limit_is_refused_at_once_and_sent_nowhere() -> None:
    sent = Sent(limit=2)
    async with asyncio.TaskGroup() as tasks:
        sent.call(tasks), sent.call(tasks)
        await asyncio.sleep(0)
        with pytest.raises(PendingCommandsExceeded) as refused:
            await sent.commands.call(w.CommandRequest(), 5.0)

        assert refused.value.metadata == {"limit": "2"}
        assert refused.value.retry_after_s is not None
        assert "limits.pending_commands" in refused.value.message
        assert len(sent.requests) == 2

        for number, _ in sent.requests:
            sent.commands.answered(number, reply(0))


async def test_the_worker_is_given_a_little_less_time_than_the_caller() -> None:
    sent = Sent()
    async with asyncio.TaskGroup() as tasks:
        sent.call(tasks, timeout_s=2.0)
        sent.call(tasks, timeout_s=0.01)
        await asyncio.sleep(0)

        assert [w.CommandRequest.FromString(data).timeout_ms for _, data in sent.requests] == [1950, 1]

        for number, _ in sent.requests:
            sent.commands.answered(number, reply(0))


async def test_no_answer_in_time_is_an_unknown_outcome_and_keeps_its_place() -> None:
    sent = Sent(limit=1)
    with pytest.raises(CommandTimedOut, match="outcome is unknown"):
        await sent.commands.call(w.CommandRequest(), 0.02)

    assert len(sent.commands) == 1
    with pytest.raises(PendingCommandsExceeded):
        await sent.commands.call(w.CommandRequest(), 0.02)

    assert sent.commands.answered(sent.requests[0][0], reply(0))
    assert len(sent.commands) == 0


async def test_a_caller_that_goes_away_leaves_its_command_in_its_place() -> None:
    sent = Sent(limit=1)
    async with asyncio.TaskGroup() as tasks:
        call = sent.call(tasks)
        await asyncio.sleep(0)
        call.cancel()

    assert len(sent.commands) == 1
    assert sent.commands.answered(sent.requests[0][0], reply(0))
    assert len(sent.commands) == 0


@pytest.mark.parametrize("number", [0, 2, 999])
async def test_an_answer_to_what_was_never_asked_is_told(number: int) -> None:
    sent = Sent()
    async with asyncio.TaskGroup() as tasks:
        sent.call(tasks)
        await asyncio.sleep(0)

        assert sent.requests[0][0] == 1
        assert not sent.commands.answered(number, reply(0))
        assert sent.commands.answered(1, reply(0))
        assert not sent.commands.answered(1, reply(0))


async def test_the_end_fails_every_waiting_and_every_later_command() -> None:
    sent = Sent()

    async def failing() -> None:
        with pytest.raises(SessionEnded) as failed:
            await sent.commands.call(w.CommandRequest(), 5.0)

        assert failed.value is GONE

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(failing())
        tasks.create_task(failing())
        await asyncio.sleep(0)
        sent.commands.fail_all(GONE)

    assert len(sent.commands) == 0
    with pytest.raises(SessionEnded):
        await sent.commands.call(w.CommandRequest(), 5.0)
    assert len(sent.requests) == 2


async def test_the_first_end_counts() -> None:
    sent = Sent()
    sent.commands.fail_all(GONE)
    sent.commands.fail_all(SessionEnded("later", close_reason="CLIENT"))
    with pytest.raises(SessionEnded) as refused:
        await sent.commands.call(w.CommandRequest(), 5.0)

    assert refused.value is GONE


async def test_a_late_answer_after_the_end_is_no_fault_of_the_worker_but_an_invented_one_is() -> None:
    sent = Sent()
    with pytest.raises(CommandTimedOut):
        await sent.commands.call(w.CommandRequest(), 0.01)
    sent.commands.fail_all(GONE)

    assert sent.commands.answered(1, reply(0))
    assert not sent.commands.answered(2, reply(0))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 100_000])
async def test_a_command_that_is_encoded_already_reaches_the_worker_as_any_other(size: int) -> None:
    sent = Sent()
    command = c.MxCommand(add_item=c.AddItemCommand(item_definition="x" * size))
    async with asyncio.TaskGroup() as tasks:
        call = sent.commands.call(w.CommandRequest(item_serials=[7]), 2.0, EncodedCommand.of(command))
        tasks.create_task(call)
        ((number, data),) = sent.requests
        ((name, _),) = sent.commands.in_flight()

        assert name == "add_item"
        assert w.CommandRequest.FromString(data) == w.CommandRequest(mx=command, timeout_ms=1950, item_serials=[7])

        sent.commands.answered(number, reply(1))


async def test_large_commands_are_counted_until_the_worker_answers_or_is_gone() -> None:
    sent = Sent(limit=4)
    large = EncodedCommand.of(c.MxCommand(add_item=c.AddItemCommand(item_definition="x" * 100_000)))
    for _ in range(3):
        with pytest.raises(CommandTimedOut):
            await sent.commands.call(w.CommandRequest(), 0.001, large)
    with pytest.raises(CommandTimedOut):
        await sent.commands.call(w.CommandRequest(get_info=w.GetInfo()), 0.001)

    assert sent.commands.unanswered_bytes == sum(len(data) for _, data in sent.requests[:3])

    sent.commands.answered(sent.requests[0][0], reply(1))

    assert sent.commands.unanswered_bytes == sum(len(data) for _, data in sent.requests[1:3])

    sent.commands.fail_all(GONE)

    assert sent.commands.unanswered_bytes == 0
