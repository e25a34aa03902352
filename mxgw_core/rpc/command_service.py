"""CommandService: MXAccess commands and browsing. Guards check each input of a command."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_to_seconds
from mxgw.v1 import command_service_pb2 as pb
from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.access import AccessRequest, BrowseGuard, CommandGuard
from mxgw_core.api.calls import Call
from mxgw_core.api.errors import AccessDenied, InvalidRequest
from mxgw_core.api.slices import ENTRIES_AT_ONCE, in_slices, turn_for_whole
from mxgw_core.api.types import Identity, ItemRecord
from mxgw_core.config.models import Settings
from mxgw_core.failpoints import reach
from mxgw_core.rpc.access import AccessControl, LastPart, denied_inputs
from mxgw_core.rpc.bulk import is_bulk, with_denied, without
from mxgw_core.rpc.pages import PageRoom, page
from mxgw_core.rpc.request_ids import body_bytes, digest_of, request_key, withheld_digest
from mxgw_core.rpc.validation import LARGE_BYTES
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session
from mxgw_core.workers.commands import EncodedCommand
from mxgw_worker.ipc.page_tokens import page_token, place_of

# The commands that can have a request id.
_WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})
_LARGEST_BROWSE_PAGE = 5000
_LARGEST_METADATA_PAGE = 500


class CommandService:
    """Implements mxgw.v1.CommandService."""

    def __init__(self, settings: Settings, registry: SessionRegistry, access: AccessControl) -> None:
        self._settings = settings
        self._registry = registry
        self._access = access
        # Key: session. Value: its last caller and the `CommandGuard`s for this caller; most sessions have one caller.
        self._guards: WeakKeyDictionary[Session, tuple[Identity, Sequence[CommandGuard]]] = WeakKeyDictionary()

    async def Invoke(self, request: pb.InvokeRequest, call: Call) -> pb.InvokeResponse:
        find_session = partial(self._registry.info, request.session_id)
        asked = AccessRequest(call.method, call.identity, call.peer, request.session_id, find_session, request)
        to_worker = w.CommandRequest()
        encoded = None
        with self._access.deciding(asked) as decision:
            session = self._registry.get(request.session_id)
            kind = _kind_of(request.command)
            if request.request_id:
                await _turn_if_large(call)
                encoded = _remember(to_worker, request, kind, call.identity)
            command = await self._allowed(session, request.command, call.identity, decision, to_worker)
            timeout_s = self._timeout(call, request.timeout if request.HasField("timeout") else None)
        if encoded is None or decision.denied:
            await _turn_if_large(call)
            encoded = EncodedCommand.of(command)
        is_repeatable = bool(request.request_id)
        answer = call_worker(session, to_worker, timeout_s, mx=encoded)
        # The request can be large and the worker slow. So this call holds neither the request nor its encoded bytes
        # while it waits.
        del request, asked, command, to_worker, encoded
        reply = (await answer).mx
        if is_repeatable:
            reach("write:before-answer")
        if decision.denied:
            reply.bulk.CopyFrom(await with_denied(reply.bulk, decision.denied))
        return pb.InvokeResponse(reply=reply)

    async def _allowed(
        self,
        session: Session,
        command: c.MxCommand,
        identity: Identity,
        decision: LastPart,
        to_worker: w.CommandRequest,
    ) -> c.MxCommand:
        """Return the command without its denied inputs; store the checked items and the denied inputs in `decision`.

        MXAccess uses handles again. So the serials of the checked items are sent to the worker, which refuses an input
        if its handle belongs to another item by then.

        Raises:
            AccessDenied: a command that is no bulk command is denied, or a plugin failed.
            GatewayError: a guard refuses the whole command.
        """
        guards = self._guards_of(session, identity)
        if not guards:
            return command
        items: list[ItemRecord | None] = []
        async for some_items in in_slices(session.items.used_by(command), ENTRIES_AT_ONCE):
            items += some_items
        decision.items = items
        denied = decision.denied
        denied.update(await denied_inputs(guards, command, items))
        self._access.check_guards()  # other calls ran meanwhile
        if denied and not is_bulk(command):
            raise AccessDenied(denied.get(0, "the command is not allowed"))
        async for some in in_slices(range(len(items)), ENTRIES_AT_ONCE):
            to_worker.item_serials.extend(_serial_of(items[index]) for index in some if index not in denied)
        if to_worker.request_key:
            to_worker.withheld_digest = withheld_digest(denied)
        return await without(command, denied)

    def _guards_of(self, session: Session, identity: Identity) -> Sequence[CommandGuard]:
        """Return the guards for this caller.

        Plugins are asked again if the session's last call came from another caller, or if `Identity.claims` is another
        object than in that call.
        """
        self._access.check_guards()
        known = self._guards.get(session)
        if known is not None and known[0] == identity and known[0].claims is identity.claims:
            return known[1]
        guards = self._access.guards(session.info(), identity)
        self._guards[session] = identity, guards
        return guards

    async def Browse(self, request: pb.BrowseRequest, call: Call) -> pb.BrowseResponse:
        session = self._registry.get(request.session_id)
        largest = _LARGEST_METADATA_PAGE if request.include_metadata else _LARGEST_BROWSE_PAGE
        browse = w.Browse(
            parent=request.parent,
            name_contains=request.name_contains,
            page_size=page(request.page_size, 500, largest),
            page_token=request.page_token,
        )
        until = time.perf_counter() + self._timeout(call, None)
        guards = [guard for guard in self._guards_of(session, call.identity) if isinstance(guard, BrowseGuard)]
        if guards:
            response = await self._shown_nodes(session, browse, guards, until)
        else:
            found = (await call_worker(session, w.CommandRequest(browse=browse), _left(until))).browse
            response = pb.BrowseResponse(nodes=found.nodes, next_page_token=found.next_page_token)
        if request.include_metadata:
            await _add_metadata(session, response.nodes, until)
        return response

    async def _shown_nodes(
        self, session: Session, browse: w.Browse, guards: Sequence[BrowseGuard], until: float
    ) -> pb.BrowseResponse:
        """Return a page of the nodes that the guards show. Page length and page token reveal no hidden nodes.

        A parent that does not exist has no nodes here, so that it is no different from a hidden one.

        A page token contains the number of shown nodes before the page. So every call reads from the first node on.

        Raises:
            InvalidRequest: the page token belongs to another query.
            GatewayError: raised by `call_worker`.
        """
        query = f"shown\0{browse.parent}\0{browse.name_contains.casefold()}"
        place = place_of(browse.page_token, query) if browse.page_token else (0, 0)
        if place is None:
            raise InvalidRequest(
                "page_token is not one of this query; use next_page_token as it came, or start anew",
                metadata={"field": "page_token"},
            )
        before = place[0]
        room = PageRoom(browse.page_size, self._settings.workers.frame_bytes)
        nodes: list[c.BrowseNode] = []
        browse.page_size, browse.page_token, is_first = _LARGEST_BROWSE_PAGE, "", True
        while is_first or (browse.page_token and not room.is_full):
            is_first = False
            try:
                found = (await call_worker(session, w.CommandRequest(browse=browse), _left(until))).browse
            except InvalidRequest as error:
                if error.metadata.get("field") != "parent":
                    raise
                break
            async for some in in_slices(found.nodes):
                for node in some:
                    if not all(guard.shows(node) for guard in guards):
                        continue
                    if before:
                        before -= 1
                    elif room.takes(node):
                        nodes.append(node)
                if room.is_full:
                    break
            browse.page_token = found.next_page_token
        self._access.check_guards()  # other calls ran meanwhile
        token = page_token(place[0] + len(nodes), 0, query) if room.is_full else ""
        return pb.BrowseResponse(nodes=nodes, next_page_token=token)

    def _timeout(self, call: Call, asked: Duration | None) -> float:
        timeout_s = min(self._settings.limits.command_timeout_s, call.deadline_s or math.inf)
        if asked is None:
            return timeout_s
        seconds = duration_to_seconds(asked)
        if seconds <= 0:
            raise InvalidRequest("timeout must be longer than 0 s", metadata={"field": "timeout"})
        return min(timeout_s, seconds)


def _left(until: float) -> float:
    return max(0.0, until - time.perf_counter())


async def _add_metadata(session: Session, nodes: Sequence[c.BrowseNode], until: float) -> None:
    """Fill in the metadata of the nodes that have a reference, as far as the backend knows any.

    Raises:
        GatewayError: raised by `call_worker`.
    """
    described = [node for node in nodes if node.reference]
    if not described:
        return
    command = c.MxCommand()
    for node in described:
        command.get_item_metadata.items.add(item_definition=node.reference)
    answer = await call_worker(session, w.CommandRequest(mx=command), _left(until))
    for node, result in zip(described, answer.mx.bulk.items, strict=False):
        if result.HasField("metadata"):
            node.metadata.CopyFrom(result.metadata)


def _kind_of(command: c.MxCommand) -> str:
    """Return the name that the contract gives to this command.

    Raises:
        InvalidRequest: the message has no command that this gateway knows.
    """
    kind = command.WhichOneof("command")
    if kind is None:
        raise InvalidRequest(
            "the request has no command this gateway knows: set one of MxCommand's fields",
            metadata={"field": "command"},
        )
    return kind


async def _turn_if_large(call: Call) -> None:
    """Let other calls run before a large request is encoded, because the encoding cannot be cut into slices."""
    if call.request_bytes > LARGE_BYTES:
        await turn_for_whole()


def _remember(to_worker: w.CommandRequest, request: pb.InvokeRequest, kind: str, identity: Identity) -> EncodedCommand:
    """Mark a write so that the worker runs it only once, however often it is sent; return the encoded write.

    Raises:
        InvalidRequest: the command is no write, or the id is too short or too long.
    """
    if kind not in _WRITES:
        raise InvalidRequest(
            f"request_id goes with writes only, and this is {kind}: leave it empty", metadata={"field": "request_id"}
        )
    to_worker.request_key = request_key(identity, request.request_id)
    encoded = EncodedCommand(kind, body_bytes(request.command))
    to_worker.request_digest = digest_of(encoded.data)
    return encoded


def _serial_of(item: ItemRecord | None) -> int:
    return 0 if item is None else item.serial
