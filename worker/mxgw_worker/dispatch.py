"""Runs each command in a task of its own, and makes sure that each command gets exactly one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from mxgw.v1.commands_pb2 import MxCommand, MxReply
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest
from mxgw_worker.alarms import AlarmWatch
from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.bulk import Bulk
from mxgw_worker.calls import Call, CallExpired, CallFailed, failed_reply, report_bug
from mxgw_worker.item_metadata import MetadataQueries
from mxgw_worker.methods import Methods
from mxgw_worker.read_bulk import ReadBulk
from mxgw_worker.remembered_writes import RememberedWrites
from mxgw_worker.snapshots import Snapshots
from mxgw_worker.views import Views

# The largest number of running commands. No gateway has a higher `limits.pending_commands`, so only a faulty gateway
# reaches it.
MAXIMUM_CALLS = 100_000

# The handler of one kind of command. It gets the message of this kind, for example a WriteCommand.
_Handler: TypeAlias = Callable[[Call, Any], Awaitable[MxReply | None]]


class Dispatcher:
    """Runs commands against the backend.

    Backend calls are made in the order of the commands. A command that only waits does not block others, so replies can
    come in another order.
    """

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        methods: Methods,
        read_bulk: ReadBulk,
        views: Views,
        snapshots: Snapshots,
        alarms: AlarmWatch,
        maximum_frame_bytes: int,
    ) -> None:
        self._tasks = tasks
        self._views = views
        self._snapshots = snapshots
        self._alarms = alarms
        self._maximum_reply_bytes = maximum_frame_bytes - 64
        self._running: set[asyncio.Task[None]] = set()
        self._refusal: str | None = None
        self._remembered = RememberedWrites()
        bulk = Bulk(methods)
        self._handlers: dict[str, _Handler] = {
            "register": methods.register,
            "unregister": methods.unregister,
            "add_item": methods.add_item,
            "add_item2": methods.add_item2,
            "remove_item": methods.remove_item,
            "advise": methods.advise,
            "advise_supervisory": methods.advise_supervisory,
            "un_advise": methods.un_advise,
            "write": methods.write,
            "write2": methods.write2,
            "write_secured": methods.write_secured,
            "write_secured2": methods.write_secured2,
            "authenticate_user": methods.authenticate_user,
            "archestra_user_to_id": methods.archestra_user_to_id,
            "suspend": methods.suspend,
            "activate": methods.activate,
            "add_buffered_item": methods.add_buffered_item,
            "set_buffered_update_interval": methods.set_buffered_update_interval,
            "subscribe_bulk": bulk.subscribe,
            "unsubscribe_bulk": bulk.unsubscribe,
            "write_bulk": bulk.write,
            "read_bulk": read_bulk.read,
            "get_item_metadata": MetadataQueries(methods).get,
        }

    def close(self, reason: str) -> None:
        """Refuse every command from now on. Running commands continue."""
        self._refusal = reason

    def submit(self, request: CommandRequest, answer: Callable[[CommandReply], None]) -> None:
        """Run a request. `answer` is called exactly once, possibly before this method returns."""
        call = Call(self._within_a_frame(answer), request.timeout_ms, request.item_serials)
        if self._refusal is not None:
            call.fail("WORKER_STOPPING", self._refusal)
        elif len(self._running) >= MAXIMUM_CALLS:
            call.fail(
                "PENDING_COMMANDS_EXCEEDED", f"{len(self._running)} commands are under way; wait for their answers"
            )
        else:
            task = self._tasks.create_task(self._run(call, request), name=f"command:{request.WhichOneof('request')}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def cancel(self) -> None:
        """Cancel the running commands, and wait until they have ended. They get no answer."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _run(self, call: Call, request: CommandRequest) -> None:
        try:
            reply = await self._reply(call, request)
            if reply is not None:
                call.answer(reply)
        except CallExpired:
            # The timer of the call answers, or has answered already.
            pass
        except CallFailed as failure:
            call.fail(failure.reason, failure.detail)
        except Exception as error:
            call.fail("INTERNAL", report_bug(error))

    async def _reply(self, call: Call, request: CommandRequest) -> CommandReply | None:
        match request.WhichOneof("request"):
            case "mx" if request.request_key:
                return await self._remembered.once(call, request, lambda: self._mx(call, request.mx))
            case "mx":
                return await self._mx(call, request.mx)
            case "browse":
                return await self._views.browse(call, request.browse)
            case "get_state":
                return await self._views.state(call, request.get_state)
            case "get_snapshot":
                return await self._snapshots.page(request.get_snapshot)
            case "get_info":
                return await self._views.info()
            case "poll_alarms":
                return await self._alarms.poll(call, request.poll_alarms)
            case "acknowledge_alarms":
                return await self._alarms.acknowledge(call, request.acknowledge_alarms)
            case _:
                raise CallFailed("UNKNOWN_COMMAND", "the request holds no command this worker knows")

    async def _mx(self, call: Call, command: MxCommand) -> CommandReply | None:
        kind = command.WhichOneof("command")
        if kind is None:
            return CommandReply(mx=MxReply(hresult=E_INVALIDARG, message="the request holds no command"))
        try:
            reply = await self._handlers[kind](call, getattr(command, kind))
        except MxError as error:
            reply = failed_reply(error)
        return None if reply is None else CommandReply(mx=reply)

    def _within_a_frame(self, answer: Callable[[CommandReply], None]) -> Callable[[CommandReply], None]:
        def checked(reply: CommandReply) -> None:
            size = reply.ByteSize()
            if size > self._maximum_reply_bytes:
                reply = CommandReply()
                reply.failure.reason = "REPLY_TOO_LARGE"
                reply.failure.detail = (
                    f"the answer has {size} bytes, a frame holds {self._maximum_reply_bytes}; ask for fewer items at "
                    "once, or raise workers.frame_bytes"
                )
            answer(reply)

        return checked
