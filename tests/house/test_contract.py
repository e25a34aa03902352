"""The public contract: what breaks a released client is found, and protos/ breaks none."""

from __future__ import annotations

import importlib
import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2 as pb
from support.repository import ROOT


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contract", ROOT / "scripts" / "contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract = _script()
BASELINE = pb.FileDescriptorSet.FromString(contract.BASELINE.read_bytes())


def changed(change: Callable[[pb.FileDescriptorSet], object]) -> pb.FileDescriptorSet:
    files = pb.FileDescriptorSet.FromString(contract.BASELINE.read_bytes())
    change(files)
    return files


def named(elements: Any, name: str) -> Any:
    return next(element for element in elements if element.name == name)


def without(elements: Any, name: str) -> None:
    del elements[next(n for n, element in enumerate(elements) if element.name == name)]


def file(files: pb.FileDescriptorSet, name: str) -> pb.FileDescriptorProto:
    found: pb.FileDescriptorProto = named(files.file, f"mxgw/v1/{name}.proto")
    return found


def gap(files: pb.FileDescriptorSet) -> pb.DescriptorProto:
    found: pb.DescriptorProto = named(file(files, "events").message_type, "Gap")
    return found


def reason(files: pb.FileDescriptorSet) -> pb.EnumDescriptorProto:
    found: pb.EnumDescriptorProto = named(file(files, "events").enum_type, "GapReason")
    return found


def stream_events(files: pb.FileDescriptorSet) -> pb.MethodDescriptorProto:
    found: pb.MethodDescriptorProto = file(files, "event_service").service[0].method[0]
    return found


def give_up(files: pb.FileDescriptorSet) -> None:
    """Give a number of an enum free again that was reserved."""
    del named(file(files, "session_service").enum_type, "CloseReason").reserved_range[:]


BREAKING: dict[str, tuple[Callable[[pb.FileDescriptorSet], object], str]] = {
    "a field removed": (lambda f: without(gap(f).field, "count"), "field mxgw.v1.Gap.count was removed"),
    "a field renamed": (lambda f: setattr(named(gap(f).field, "count"), "name", "n"), "Gap.count was removed"),
    "a field renumbered": (
        lambda f: setattr(named(gap(f).field, "count"), "number", 99),
        "Gap.count: number was 4 and is 99",
    ),
    "a type": (
        lambda f: setattr(named(gap(f).field, "count"), "type", 5),
        "Gap.count: type was TYPE_UINT64 and is TYPE_INT32",
    ),
    "a message type": (
        lambda f: setattr(named(gap(f).field, "reason"), "type_name", ".mxgw.v1.EventKind"),
        "Gap.reason: type was .mxgw.v1.GapReason and is .mxgw.v1.EventKind",
    ),
    "a label": (
        lambda f: setattr(named(gap(f).field, "count"), "label", 3),
        "Gap.count: label was LABEL_OPTIONAL and is LABEL_REPEATED",
    ),
    "presence": (
        lambda f: setattr(named(gap(f).field, "count"), "proto3_optional", True),
        "Gap.count: label was LABEL_OPTIONAL and is optional",
    ),
    "a field out of its oneof": (
        lambda f: named(named(file(f, "values").message_type, "MxValue").field, "integer").ClearField("oneof_index"),
        "MxValue.integer: oneof was kind and is not set",
    ),
    "packing": (
        lambda f: setattr(named(gap(f).field, "runs").options, "packed", False),
        "Gap.runs: packed was not set and is False",
    ),
    "an enum value removed": (
        lambda f: without(reason(f).value, "GAP_REASON_CONFLATED"),
        "GapReason.GAP_REASON_CONFLATED was removed",
    ),
    "an enum value renumbered": (
        lambda f: setattr(named(reason(f).value, "GAP_REASON_CONFLATED"), "number", 33),
        "GAP_REASON_CONFLATED: number was 3 and is 33",
    ),
    "a reserved number given free": (give_up, "CloseReason: reserved number 12 was reserved and is not set"),
    "a message removed": (
        lambda f: without(file(f, "events").message_type, "Gap"),
        "message mxgw.v1.Gap was removed or renamed",
    ),
    "a method removed": (
        lambda f: without(file(f, "gateway_service").service[0].method, "Ping"),
        "rpc mxgw.v1.GatewayService.Ping was removed",
    ),
    "a request type": (
        lambda f: setattr(stream_events(f), "input_type", ".mxgw.v1.PingRequest"),
        "request was .mxgw.v1.StreamEventsRequest and is .mxgw.v1.PingRequest",
    ),
    "streaming": (
        lambda f: setattr(stream_events(f), "server_streaming", False),
        "StreamEvents: server streaming was True and is False",
    ),
    "a service removed": (
        lambda f: without(file(f, "gateway_service").service, "GatewayService"),
        "service mxgw.v1.GatewayService was removed",
    ),
    "a file removed": (lambda f: without(f.file, "mxgw/v1/values.proto"), "file mxgw/v1/values.proto was removed"),
    "a package": (
        lambda f: setattr(file(f, "values"), "package", "mxgw.v2"),
        "values.proto: package was mxgw.v1 and is mxgw.v2",
    ),
    "an option of a generator": (
        lambda f: setattr(file(f, "values").options, "go_package", "elsewhere"),
        "go_package was mxgw.dev/go/gen/mxgw/v1;mxgwv1 and is elsewhere",
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_what_breaks_a_client_is_found(what: str) -> None:
    change, sentence = BREAKING[what]
    problems = contract.breaking_changes(BASELINE, changed(change))

    assert any(sentence in problem for problem in problems), problems


def test_what_goes_away_with_its_message_is_reported_once() -> None:
    problems = contract.breaking_changes(BASELINE, changed(lambda f: without(file(f, "events").message_type, "Gap")))

    assert problems == ["message mxgw.v1.Gap was removed or renamed"]


def test_what_is_added_breaks_nobody() -> None:
    def add(files: pb.FileDescriptorSet) -> None:
        gap(files).field.add(name="more", number=90, type=9, label=1)
        gap(files).reserved_range.add(start=91, end=92)
        reason(files).value.add(name="GAP_REASON_MORE", number=90)
        file(files, "events").message_type.add(name="More")
        file(files, "event_service").service[0].method.add(
            name="More", input_type=".mxgw.v1.More", output_type=".mxgw.v1.More"
        )
        files.file.add(name="mxgw/v1/more.proto", package="mxgw.v1")

    assert contract.breaking_changes(BASELINE, changed(add)) == []


def test_protos_break_no_client_of_the_baseline() -> None:
    """The generated code stands for protos/ here; `make check` compiles them, and compares both."""
    now = pb.FileDescriptorSet()
    for path in contract.public_protos():
        name = path.relative_to(contract.PROTOS).with_suffix("").as_posix().replace("/", ".")
        now.file.add().ParseFromString(importlib.import_module(f"{name}_pb2").DESCRIPTOR.serialized_pb)

    assert contract.breaking_changes(BASELINE, now) == []


def test_the_baseline_moves_only_with_the_version() -> None:
    baseline = contract.BASELINE_VERSION.read_text().strip()

    assert not contract.may_move(baseline, baseline)
    assert not contract.may_move("0.10.0", "0.9.9")
    assert contract.may_move("0.9.0", "0.10.0")
    assert not contract.may_move(contract.project_version(), baseline), "the baseline is of a later version"


def test_a_service_rpc_message_or_enum_without_a_comment_is_found() -> None:
    files = pb.FileDescriptorSet()
    bare = files.file.add(name="bare.proto", package="x")
    bare.message_type.add(name="M")
    bare.message_type.add(name="Said")
    bare.enum_type.add(name="E")
    bare.service.add(name="S").method.add(name="R")
    bare.source_code_info.location.add(path=[4, 1], leading_comments=" It says what it is.\n")

    assert contract.missing_comments(files) == [f"bare.proto: {name} has no comment" for name in ("M", "E", "S", "S.R")]


def test_every_proto_names_its_packages_for_generators() -> None:
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        options = {
            line.split()[1] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("option ")
        }

        assert {"go_package", "java_package", "java_multiple_files", "csharp_namespace"} <= options, path


def test_the_archive_has_the_public_protos_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        contract.write_archive(tmp_path / name, contract.public_protos())

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()

    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()

    assert {"mxgw/v1/events.proto", "mxgw/dashboard/v1/dashboard_service.proto", "LICENSE"} <= set(names)
    assert not [name for name in names if "worker" in name]
