"""One connection from the worker to the gateway: its handshake, its frames in both directions, and its flow control."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from struct import Struct
from typing import cast

from google.protobuf.message import DecodeError

from mxgw.worker.v1.worker_pb2 import ItemRecord, ItemRecords, WorkerEnvelope, WorkerGap
from mxgw_worker.encoded_events import varint
from mxgw_worker.ipc.framing import FrameDecoder, FrameError, frame
from mxgw_worker.ipc.handshake import HandshakeError, HandshakeReason, WorkerHandshake
from mxgw_worker.outbox import Block, Outbox

log = logging.getLogger(__name__)

# While more unsent bytes than this wait in the connection, events stay in the outbox. They are sent later, in larger
# blocks.
HIGH_WATER_BYTES = 256 * 1024
# About how many bytes of item records are sent in one message. This is well below the smallest `workers.frame_bytes`.
_RECORDS_BYTES = 16 * 1024

_LENGTH = Struct(">I").pack
# The tags of WorkerEnvelope.events and of the three fields of EventBlock.
_EVENTS_TAG, _FIRST_TAG, _LAST_TAG, _RECORDS_TAG = b"\x52", b"\x08", b"\x10", b"\x1a"


def block_frame(block: Block) -> bytes:
    """Return the whole frame of a block. The records are copied only once."""
    size = sum(map(len, block.records))
    head = b"".join(
        (
            _FIRST_TAG,
            varint(block.first_sequence),
            _LAST_TAG,
            varint(block.last_sequence),
            _RECORDS_TAG,
            varint(size),
        )
    )
    envelope_head = _EVENTS_TAG + varint(len(head) + size)
    length = _LENGTH(len(envelope_head) + len(head) + size)
    return b"".join((length, envelope_head, head, *block.records))


class GatewayConnection(asyncio.Protocol):
    """The worker's end of a connection.

    `on_envelope` is called for every message after the handshake, and `on_writable` when writing can continue.
    """

    def __init__(
        self,
        *,
        handshake: WorkerHandshake,
        outbox: Outbox,
        maximum_frame_bytes: int,
        on_envelope: Callable[[GatewayConnection, WorkerEnvelope], None],
        on_writable: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        # The handshake completes this future with the sequence after which events are to be sent. The future fails when
        # the connection ends before the handshake is complete.
        self.welcomed: asyncio.Future[int] = loop.create_future()
        # `connection_lost` completes this future with the reason why the connection ended.
        self.closed: asyncio.Future[str] = loop.create_future()
        self.is_writable = False
        self._handshake = handshake
        self._outbox = outbox
        self._decoder = FrameDecoder(maximum_frame_bytes)
        self._on_envelope = on_envelope
        self._on_writable = on_writable
        self._transport: asyncio.Transport | None = None
        self._end = "the gateway closed the connection"

    @property
    def next_secret(self) -> bytes:
        """The secret of the next handshake. It is known after the Welcome."""
        return self._handshake.next_secret

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the Hello."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.is_writable = True
        self.send(WorkerEnvelope(hello=self._handshake.hello(self._outbox.head_sequence, self._outbox.oldest_sequence)))

    def data_received(self, data: bytes) -> None:
        """Handle all complete frames that were received."""
        try:
            for payload in self._decoder.feed(data):
                self._received(WorkerEnvelope.FromString(payload))
        except (FrameError, HandshakeError) as error:
            self._cut(error)
        except DecodeError:
            self._cut(FrameError("a frame holds no WorkerEnvelope"))

    def eof_received(self) -> None:
        """If the stream ended inside a frame, note this as the reason for the end. The transport closes by itself."""
        try:
            self._decoder.end()
        except FrameError as error:
            self._end = str(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end of the connection, and complete the futures."""
        self.is_writable = False
        self._transport = None
        if error is not None:
            self._end = str(error)
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(self._end))
        self.closed.set_result(self._end)

    def pause_writing(self) -> None:
        """Keep events in the outbox from now on."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Send the events that wait in the outbox, because writing is possible again."""
        self.is_writable = True
        self._on_writable()

    def send(self, envelope: WorkerEnvelope) -> None:
        """Send a message. Without a connection the message is dropped."""
        if self._transport is not None:
            self._transport.write(frame(envelope.SerializeToString()))

    def send_events(self, events: Block | WorkerGap) -> None:
        """Send a block of events, or a gap."""
        if isinstance(events, Block):
            if self._transport is not None:
                self._transport.write(block_frame(events))
        else:
            self.send(WorkerEnvelope(gap=events))

    def send_records(self, records: Sequence[ItemRecord]) -> None:
        """Send item records, in several messages if needed."""
        part: list[ItemRecord] = []
        size = 0
        for record in records:
            part.append(record)
            size += record.ByteSize()
            if size >= _RECORDS_BYTES:
                self.send(WorkerEnvelope(item_records=ItemRecords(records=part)))
                part, size = [], 0
        if part:
            self.send(WorkerEnvelope(item_records=ItemRecords(records=part)))

    async def close(self, timeout_s: float) -> None:
        """Send all unsent messages, then close. If this takes longer than `timeout_s`, the connection is cut."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self.closed)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once. Unsent messages are lost."""
        if self._transport is not None:
            self._transport.abort()

    def _received(self, envelope: WorkerEnvelope) -> None:
        kind = envelope.WhichOneof("body")
        if self.welcomed.done():
            self._on_envelope(self, envelope)
        elif kind == "challenge":
            self.send(WorkerEnvelope(proof=self._handshake.on_challenge(envelope.challenge)))
        elif kind == "welcome":
            self.welcomed.set_result(self._handshake.on_welcome(envelope.welcome))
        elif kind == "reject":
            self._handshake.on_reject(envelope.reject)
        else:
            raise HandshakeError(HandshakeReason.UNEXPECTED_MESSAGE, f"received {kind} before the handshake was done")

    def _cut(self, error: FrameError | HandshakeError) -> None:
        self._end = str(error)
        log.warning("cutting the connection to the gateway: %s", error)
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        self.abort()
