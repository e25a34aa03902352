// An OPC UA server by node-opcua, with what the tests in tests/worker/opcua/other_servers.toml need of the demo server:
// the same node ids, names, types and values. It prints one JSON line with its endpoint, and ends with its standard input.
// Arguments: a directory for its certificates, the number of counters below Load, and their period in milliseconds.
// Run by tests/worker/opcua/node_server.py, which says where node-opcua is (NODE_PATH).
"use strict";

const path = require("node:path");
const {
  DataType,
  LocalizedText,
  MessageSecurityMode,
  OPCUACertificateManager,
  OPCUAServer,
  QualifiedName,
  Range,
  SecurityPolicy,
  StatusCode,
  StatusCodes,
  Variant,
  VariantArrayType,
  coerceInt64,
  coerceNodeId,
  coerceUInt64,
  makeAccessLevelFlag,
  standardUnits,
} = require("node-opcua");

const NAMESPACE = "urn:mxgw:demo";
const [, , stateDirectory, items, periodMs] = process.argv;

const time = (text) => new Date(text);
const scalar = { arrayType: VariantArrayType.Scalar };
const matrix = { arrayType: VariantArrayType.Matrix, dimensions: [2, 3] };

// Name, type, value, and what else the Variant needs. Arrays are JavaScript arrays, and so are the two halves of 64 bits.
const WRITABLE = [
  ["Boolean", DataType.Boolean, false],
  ["SByte", DataType.SByte, -1],
  ["Byte", DataType.Byte, 1],
  ["Int16", DataType.Int16, -16],
  ["UInt16", DataType.UInt16, 16],
  ["Int32", DataType.Int32, -32],
  ["UInt32", DataType.UInt32, 4000000000],
  ["Int64", DataType.Int64, coerceInt64("-1099511627776"), scalar],
  ["UInt64", DataType.UInt64, coerceUInt64("18446744073709551615"), scalar],
  ["Float", DataType.Float, 0.5],
  ["Double", DataType.Double, 0.25],
  ["String", DataType.String, "text"],
  ["DateTime", DataType.DateTime, time("2018-01-15T12:30:00Z")],
  ["ByteString", DataType.ByteString, Buffer.from([0, 255])],
  ["Guid", DataType.Guid, "00000000-0000-0000-0000-000000000001"],
  ["LocalizedText", DataType.LocalizedText, new LocalizedText({ text: "Text", locale: "en" })],
  ["QualifiedName", DataType.QualifiedName, new QualifiedName({ name: "Name", namespaceIndex: 2 })],
  ["NodeId", DataType.NodeId, coerceNodeId("ns=2;s=Target")],
  ["StatusCode", DataType.StatusCode, StatusCode.makeStatusCode(StatusCodes.BadInvalidArgument, 0x1234)],
  ["XmlElement", DataType.XmlElement, "<a>1</a>"],
  ["Range", DataType.ExtensionObject, new Range({ low: NaN, high: 1.0 }), {}, "Range"],
  [
    "Variants",
    DataType.Variant,
    [
      new Variant({ dataType: DataType.Int32, value: 1 }),
      new Variant({ dataType: DataType.String, value: "a" }),
      new Variant({ dataType: DataType.Double, arrayType: VariantArrayType.Array, value: [0.5] }),
    ],
    {},
    "BaseDataType",
  ],
  ["BooleanArray", DataType.Boolean, [true, false, true]],
  ["Int32Array", DataType.Int32, [1, 2, 3]],
  ["UInt64Array", DataType.UInt64, [coerceUInt64("1"), coerceUInt64("18446744073709551615")]],
  ["DoubleArray", DataType.Double, [0.5, 1.5, 2.5]],
  ["StringArray", DataType.String, ["a", "b"]],
  ["DateTimeArray", DataType.DateTime, [time("2018-01-15T00:00:00Z"), time("2018-01-16T00:00:00Z")]],
  ["Matrix", DataType.Double, [1, 2, 3, 4, 5, 6], matrix],
  ["EmptyArray", DataType.Double, []],
];

async function main() {
  const certificates = new OPCUACertificateManager({ rootFolder: path.join(stateDirectory, "pki") });
  await certificates.initialize();
  const server = new OPCUAServer({
    port: 0,
    host: "127.0.0.1",
    alternateHostname: ["127.0.0.1"],
    buildInfo: { productName: "node-opcua for mxgw" },
    allowAnonymous: true,
    securityModes: [MessageSecurityMode.None],
    securityPolicies: [SecurityPolicy.None],
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    // Without a fastest rate every change is reported; else this server leaves out changes within 50 ms of each other.
    serverCapabilities: { maxSessions: 50, minSupportedSampleRate: 0 },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const names = space.registerNamespace(NAMESPACE);
  const objects = space.rootFolder.objects;
  const readOnly = makeAccessLevelFlag("CurrentRead");

  const add = (folder, name, variant, options = {}) =>
    names.addVariable({
      organizedBy: folder,
      nodeId: `s=${folder.browseName.name}.${name}`,
      browseName: name,
      dataType: options.dataType ?? DataType[variant.dataType],
      valueRank: { Scalar: -1, Array: 1, Matrix: 2 }[VariantArrayType[variant.arrayType]],
      arrayDimensions: variant.arrayType === VariantArrayType.Matrix ? [0, 0] : null,
      minimumSamplingInterval: options.sampling ?? 0,
      description: options.description,
      userAccessLevel: options.readOnly ? readOnly : undefined,
      value: variant,
    });

  const folder = names.addFolder(objects, { nodeId: "s=Writable", browseName: "Writable" });
  for (const [name, dataType, value, more, declared] of WRITABLE) {
    const arrayType = Array.isArray(value) ? VariantArrayType.Array : VariantArrayType.Scalar;
    add(folder, name, new Variant({ dataType, arrayType, value, ...more }), { dataType: declared });
  }
  const mode = names.addEnumerationType({ browseName: "Mode", nodeId: "s=Mode", enumeration: ["Zero", "One", "Two"] });
  add(folder, "Mode", new Variant({ dataType: DataType.Int32, value: 1 }), { dataType: mode });
  names.addAnalogDataItem({
    organizedBy: folder,
    nodeId: "s=Writable.Analog",
    browseName: "Analog",
    dataType: "Double",
    description: "Temperature of the furnace",
    minimumSamplingInterval: 0,
    engineeringUnitsRange: { low: -10, high: 50 },
    instrumentRange: { low: -40, high: 120 },
    engineeringUnits: standardUnits.degree_celsius,
    value: new Variant({ dataType: DataType.Double, value: 21.5 }),
  });
  add(folder, "Number", new Variant({ dataType: DataType.Int16, value: 7 }), { dataType: "Number" });
  add(folder, "ReadOnly", new Variant({ dataType: DataType.Double, value: 1.5 }), { readOnly: true });
  for (const [name, code] of [
    ["BadSensor", StatusCodes.BadSensorFailure],
    ["Uncertain", StatusCodes.UncertainSubNormal],
    ["Overflow", StatusCode.makeStatusCode(StatusCodes.Good, "Overflow | InfoTypeDataValue")],
    ["Forced", StatusCodes.GoodLocalOverride],
  ]) {
    const node = add(folder, name, new Variant({ dataType: DataType.Double, value: 1.5 }));
    node.setValueFromSource({ dataType: DataType.Double, value: 1.5 }, code, new Date());
  }

  const steel = names.addFolder(objects, { nodeId: "s=Steel", browseName: "Steel" });
  const row = add(steel, "Row", new Variant({ dataType: DataType.Int32, value: 0 }));
  const usage = add(steel, "Usage_kWh", new Variant({ dataType: DataType.Double, value: 0 }), {
    description: "Column Usage_kWh",
    readOnly: true,
  });
  names.addObject({ organizedBy: objects, nodeId: "s=Control", browseName: "Control" });

  const load = names.addFolder(objects, { nodeId: "s=Load", browseName: "Load" });
  const counters = [];
  for (let number = 0; number < Number(items); number++) {
    counters.push(add(load, `${number}`, new Variant({ dataType: DataType.Int32, value: 0 })));
  }
  let turn = 0;
  setInterval(() => {
    turn++;
    for (const counter of counters) counter.setValueFromSource({ dataType: DataType.Int32, value: turn });
    row.setValueFromSource({ dataType: DataType.Int32, value: turn });
    usage.setValueFromSource({ dataType: DataType.Double, value: turn / 2 });
  }, Number(periodMs));

  await server.start();
  process.stdin.on("end", () => process.exit(0)).resume();
  const port = server.endpoints[0].port;
  console.log(JSON.stringify({ endpoint: `opc.tcp://127.0.0.1:${port}/` }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
