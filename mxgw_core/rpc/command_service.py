"""CommandService: MXAccess commands and browsing, guarded input by input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_to_seconds
from mxgw.v1 import command_service_pb2 as pb
from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.access import AccessRequest, BrowseGuard, CommandGuard, CommandObserver
from mxgw_core.api.errors import AccessDenied, InvalidRequest
from mxgw_core.api.gateway import Call
from mxgw_core.api.types import Identity
from mxgw_core.config.models import Settings
from mxgw_core.failpoints import reach
from mxgw_core.rpc.access import AccessControl, denied_inputs
from mxgw_core.rpc.request_ids import body_digest, request_key, withheld_digest
from mxgw_core.rpc.validation import page
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session

# 0x80070005, as MXAccess clients know it from COM.
E_ACCESSDENIED = -2147024891
ITEM_DENIED = "ITEM_DENIED"

# The repeated field with the inputs of each bulk command.
_BULK_INPUTS = {
    "subscribe_bulk": "items",
    "unsubscribe_bulk": "item_handles",
    "write_bulk": "writes",
    "read_bulk": "items",
}
# What may bear a request id.
_WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})


class CommandService:
    """Implements mxgw.v1.CommandService."""

    def __init__(self, settings: Settings, registry: SessionRegistry, access: AccessControl) -> None:
        self._settings = settings
        self._registry = registry
        self._access = access
        # Who was judged last on each session, and by whom: mostly a session has one caller.
        self._guards: WeakKeyDictionary[Session, tuple[Identity, Sequence[CommandGuard]]] = WeakKeyDictionary()

    async def Invoke(self, request: pb.InvokeRequest, call: Call) -> pb.InvokeResponse:
        info = self._registry.info(request.session_id)
        asked = AccessRequest(call.method, call.identity, call.peer, request.session_id, info, request)
        to_worker = w.CommandRequest()
        with self._access.deciding(asked) as denied:
            session = self._registry.get(request.session_id)
            command = request.command
            kind = command.WhichOneof("command")
            if kind is None:
                raise InvalidRequest(
                    "the request has no command this gateway knows: set one of MxCommand's fields",
                    metadata={"field": "command"},
                )
            if request.request_id:
                _remember(to_worker, request, kind, call.identity)
            guards = self._guards_of(session, call.identity)
            if guards:
                denied.update(denied_inputs(guards, command))
                if denied and kind not in _BULK_INPUTS:
                    raise AccessDenied(denied.get(0, "the command is not allowed"))
                command = _without(command, kind, denied)
                to_worker.withheld_digest = withheld_digest(denied) if request.request_id else b""
            timeout_s = self._timeout(call, request.timeout if request.HasField("timeout") else None)
        with _observed([guard for guard in guards if isinstance(guard, CommandObserver)], session, command) as answered:
            to_worker.mx.CopyFrom(command)
            answer = await call_worker(session, to_worker, timeout_s)
            answered(answer)
        if request.request_id:
            reach("write:before-answer")
        reply = answer.mx
        if denied:
            _merge_denied(reply, denied)
        return pb.InvokeResponse(reply=reply)

    def _guards_of(self, session: Session, identity: Identity) -> Sequence[CommandGuard]:
        """Return the judges of this caller, asked for anew when its identity or what it may claim changed."""
        known = self._guards.get(session)
        if known is not None and known[0] == identity and known[0].claims is identity.claims:
            return known[1]
        guards = self._access.guards(session.info(), identity)
        self._guards[session] = identity, guards
        return guards

    async def Browse(self, request: pb.BrowseRequest, call: Call) -> pb.BrowseResponse:
        session = self._registry.get(request.session_id)
        browse = w.Browse(
            parent=request.parent,
            name_contains=request.name_contains,
            page_size=page(request.page_size, 500, 5000),
            page_token=request.page_token,
        )
        guards = [guard for guard in self._guards_of(session, call.identity) if isinstance(guard, BrowseGuard)]
        reply = await call_worker(session, w.CommandRequest(browse=browse), self._timeout(call, None))
        nodes = [node for node in reply.browse.nodes if all(guard.shows(node) for guard in guards)]
        return pb.BrowseResponse(nodes=nodes, next_page_token=reply.browse.next_page_token)

    def _timeout(self, call: Call, asked: Duration | None) -> float:
        timeout_s = min(self._settings.limits.command_timeout_s, call.deadline_s or math.inf)
        if asked is None:
            return timeout_s
        seconds = duration_to_seconds(asked)
        if seconds <= 0:
            raise InvalidRequest("timeout must be longer than 0 s", metadata={"field": "timeout"})
        return min(timeout_s, seconds)


def _remember(to_worker: w.CommandRequest, request: pb.InvokeRequest, kind: str, identity: Identity) -> None:
    """Let the worker run this write once, however often it is asked for.

    Raises:
        InvalidRequest: the command is no write, or the id is too short or too long.
    """
    if kind not in _WRITES:
        raise InvalidRequest(
            f"request_id goes with writes only, and this is {kind}: leave it empty", metadata={"field": "request_id"}
        )
    to_worker.request_key = request_key(identity, request.request_id)
    to_worker.request_digest = body_digest(request.command)


@contextmanager
def _observed(
    observers: Sequence[CommandObserver], session: Session, command: c.MxCommand
) -> Iterator[Callable[[w.CommandReply], None]]:
    """Tell observers that the command starts, and in any case that it finished; then ask waiting filters again."""
    if not observers:
        yield lambda _: None
        return
    answers: list[w.CommandReply] = []
    for observer in observers:
        observer.started(command)
    try:
        yield answers.append
    finally:
        for observer in observers:
            if answers:
                observer.finished(command, answers[0].mx, answers[0].head_sequence)
            else:
                observer.finished(command, None, 0)
        session.distributor.wake()


def _without(command: c.MxCommand, kind: str, denied: Mapping[int, str]) -> c.MxCommand:
    """Return the command with the denied inputs of its bulk call taken out."""
    if not denied:
        return command
    allowed = c.MxCommand()
    allowed.CopyFrom(command)
    inputs = getattr(getattr(allowed, kind), _BULK_INPUTS[kind])
    for index in sorted(denied, reverse=True):
        del inputs[index]
    return allowed


def _merge_denied(reply: c.MxReply, denied: Mapping[int, str]) -> None:
    """Put the denied inputs back at their places in the result."""
    for index in sorted(denied):
        item = c.BulkItemResult(hresult=E_ACCESSDENIED, message=denied[index], reason=ITEM_DENIED)
        reply.bulk.items.insert(index, item)
