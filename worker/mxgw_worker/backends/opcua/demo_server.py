"""An OPC UA server to try things with: `python -m mxgw_worker.backends.opcua.demo_server`.

It plays the recorded steel data below `/Objects/Steel`, and has variables of many types below `/Objects/Writable`. A
method makes it forget its subscriptions. `--items` and `--rate` add counters below `/Objects/Load`. When the server is
ready, one JSON line on standard output names its endpoint. SIGTERM and SIGINT end the server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asyncua import Server, ua, uamethod
from asyncua.crypto.permission_rules import User, UserRole

from mxgw_worker.backends.opcua import certificates
from mxgw_worker.backends.sim.profiles.recording import STEEL_WEEK, attribute_name
from mxgw_worker.backends.sim.recordings import Recording, read_recording
from mxgw_worker.backends.sim.status import DataType
from mxgw_worker.platform import StopKind, on_stop

NAMESPACE = "urn:mxgw:demo"
_T = ua.VariantType
_KINDS = {DataType.BOOLEAN: _T.Boolean, DataType.INTEGER: _T.Int32, DataType.DOUBLE: _T.Double}

# Name, type and first value of the writable variables.
_WRITABLE: tuple[tuple[str, ua.VariantType, Any], ...] = (
    ("Boolean", _T.Boolean, False),
    ("SByte", _T.SByte, -1),
    ("Byte", _T.Byte, 1),
    ("Int16", _T.Int16, -16),
    ("UInt16", _T.UInt16, 16),
    ("Int32", _T.Int32, -32),
    ("UInt32", _T.UInt32, 4_000_000_000),
    ("Int64", _T.Int64, -(2**40)),
    ("UInt64", _T.UInt64, 2**64 - 1),
    ("Float", _T.Float, 0.5),
    ("Double", _T.Double, 0.25),
    ("String", _T.String, "text"),
    ("DateTime", _T.DateTime, datetime(2018, 1, 15, 12, 30, tzinfo=UTC)),
    ("ByteString", _T.ByteString, b"\x00\xff"),
    ("Guid", _T.Guid, uuid.UUID(int=1)),
    ("LocalizedText", _T.LocalizedText, ua.LocalizedText("Text", "en")),
    ("QualifiedName", _T.QualifiedName, ua.QualifiedName("Name", 2)),
    ("NodeId", _T.NodeId, ua.NodeId("Target", 2)),
    ("ExpandedNodeId", _T.ExpandedNodeId, ua.ExpandedNodeId("Target", 0, NamespaceUri="urn:plant;1", ServerIndex=1)),
    ("StatusCode", _T.StatusCode, ua.StatusCode(0x80AB1234)),
    ("XmlElement", _T.XmlElement, ua.XmlElement("<a>1</a>")),
    ("Range", _T.ExtensionObject, ua.Range(float("nan"), 1.0)),
    ("Variants", _T.Variant, [ua.Variant(1, _T.Int32), ua.Variant("a", _T.String), ua.Variant([0.5], _T.Double)]),
    ("BooleanArray", _T.Boolean, [True, False, True]),
    ("Int32Array", _T.Int32, [1, 2, 3]),
    ("UInt64Array", _T.UInt64, [1, 2**64 - 1]),
    ("DoubleArray", _T.Double, [0.5, 1.5, 2.5]),
    ("StringArray", _T.String, ["a", "b"]),
    ("DateTimeArray", _T.DateTime, [datetime(2018, 1, 15, tzinfo=UTC), datetime(2018, 1, 16, tzinfo=UTC)]),
    ("Matrix", _T.Double, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    ("EmptyArray", _T.Double, []),
)


class _Users:
    """Allows one user with a password, one user with a certificate, or both. When neither is set, anybody may
    connect.
    """

    def __init__(self, user: str, password: str, certificate: bytes) -> None:
        self._user, self._password, self._certificate = user, password, certificate

    def get_user(
        self, _server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> Any:
        if username is not None:
            allowed = bool(self._user) and username == self._user and password == self._password
        elif self._certificate:
            allowed = certificate == self._certificate
        else:
            allowed = not self._user
        return User(role=UserRole.User) if allowed else None


def main() -> None:
    """Parse the arguments and serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", default="opc.tcp://127.0.0.1:0/mxgw/demo", help="port 0: a free one")
    parser.add_argument("--speed", type=float, default=900.0, help="recorded seconds per second (900: a row a second)")
    parser.add_argument("--recorded-time", action="store_true", help="source times of 2018 instead of today's")
    parser.add_argument("--start-row", type=int, default=0, help="begin at this row of the recording")
    parser.add_argument("--items", type=int, default=0, help="counters below /Objects/Load")
    parser.add_argument("--rate", type=float, default=0.0, help="changes per second of each counter")
    parser.add_argument("--other-namespaces", type=int, default=0, help="namespaces to register before the demo's")
    parser.add_argument("--certificate", default="", help="with --private-key: Basic256Sha256 only")
    parser.add_argument("--private-key", default="")
    parser.add_argument("--user", default="", help="a user that may log in, and nobody without a login")
    parser.add_argument("--password-file", default="", help="the file with that user's password")
    parser.add_argument("--user-certificate", default="", help="DER file of a user that may log in")
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    options = parser.parse_args()
    password = Path(options.password_file).read_text("utf-8").rstrip("\r\n") if options.password_file else ""
    certificate = Path(options.user_certificate).read_bytes() if options.user_certificate else b""
    asyncio.run(_serve(options, password, certificate))


async def _serve(options: argparse.Namespace, password: str, certificate: bytes) -> None:
    stopping = asyncio.Event()  # The first request to stop sets this event.
    on_stop(lambda _: stopping.set(), *StopKind)
    server = Server(user_manager=_Users(options.user, password, certificate))
    # The standard's own nodes are half a million objects that stay. With Python's garbage collector, which goes through
    # them again and again while they are made, this takes twice as long.
    gc.disable()
    await server.init()
    gc.freeze()
    gc.enable()
    server.set_endpoint(options.endpoint)
    server.set_server_name("mxgw demo")
    await _set_security(server, options)
    for other in range(options.other_namespaces):
        await server.register_namespace(f"urn:mxgw:other:{other}")
    index = await server.register_namespace(NAMESPACE)
    recording = read_recording(STEEL_WEEK)
    play = await _add_steel(server, index, recording, options)
    await _add_writable(server, index)
    await _add_control(server, index)
    count = await _add_load(server, index, options.items)
    async with server, asyncio.TaskGroup() as tasks:
        players = [tasks.create_task(_repeat(play, recording.step_s / options.speed), name="steel")]
        if options.items and options.rate:
            players.append(tasks.create_task(_repeat(count, 1 / options.rate), name="load"))
        asked = urlsplit(options.endpoint)
        endpoint = f"opc.tcp://{asked.hostname}:{server.bserver.port}{asked.path}"
        sys.stdout.write(json.dumps({"endpoint": endpoint, "namespace": NAMESPACE, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await stopping.wait()
        for player in players:
            player.cancel()


async def _set_security(server: Server, options: argparse.Namespace) -> None:
    if options.certificate:
        # Clients compare the two. Source: OPC 10000-4, 6.1.3.
        uri = certificates.application_uri(certificates.load(Path(options.certificate)))
        if uri:
            await server.set_application_uri(uri)
        await server.load_certificate(options.certificate)
        await server.load_private_key(options.private_key)
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    tokens = [ua.UserNameIdentityToken] if options.user else []
    tokens += [ua.X509IdentityToken] if options.user_certificate else []
    server.set_identity_tokens(tokens or [ua.AnonymousIdentityToken])


async def _repeat(step: Callable[[], Any], period_s: float) -> None:
    """Call `step` at fixed times without drift. After a delay, missed calls are made up for, but at most those of one
    second.
    """
    due = time.perf_counter()
    while True:
        await step()
        due = max(due + period_s, time.perf_counter() - 1.0)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def _add_steel(
    server: Server, index: int, recording: Recording, options: argparse.Namespace
) -> Callable[[], Any]:
    folder = await server.nodes.objects.add_folder(ua.NodeId("Steel", index), ua.QualifiedName("Steel", index))
    columns = []
    for column in recording.columns:
        name = attribute_name(column.header)
        kind = _KINDS.get(column.data_type, _T.String)
        first = next(value for value in column.values if value is not None)
        node = await folder.add_variable(
            ua.NodeId(f"Steel.{name}", index), ua.QualifiedName(name, index), ua.Variant(first, kind)
        )
        await node.write_attribute(
            ua.AttributeIds.Description, ua.DataValue(ua.LocalizedText(f"Column {column.header} of {recording.name}"))
        )
        columns.append((node.nodeid, kind, column.values))
    row_id = ua.NodeId("Steel.Row", index)
    await folder.add_variable(row_id, ua.QualifiedName("Row", index), ua.Variant(0, _T.Int32))
    row = options.start_row - 1

    async def play() -> None:
        nonlocal row
        row = (row + 1) % len(recording.times)
        now = recording.times[row] if options.recorded_time else datetime.now(UTC)
        for node_id, kind, values in columns:
            value = values[row]
            code = ua.StatusCodes.Good if value is not None else ua.StatusCodes.BadNoData
            data = ua.DataValue(ua.Variant(value, kind if value is not None else _T.Null), ua.StatusCode(code), now)
            await server.write_attribute_value(node_id, data)
        await server.write_attribute_value(row_id, ua.DataValue(ua.Variant(row + 1, _T.Int32), ua.StatusCode(), now))

    return play


async def _add_writable(server: Server, index: int) -> None:
    folder = await server.nodes.objects.add_folder(ua.NodeId("Writable", index), ua.QualifiedName("Writable", index))

    async def add(name: str, value: ua.Variant, data_type: ua.NodeId | None = None) -> Any:
        return await folder.add_variable(
            ua.NodeId(f"Writable.{name}", index), ua.QualifiedName(name, index), value, datatype=data_type
        )

    for name, kind, first in _WRITABLE:
        is_array = isinstance(first, list)
        # The library finds out the data type of all values but those that have several.
        data_type = ua.NodeId(ua.ObjectIds.BaseDataType) if kind == _T.Variant else None
        await (await add(name, ua.Variant(first, kind, is_array=is_array), data_type)).set_writable()
    mode = await server.nodes.enum_data_type.add_data_type(ua.NodeId("Mode", index), ua.QualifiedName("Mode", index))
    strings = ua.Variant([ua.LocalizedText(text) for text in ("Zero", "One", "Two")], _T.LocalizedText)
    await mode.add_property(ua.NodeId("Mode.EnumStrings", index), ua.QualifiedName("EnumStrings", 0), strings)
    await _add_measurement(await add("Analog", ua.Variant(21.5, _T.Double)), index)
    await (await add("Mode", ua.Variant(1, _T.Int32), mode.nodeid)).set_writable()
    await (await add("Number", ua.Variant(7, _T.Int16), ua.NodeId(ua.ObjectIds.Number))).set_writable()
    await add("ReadOnly", ua.Variant(1.5, _T.Double))
    for name, code in (
        ("BadSensor", ua.StatusCodes.BadSensorFailure),
        ("Uncertain", ua.StatusCodes.UncertainSubNormal),
        ("Overflow", 0x0480),  # The StatusCode Good, with the bit that says that a queue has dropped values.
        ("Forced", ua.StatusCodes.GoodLocalOverride),
    ):
        node = await add(name, ua.Variant(1.5, _T.Double))
        data = ua.DataValue(ua.Variant(1.5, _T.Double), ua.StatusCode(code), datetime.now(UTC))
        await server.write_attribute_value(node.nodeid, data)


async def _add_measurement(node: Any, index: int) -> None:
    await node.set_writable()
    await node.write_attribute(
        ua.AttributeIds.Description, ua.DataValue(ua.Variant(ua.LocalizedText("Temperature of the furnace")))
    )
    # The unit's number is that of OPC 10000-8, 5.6.3.
    units = ua.EUInformation(
        "http://www.opcfoundation.org/UA/units/un/cefact",
        4408652,
        ua.LocalizedText("\u00b0C"),
        ua.LocalizedText("degree Celsius"),
    )
    for name, value in (
        ("EURange", ua.Range(-10.0, 50.0)),
        ("InstrumentRange", ua.Range(-40.0, 120.0)),
        ("EngineeringUnits", units),
    ):
        await node.add_property(ua.NodeId(f"Writable.Analog.{name}", index), ua.QualifiedName(name, 0), value)


async def _add_control(server: Server, index: int) -> None:
    control = await server.nodes.objects.add_object(ua.NodeId("Control", index), ua.QualifiedName("Control", index))

    @uamethod  # type: ignore[untyped-decorator]  # the library counts as untyped
    async def drop_subscriptions(_parent: Any) -> int:
        """Drop every subscription without a message to its client, as a server does that has lost its state."""
        service = server.iserver.subscription_service
        ids = list(service.subscriptions)
        await service.delete_subscriptions(ids)
        return len(ids)

    await control.add_method(
        ua.NodeId("Control.DropSubscriptions", index),
        ua.QualifiedName("DropSubscriptions", index),
        drop_subscriptions,
        [],
        [_T.Int64],
    )


async def _add_load(server: Server, index: int, items: int) -> Callable[[], Any]:
    folder = await server.nodes.objects.add_folder(ua.NodeId("Load", index), ua.QualifiedName("Load", index))
    ids = [ua.NodeId(f"Load.{number}", index) for number in range(items)]
    for number, node_id in enumerate(ids):
        await folder.add_variable(node_id, ua.QualifiedName(f"{number}", index), ua.Variant(0, _T.Int32))
    turn = 0

    async def count() -> None:
        nonlocal turn
        turn += 1
        now = datetime.now(UTC)
        for number, node_id in enumerate(ids):
            await server.write_attribute_value(node_id, ua.DataValue(ua.Variant(turn, _T.Int32), ua.StatusCode(), now))
            if number % 200 == 199:
                await asyncio.sleep(0)  # The server can answer clients here.

    return count


if __name__ == "__main__":
    main()
