"""How a subscriber of each system connects, and how its events are counted.

Every dialect is a function `(target, options) -> (socket, feed)`. It subscribes with a plain socket, waits until the
server has confirmed the subscription, and returns an object that counts the bytes that follow. So no figure includes
the cost of a client library.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from typing import Any, Protocol

from mxgw.v1.event_service_pb2 import StartPosition, StreamEventsRequest

from bench.counting import MarkerCounter, StrideCounter, WrongStream
from bench.events import MARKER, MARKER_AT, RECORD_BYTES, SEQUENCE_AT
from bench.http2 import GrpcFeed

STREAM_EVENTS = "/mxgw.v1.EventService/StreamEvents"
SUBJECT = b"mxgw"
_SIZE = str(RECORD_BYTES).encode()
# The bytes before and after each event in the stream of a subscriber, in protocols where these bytes are always the
# same.
NATS_BEFORE, NATS_AFTER = b"MSG " + SUBJECT + b" 1 " + _SIZE + b"\r\n", b"\r\n"
REDIS_BEFORE = b"*3\r\n$7\r\nmessage\r\n$4\r\n" + SUBJECT + b"\r\n$" + _SIZE + b"\r\n"
MQTT_TOPIC = len(SUBJECT).to_bytes(2, "big") + SUBJECT
RECEIVE_BUFFER_BYTES = 1024 * 1024


class Feed(Protocol):
    """Counts the events of one subscriber. `sequence` is that of the last event.

    `answers` is True when the server waits for answers of the subscriber, so that bytes must be processed at once.
    """

    sequence: int
    answers: bool

    def feed(self, buffer: bytearray, start: int, end: int) -> None: ...


Options = dict[str, Any]
Dialect = Callable[[str, Options], tuple[socket.socket, Feed]]


def connected(target: str) -> socket.socket:
    """Connect to `unix:/path` or `host:port`."""
    if target.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(target.removeprefix("unix:"))
        return connection
    host, _, port = target.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    return connection


def read_until(connection: socket.socket, ending: bytes) -> bytes:
    """Read an answer byte by byte, so that no byte after its end is read."""
    data = b""
    while not data.endswith(ending):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError(f"the server closed the connection after {data!r}")
        data += byte
    return data


def raw(target: str, _: Options) -> tuple[socket.socket, Feed]:
    """Subscribe to a stream that contains the records and nothing else."""
    return connected(target), StrideCounter(RECORD_BYTES, SEQUENCE_AT)


def grpc_stream(target: str, options: Options) -> tuple[socket.socket, Feed]:
    """Subscribe to a gRPC stream.

    Options: `path`; `requests` in hexadecimal, of which each subscriber takes one in turn; `metadata`; `stride`, which
    is True when all records have the same size.
    """
    connection = connected(target)
    feed = GrpcFeed(connection, stride=options.get("stride", False), keep_all=options.get("stamps", False))
    requests = options["requests"]
    request = bytes.fromhex(requests[options["index"] % len(requests)])
    feed.start(options["path"], request, options.get("metadata", {}))
    buffer = bytearray(65536)
    # StreamOpened, or the corresponding message of the other system, says that the subscriber is attached.
    while not feed.kept:
        size = connection.recv_into(buffer)
        if not size:
            raise ConnectionError("the server closed the connection")
        feed.feed(buffer, 0, size)
    return connection, feed


def stream_request(session_id: str) -> bytes:
    """Return the request for all events that the log of the session holds and for all that follow."""
    return StreamEventsRequest(session_id=session_id, start=StartPosition(oldest_retained={})).SerializeToString()


def nats_connected(target: str) -> socket.socket:
    connection = connected(target)
    read_until(connection, b"\r\n")  # the server's INFO
    options = {
        "verbose": False,
        "pedantic": False,
        "lang": "bytes",
        "version": "1",
        "headers": True,
        "no_responders": True,
    }
    connection.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    read_until(connection, b"PONG\r\n")
    return connection


def nats(target: str, _: Options) -> tuple[socket.socket, Feed]:
    connection = nats_connected(target)
    connection.sendall(b"SUB " + SUBJECT + b" 1\r\nPING\r\n")
    read_until(connection, b"PONG\r\n")
    stride = len(NATS_BEFORE) + RECORD_BYTES + len(NATS_AFTER)
    # Some seconds after the connection the server sends one PING to check whether the client is alive.
    return connection, StrideCounter(stride, len(NATS_BEFORE) + SEQUENCE_AT, noise=b"PING\r\n")


def nats_request(connection: socket.socket, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the JetStream API, and return the answer."""
    payload = json.dumps(body).encode()
    connection.sendall(f"SUB reply 9\r\nPUB {subject} reply {len(payload)}\r\n".encode() + payload + b"\r\n")
    while not (line := read_until(connection, b"\r\n")).startswith(b"MSG"):
        pass
    size = int(line.split()[-1])
    answer = b""
    while len(answer) < size + 2:
        answer += connection.recv(size + 2 - len(answer))
    connection.sendall(b"UNSUB 9\r\n")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        raise ConnectionError(f"JetStream refused {subject}: {result['error']}")
    return result


def jetstream(target: str, options: Options) -> tuple[socket.socket, Feed]:
    """Subscribe to JetStream with a push consumer without acknowledgements.

    The ordered consumers of NATS clients are of this kind.
    """
    connection = nats_connected(target)
    # The consumer of an earlier reader exists for some more seconds, so each consumer gets its own subject.
    deliver = f"deliver.{os.getpid()}.{options['index']}"
    connection.sendall(f"SUB {deliver} 1\r\nPING\r\n".encode())
    read_until(connection, b"PONG\r\n")
    config = {"deliver_subject": deliver, "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant"}
    # The consumer is created on another connection, so that only events come on the connection of the subscriber.
    asking = nats_connected(target)
    nats_request(
        asking, "$JS.API.CONSUMER.CREATE.events", {"stream_name": "events", "config": {**config, "max_waiting": 0}}
    )
    asking.close()
    return connection, MarkerCounter()


def redis_pubsub(target: str, _: Options) -> tuple[socket.socket, Feed]:
    connection = connected(target)
    connection.sendall(b"SUBSCRIBE " + SUBJECT + b"\r\n")
    read_until(connection, b":1\r\n")
    stride = len(REDIS_BEFORE) + RECORD_BYTES + 2
    return connection, StrideCounter(stride, len(REDIS_BEFORE) + SEQUENCE_AT)


class RedisStreamFeed(MarkerCounter):
    """Reads a Redis stream with XREAD, up to `COUNT` entries at a time.

    It sends the next XREAD when an answer is complete.
    """

    answers = True
    COUNT = 4_000
    _SIZE_LINE = re.compile(rb"\*1\r\n\*2\r\n\$4\r\n" + SUBJECT + rb"\r\n\*(\d+)\r\n")
    # The bytes between the id of an entry and its record.
    _BETWEEN = b"\r\n*2\r\n$1\r\ne\r\n$" + _SIZE + b"\r\n"

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._head = b""
        self._until = 0
        self._ask(b"0")

    def _ask(self, after: bytes) -> None:
        self._head, self._until = b"", 0
        count = str(self.COUNT).encode()
        self._connection.sendall(b"XREAD COUNT " + count + b" BLOCK 0 STREAMS " + SUBJECT + b" " + after + b"\r\n")

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        if not self._until:
            self._head += buffer[start : min(end, start + 64)]
            found = self._SIZE_LINE.match(self._head)
            if found is None:
                if self._head.startswith(b"-") or len(self._head) > 256:
                    raise WrongStream(f"Redis answered {self._head[:64]!r}")
                self.tail += buffer[start:end]
                return
            self._until = self.sequence + int(found[1])
        super().feed(buffer, start, end)
        record_rest = RECORD_BYTES - MARKER_AT - len(MARKER)
        if self.sequence == self._until and len(self.tail) == record_rest + 2:
            before = self.before_tail[: len(self.before_tail) - MARKER_AT]
            assert before.endswith(self._BETWEEN)
            before = before[: -len(self._BETWEEN)]
            self.tail = b""
            self._ask(before[before.rindex(b"\r\n") + 2 :])


def redis_stream(target: str, _: Options) -> tuple[socket.socket, Feed]:
    connection = connected(target)
    return connection, RedisStreamFeed(connection)


def mqtt_connected(target: str, name: str) -> socket.socket:
    connection = connected(target)
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name.encode()
    connection.sendall(bytes((0x10, len(body))) + body)
    answer = connection.recv(4)
    if answer[3:] != b"\x00":
        raise ConnectionError(f"the broker refused the connection: {answer!r}")
    return connection


def mqtt_publish_head(qos: int) -> bytes:
    """Return the bytes before the record in a PUBLISH. With QoS 1 the last two of them are the packet id."""
    packet_id = b"\x00\x01" if qos else b""
    length = len(MQTT_TOPIC) + len(packet_id) + RECORD_BYTES
    remaining = bytes((length,)) if length < 128 else bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((0x30 | qos << 1,)) + remaining + MQTT_TOPIC + packet_id


class MqttAckFeed(StrideCounter):
    """Counts the events of MQTT with QoS 1 and acknowledges every packet."""

    answers = True

    def __init__(self, connection: socket.socket, stride: int, offset: int) -> None:
        super().__init__(stride, offset)
        self._connection = connection
        self._carry = bytearray()

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        super().feed(buffer, start, end)
        self._carry += buffer[start:end]
        stride, id_at = self._stride, self._offset - SEQUENCE_AT - 2
        packets = len(self._carry) // stride
        if packets:
            whole = packets * stride
            acknowledgements = bytearray(b"\x40\x02\x00\x00" * packets)
            acknowledgements[2::4] = self._carry[id_at:whole:stride]
            acknowledgements[3::4] = self._carry[id_at + 1 : whole : stride]
            self._connection.sendall(acknowledgements)
            del self._carry[:whole]


def mqtt(target: str, options: Options) -> tuple[socket.socket, Feed]:
    qos = int(options["qos"])
    connection = mqtt_connected(target, f"reader{options['index']}")
    body = b"\x00\x01" + MQTT_TOPIC + bytes((qos,))
    connection.sendall(bytes((0x82, len(body))) + body)
    connection.recv(5)
    before = len(mqtt_publish_head(qos))
    stride, offset = before + RECORD_BYTES, before + SEQUENCE_AT
    return connection, MqttAckFeed(connection, stride, offset) if qos else StrideCounter(stride, offset)


DIALECTS: dict[str, Dialect] = {
    "raw": raw,
    "grpc": grpc_stream,
    "nats": nats,
    "jetstream": jetstream,
    "redis_pubsub": redis_pubsub,
    "redis_stream": redis_stream,
    "mqtt": mqtt,
}
