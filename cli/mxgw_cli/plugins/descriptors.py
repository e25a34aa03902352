"""Writes the Python module of a .proto file from its description, as the protobuf compiler does.

The compiler is not installed with mxgw, and a plugin that adds a gRPC service needs this module from the begin on.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import Parse

_MODULE = """\
# -*- coding: utf-8 -*-
# Generated from {path}; README.md has the command. Do not edit.
from google.protobuf import descriptor as _descriptor
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf import symbol_database as _symbol_database
from google.protobuf.internal import builder as _builder

_sym_db = _symbol_database.Default()

DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile({encoded!r})

_globals = globals()
_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, _globals)
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, {module!r}, _globals)
if not _descriptor._USE_C_DESCRIPTORS:
    DESCRIPTOR._loaded_options = None
"""


def descriptor_code(description: str) -> str:
    """Return the code of a module for a `google.protobuf.FileDescriptorProto`, which is given as JSON."""
    file = Parse(description, FileDescriptorProto())
    module = file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
    return _MODULE.format(path=f"protos/{file.name}", encoded=file.SerializeToString(deterministic=True), module=module)
